"""What `import` and `replay` say of one file, one task, one line."""

from pathlib import Path

import pytest

from tests.unit.cli.command_line import run

USAGE = '{"source":"mine","session":"a","input_tokens":5,"output_tokens":5,"ts":"2026-01-05T09:00:00Z"}\n'


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "usage.jsonl"
    file.write_text(USAGE + "broken\n")
    return file


def test_an_import_of_one_task_says_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Path
) -> None:
    ran = run(capsys, "import", "usage-jsonl", str(log), "--out", str(tmp_path / "out.jsonl"))
    assert ran.code == 0
    assert ran.out.splitlines()[:4] == [
        "1 file, 2 lines → 3 events",
        "1 task, 0 of them of sub-agents",
        "1 call, 0 of unknown usage",
        "0 repeats of calls left out",
    ]
    assert ran.error_lines[0] == "1 line could not be read:"
    assert ran.error_lines[1].startswith(f"{log}:2: ")


def test_a_replay_of_one_task_says_one(capsys: pytest.CaptureFixture[str], log: Path) -> None:
    ran = run(capsys, "replay", str(log))
    assert ran.code == 0
    assert "of 1 task " in ran.out
    assert "\n3 events, 10 metered tokens, " in ran.out
    assert ran.error_lines[0] == "1 line could not be read:"


def test_of_very_many_broken_lines_the_first_are_named(
    capsys: pytest.CaptureFixture[str], log: Path
) -> None:
    log.write_text(USAGE + "broken\n" * 30)
    ran = run(capsys, "replay", str(log))
    assert ran.error_lines[0] == "30 lines could not be read, the first of them:"
    assert len(ran.error_lines) == 21
