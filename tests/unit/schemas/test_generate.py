"""The generated files say what the types say, and `--check` finds out where they do not."""

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.asyncapi import asyncapi_document
from schemas.contract import MESSAGES
from schemas.generate import GENERATED, first_difference, generated_files, main, write
from schemas.topics import TOPICS, Topic, topic_config


def test_the_committed_files_are_as_generated() -> None:
    assert first_difference(GENERATED) is None


def test_there_is_one_schema_for_each_message_and_one_document() -> None:
    types = [message.type for message in MESSAGES]
    assert len(set(types)) == len(types)
    assert generated_files().keys() == {f"{kind}.schema.json" for kind in types} | {"asyncapi.json"}


def test_the_text_is_sorted_and_ends_with_a_newline() -> None:
    for text in generated_files().values():
        again = json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False)
        assert text == again + "\n"


def test_writing_makes_the_folder_current_and_removes_what_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "generated"
    assert main([], folder) == 0
    (folder / "stoploss.gone.schema.json").write_text("{}")
    write(folder)
    assert main(["--check"], folder) == 0


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        pytest.param("asyncapi.json", None, "asyncapi.json: is missing", id="missing"),
        pytest.param("extra.json", "{}", "extra.json: no message has this name", id="extra"),
        pytest.param("asyncapi.json", "{}", "asyncapi.json: differs from what", id="changed"),
    ],
)
def test_the_check_names_the_first_file_that_drifts(
    name: str, text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "generated"
    write(folder)
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)

    assert main(["--check"], folder) == 1
    assert capsys.readouterr().err.startswith(f"generated/{said}")


DOCUMENT: dict[str, Any] = asyncapi_document()


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolved(reference: str) -> Any:  # noqa: ANN401 - any part of the document
    found: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def test_every_reference_of_the_document_resolves() -> None:
    found = set(references(DOCUMENT))
    assert found
    for reference in found:
        assert resolved(reference), reference


def test_every_definition_of_the_document_is_used() -> None:
    used = set(references(DOCUMENT))
    for kind in ("messages", "parameters", "schemas"):
        for name in DOCUMENT["components"][kind]:
            assert f"#/components/{kind}/{name}" in used


def test_the_document_has_every_topic_with_its_settings() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert DOCUMENT["channels"].keys() == {topic.value for topic in Topic}
    for spec in TOPICS:
        channel = DOCUMENT["channels"][spec.topic.value]
        binding = channel["bindings"]["kafka"]
        settings = {
            name: ",".join(value) if isinstance(value, list) else str(value)
            for name, value in binding["topicConfiguration"].items()
        }
        assert channel["address"] == f"{{prefix}}{spec.topic.value}"
        assert settings == topic_config(spec.topic)
        assert binding["partitions"] == (spec.partitions or 12)


def test_every_message_is_in_the_channel_of_its_topic_and_in_no_other() -> None:
    for topic in Topic:
        names = {message.name for message in MESSAGES if message.topic is topic}
        channel = DOCUMENT["channels"][topic.value]
        assert channel["messages"].keys() == names
    assert {message["name"] for message in DOCUMENT["components"]["messages"].values()} == {
        message.type for message in MESSAGES
    }


def test_the_operations_are_those_of_the_ledger() -> None:
    found = {
        (operation["action"], operation["channel"]["$ref"].rpartition("/")[2])
        for operation in DOCUMENT["operations"].values()
    }
    written = {spec.topic.value for spec in TOPICS if spec.writers == "ledger"}
    assert found == {("receive", "events"), ("receive", "tasks"), ("send", "events")} | {
        ("send", topic) for topic in written
    }
    for operation in DOCUMENT["operations"].values():
        prefix = f"{operation['channel']['$ref']}/messages/"
        assert operation["messages"]
        assert all(one["$ref"].startswith(prefix) for one in operation["messages"])


def test_the_command_ends_with_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["schemas.generate", "--check"])
    monkeypatch.delitem(sys.modules, "schemas.generate")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("schemas.generate", run_name="__main__")
    assert ended.value.code == 0
