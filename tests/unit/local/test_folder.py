import os
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from schemas.errors import InvalidFieldError
from streams.local.folder import ClusterState, DataFolder, NoDataFolderError, ProcessMark

OURSELVES = ProcessMark.of(os.getpid())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def state_of(process: ProcessMark) -> ClusterState:
    return ClusterState(
        bootstrap_servers="127.0.0.1:41234",
        redis_url=None,
        kafka=process,
        redis=None,
        starter=OURSELVES,
        started=datetime(2026, 11, 25, tzinfo=UTC),
    )


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path / "stoploss")
    made.make()
    return made


def test_a_new_folder_is_its_users_alone_and_ignored_by_git(folder: DataFolder) -> None:
    subprocess.run(["git", "init", "--quiet", folder.path.parent], check=True)
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=folder.path.parent, capture_output=True, check=True
    )
    assert mode(folder.path) == 0o700
    assert mode(folder.path / ".gitignore") == 0o600
    assert status.stdout == b""


def test_a_folder_that_others_could_read_is_closed(folder: DataFolder) -> None:
    folder.path.chmod(0o755)
    folder.make()
    assert mode(folder.path) == 0o700


def test_somebody_elses_folder_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("theirs")
    with pytest.raises(
        InvalidFieldError, match=r"--dir: .* use a new or empty folder, or one that"
    ):
        DataFolder(tmp_path).make()
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidFieldError, match=r"use a folder \(this is a file\)"):
        DataFolder(tmp_path / "file").make()


def test_a_missing_folder_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoDataFolderError) as raised:
        DataFolder(tmp_path / "my data").require()
    assert str(raised.value) == (
        f"{tmp_path}/my data: there is no data folder of stoploss; start one with "
        f"`stoploss up --dir '{tmp_path}/my data'`, "
        f"or name a running Kafka in STOPLOSS_BOOTSTRAP_SERVERS"
    )


def test_what_runs_is_found_by_others(folder: DataFolder) -> None:
    folder.write_state(state_of(OURSELVES))
    assert DataFolder(folder.path).running() == state_of(OURSELVES)
    assert mode(folder.path / "cluster.json") == 0o600


def ended_process() -> ProcessMark:
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE
    ) as process:
        return ProcessMark.of(process.pid)


@pytest.mark.parametrize(
    "process",
    [
        pytest.param(ended_process(), id="the process has ended"),
        pytest.param(
            msgspec.structs.replace(OURSELVES, created_unix_s=OURSELVES.created_unix_s - 60),
            id="another process has its pid now",
        ),
    ],
)
def test_a_state_file_left_by_a_crash_is_stale(folder: DataFolder, process: ProcessMark) -> None:
    folder.write_state(state_of(process))
    assert folder.running() is None


def test_a_kafka_whose_redis_has_died_runs_on(folder: DataFolder) -> None:
    """Else whoever only wants to read would wait for the Kafka that is there to end."""
    state = msgspec.structs.replace(state_of(OURSELVES), redis=ended_process())
    folder.write_state(state)
    assert folder.running() == state


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kafka": 1}'])
def test_a_state_file_that_cannot_be_read_is_none(folder: DataFolder, content: str) -> None:
    (folder.path / "cluster.json").write_text(content)
    assert folder.running() is None


def test_an_orderly_end_leaves_no_state(folder: DataFolder) -> None:
    folder.write_state(state_of(OURSELVES))
    folder.remove_state()
    folder.remove_state()  # twice is no error: a start may fail before it has written any
    assert folder.state() is None
