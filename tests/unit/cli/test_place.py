"""Which data folder is meant: the one that runs, else the one that was started last."""

import os
from pathlib import Path

import pytest

from streams.cli.place import kafka_is_named, local_settings, run_folder
from streams.local.folder import DataFolder


def make(folder: Path, *, started_s: int | None = None) -> Path:
    data = DataFolder(folder)
    data.make()
    if started_s is not None:
        data.kafka.mkdir()
        properties = data.kafka / "server.properties"
        properties.touch()
        os.utime(properties, (started_s, started_s))
    return folder


@pytest.mark.parametrize(
    ("own_s", "demos_s", "chosen"),
    [
        pytest.param(None, {}, "", id="nothing ran: the folder itself, which names the error"),
        pytest.param(5, {}, "", id="only the folder itself"),
        pytest.param(None, {"demo-1": 5}, "demo-1", id="only a demo"),
        pytest.param(5, {"demo-1": 4}, "", id="the folder after the demo"),
        pytest.param(5, {"demo-1": 4, "demo-2": 6}, "demo-2", id="a demo after the folder"),
        pytest.param(None, {"demo-1": 6, "demo-2": None}, "demo-1", id="one that never started"),
    ],
)
def test_the_folder_that_was_started_last_is_meant(
    own_s: int | None, demos_s: dict[str, int | None], chosen: str, tmp_path: Path
) -> None:
    folder = make(tmp_path / "data", started_s=own_s)
    for name, started_s in demos_s.items():
        make(folder / name, started_s=started_s)
    assert run_folder(folder) == folder / chosen


def test_a_file_of_settings_may_name_kafka(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STOPLOSS_BOOTSTRAP_SERVERS", raising=False)
    assert not kafka_is_named()
    Path("stoploss.toml").write_text('bootstrap_servers = "127.0.0.1:9092"\n')
    assert kafka_is_named()


def test_a_local_kafka_has_few_partitions_and_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("BOOTSTRAP_SERVERS", "TOPIC_PREFIX", "PARTITIONS"):
        monkeypatch.delenv(f"STOPLOSS_{name}", raising=False)
    Path("stoploss.toml").write_text(
        'security_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "PLAIN"\n'
        'sasl_username = "ann"\nsasl_password = "secret"\n'
    )
    settings = local_settings("127.0.0.1:4242")
    assert settings.bootstrap_servers == "127.0.0.1:4242"
    assert (settings.security_protocol, settings.partitions, settings.replication) == (
        "PLAINTEXT",
        4,
        1,
    )
    monkeypatch.setenv("STOPLOSS_PARTITIONS", "7")
    assert local_settings("127.0.0.1:4242").partitions == 7
