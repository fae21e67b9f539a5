"""Files of events and of agents, each told by its content."""

import gzip
import shutil
from pathlib import Path

import pytest

from schemas.encode import encode_event
from schemas.errors import InvalidFieldError
from streams.importers.base import import_events
from streams.importers.demo import DEMO_KIND, demo_path
from streams.importers.lines import LogFileError
from streams.replay.logs import read_events
from streams.replay.offline import replay_log
from tests.unit.importers.logs import CLAUDE_SAMPLE, CLAUDE_SUBAGENT_SAMPLE, CODEX_SAMPLE


@pytest.fixture
def events_file(tmp_path: Path) -> Path:
    """The demo's sessions as our own events, packed."""
    path = tmp_path / "events.jsonl.gz"
    with gzip.open(path, "wb") as file:
        for event in import_events(DEMO_KIND, [demo_path()]):
            file.write(encode_event(event) + b"\n")
    return path


def test_events_that_were_written_to_a_file_are_replayed_as_the_log_itself(
    events_file: Path,
) -> None:
    assert replay_log(read_events([events_file])) == replay_log(read_events([demo_path()]))


@pytest.mark.parametrize(
    ("paths", "tasks"),
    [
        pytest.param([CODEX_SAMPLE], 1, id="codex"),
        pytest.param([CLAUDE_SAMPLE, CLAUDE_SUBAGENT_SAMPLE], 2, id="claude-code with a sub-agent"),
        pytest.param([demo_path()], 52, id="usage"),
    ],
)
def test_a_log_is_recognised_by_its_content(paths: list[Path], tasks: int) -> None:
    result = replay_log(read_events(paths))
    assert result.summary.tasks >= tasks
    assert result.summary.model_calls > 0


def test_files_of_different_kinds_are_read_together(events_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    shutil.copy(CODEX_SAMPLE, folder / "rollout.jsonl")
    shutil.copy(events_file, folder / "events.jsonl.gz")
    progress: list[int] = []
    log = read_events([folder], on_progress=progress.append)
    both = replay_log(log)
    alone = [replay_log(read_events([path])) for path in (events_file, CODEX_SAMPLE)]
    assert both.summary.events == sum(one.summary.events for one in alone) == log.summary.events
    assert both.summary.tasks == sum(one.summary.tasks for one in alone)
    assert progress == sorted(progress)
    assert progress[-1] == log.bytes_total


def test_a_line_without_an_event_is_counted_and_named_and_the_rest_is_read(
    events_file: Path, tmp_path: Path
) -> None:
    lines = gzip.decompress(events_file.read_bytes()).splitlines(keepends=True)
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_bytes(
        b"".join([b"{no json\n", *lines, b'{"specversion":"1.0"}\n', lines[0][:30]])
    )
    summary = replay_log(read_events([damaged])).summary
    assert summary.events == len(lines)
    assert summary.unreadable == 3
    named = [(line.file, line.line) for line in summary.unreadable_named]
    assert named == [(str(damaged), number) for number in (1, len(lines) + 2, len(lines) + 3)]
    assert summary.unreadable_named[0].reason.startswith("not_json: value: '{no json'")


def test_unreadable_lines_of_an_agents_log_are_named_too(tmp_path: Path) -> None:
    damaged = tmp_path / "rollout.jsonl"
    damaged.write_bytes(CODEX_SAMPLE.read_bytes() + b"{cut")
    summary = replay_log(read_events([damaged])).summary
    assert [line.file for line in summary.unreadable_named] == [str(damaged)]


def test_a_phase_that_is_given_takes_all_usage_of_a_log() -> None:
    result = replay_log(read_events([demo_path()], phase="PLAN", source=DEMO_KIND))
    assert result.summary.tasks == 52


def test_an_empty_file_holds_no_events(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    assert replay_log(read_events([tmp_path])).summary.events == 0


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        pytest.param("notes.jsonl", b'{"a": 1}\n' * 300, "no log that is known", id="another log"),
        pytest.param("text.txt", b"hello\nthere\n", "no log that is known", id="no JSON"),
        pytest.param("absent.jsonl", None, "No such file", id="not there"),
    ],
)
def test_a_file_of_another_kind_is_refused_before_anything_is_read(
    tmp_path: Path, events_file: Path, name: str, content: bytes | None, problem: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LogFileError, match=problem):
        read_events([events_file, path])


def test_a_folder_without_logs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogFileError, match=r"no \*\.jsonl"):
        read_events([tmp_path])


def test_a_source_that_is_unknown_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InvalidFieldError, match="one of events, claude-code, codex"):
        read_events([demo_path()], source="gpt")
