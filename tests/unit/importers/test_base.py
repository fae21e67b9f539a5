"""What all importers do alike: broken lines, wrong files, options, memory."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import InvalidFieldError
from streams.importers.base import import_events, importer_names
from streams.importers.lines import LINE_BYTES_MAX, LogFileError, read_lines
from streams.importers.summary import UNREADABLE_NAMED_MAX, ImportSummary, Unreadable
from tests.unit.importers.logs import (
    CLAUDE_SAMPLE,
    CODEX_SAMPLE,
    claude_line,
    codex_meta,
    codex_usage,
    imported,
    starts,
    tokens_by_task,
    usage_row,
    usages,
    write,
)

GOOD: dict[str, list[dict[str, Any]]] = {
    "codex": [codex_meta(), codex_usage(100, 100), codex_usage(300, 200)],
    "claude-code": [claude_line("m1", 1), claude_line("m2", 2), claude_line("m3", 3)],
    "usage-jsonl": [usage_row(), usage_row(), usage_row()],
}
KINDS = [pytest.param(kind, id=kind) for kind in GOOD]


def test_the_kinds_are_those_that_are_tested_here() -> None:
    assert set(importer_names()) == set(GOOD)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"{", id="broken"),
        pytest.param(b"\x00" * 512, id="zeros, as after a crash"),
        pytest.param(b'{"type": "event_msg", "source": \xff\xfe', id="not UTF-8"),
        pytest.param(b"[1, 2, 3]", id="no object"),
        pytest.param(b"Traceback (most recent call last):", id="something printed in between"),
        pytest.param(b"[" * 100_000, id="nested without end"),
        pytest.param(b'{"type":"user","payload":' + b"[" * 100_000, id="nested in a field"),
    ],
)
def test_a_bad_line_is_named_and_costs_nothing_else(tmp_path: Path, kind: str, bad: bytes) -> None:
    first, *others = GOOD[kind]
    path = write(tmp_path / "log.jsonl", [first, bad, *others])
    events, summary = imported(kind, path)
    good, _ = imported(kind, write(tmp_path / "good.jsonl", GOOD[kind]))
    assert tokens_by_task(events) == tokens_by_task(good)
    assert [event.data for event in events] == [event.data for event in good]
    assert summary.unreadable == 1
    assert [(bad.file, bad.line) for bad in summary.unreadable_named] == [(str(path), 2)]


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        pytest.param("usage-jsonl", usage_row(input_tokens=-1), id="negative"),
        pytest.param("usage-jsonl", usage_row(input_tokens="12"), id="text for a number"),
        pytest.param("usage-jsonl", usage_row(input_tokens=10**20), id="beyond all models"),
        pytest.param("usage-jsonl", usage_row(cost_usd=-0.5), id="negative dollars"),
        pytest.param("usage-jsonl", usage_row(ts="yesterday"), id="no time"),
        pytest.param("codex", codex_usage(-100, -100), id="negative in codex"),
        pytest.param("claude-code", claude_line("m9", -1), id="negative in claude-code"),
    ],
)
def test_a_bad_number_makes_its_line_unreadable(
    tmp_path: Path, kind: str, bad: dict[str, Any]
) -> None:
    _, summary = imported(kind, write(tmp_path / "log.jsonl", [*GOOD[kind], bad]))
    assert summary.unreadable == 1
    assert "not as expected" in summary.unreadable_named[0].reason
    assert summary.calls == imported(kind, write(tmp_path / "good.jsonl", GOOD[kind]))[1].calls


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_last_line_is_named(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "log.jsonl", GOOD[kind], cut=20)
    _, summary = imported(kind, path)
    assert summary.unreadable_named == [Unreadable(str(path), 3, "the file ends inside it")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_last_line_without_a_newline_is_a_line(tmp_path: Path, kind: str) -> None:
    whole = imported(kind, write(tmp_path / "a.jsonl", GOOD[kind]))[0]
    assert imported(kind, write(tmp_path / "b.jsonl", GOOD[kind], cut=1))[0] == whole


@pytest.mark.parametrize("kind", KINDS)
def test_gzip_is_known_by_its_content(tmp_path: Path, kind: str) -> None:
    plain = write(tmp_path / "a.jsonl", GOOD[kind])
    packed = tmp_path / "b.jsonl"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert imported(kind, packed)[0] == imported(kind, plain)[0]


def test_a_gzip_that_breaks_off_gives_what_comes_before(tmp_path: Path) -> None:
    packed = tmp_path / "log.jsonl.gz"
    rows = "".join(json.dumps(usage_row(f"S{index}")) + "\n" for index in range(20_000))
    packed.write_bytes(gzip.compress(rows.encode())[:-1_000])
    _, summary = imported("usage-jsonl", packed)
    assert summary.calls > 0
    assert summary.unreadable == 1
    assert "breaks off" in summary.unreadable_named[0].reason


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "content", [pytest.param(b"", id="empty"), pytest.param(b'{"type":"sess', id="just begun")]
)
def test_a_file_without_a_whole_line_gives_nothing(
    tmp_path: Path, kind: str, content: bytes
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    assert imported(kind, path)[0] == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", [*KINDS, pytest.param("png", id="a picture")])
def test_a_file_of_another_kind_is_refused_before_the_first_event(
    tmp_path: Path, kind: str, other: str
) -> None:
    if kind == other:
        return
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    if other in GOOD:
        write(wrong, GOOD[other])
    right = write(tmp_path / "right.jsonl", GOOD[kind])
    with pytest.raises(LogFileError) as refused:
        import_events(kind, [right, wrong])
    assert str(refused.value).startswith(f"FILE: '{wrong}' is not allowed; use ")
    assert str(refused.value).endswith(f" (this is no log of kind {kind})")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogFileError, match=r"gone\.jsonl' is not allowed.*\(No such file"):
        import_events("codex", [tmp_path / "gone.jsonl"])


def test_a_folder_stands_for_the_logs_in_it(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    write(tmp_path / "deep" / "er" / "a.jsonl", GOOD["codex"])
    write(tmp_path / "deep" / "other.jsonl", GOOD["usage-jsonl"])
    (tmp_path / "notes.txt").write_text("no log")
    events, summary = imported("codex", tmp_path)
    assert len(usages(events)) == 2
    assert (summary.files, summary.files_skipped) == (1, 1)


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD["usage-jsonl"])
    assert imported("usage-jsonl", path, path, tmp_path)[1].calls == 3


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        pytest.param("gemini", {}, "kind: 'gemini' is not allowed; use one of", id="kind"),
        pytest.param("codex", {"phase": ""}, "phase: '' is not allowed", id="empty phase"),
        pytest.param("codex", {"task_type": "x" * 201}, "1 to 200 characters", id="long type"),
    ],
)
def test_an_option_that_is_not_allowed_is_named(
    kind: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidFieldError, match=message):
        imported(kind, CODEX_SAMPLE, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_one_phase_and_one_task_type_can_be_chosen_for_all(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "log.jsonl", GOOD[kind])
    events, _ = imported(kind, path, phase="REVIEW", task_type="refactoring")
    assert {event.data.phase for event in usages(events)} == {"REVIEW"}
    assert starts(events)[0].data.task_type == "refactoring"
    assert starts(events)[0].data.labels == {"phases": "given"}


def test_progress_is_told_up_to_the_size_of_all_files(tmp_path: Path) -> None:
    told: list[int] = []
    files = [CODEX_SAMPLE, write(tmp_path / "more.jsonl", GOOD["codex"])]
    events = import_events("codex", files, on_progress=told.append)
    for _ in events:
        pass
    assert told == sorted(told)
    assert told[-1] == events.bytes_total == sum(file.stat().st_size for file in files)


@pytest.mark.parametrize(
    "time",
    [
        pytest.param("0001-01-01T00:00:00+14:00", id="year 1, east"),
        pytest.param("9999-12-31T23:59:59-12:00", id="year 9999, west"),
        pytest.param("2026-01-05T11:00:00+02:00", id="another zone"),
    ],
)
def test_an_odd_time_stops_nothing(tmp_path: Path, time: str) -> None:
    lines = [usage_row(), usage_row(ts=time), usage_row()]
    events, _ = imported("usage-jsonl", write(tmp_path / "log.jsonl", lines))
    assert [f"{event.time:%Y-%m-%d %H:%M %Z}" for event in usages(events)] == [
        "2026-01-05 09:00 UTC"
    ] * 3


def test_only_the_first_unreadable_lines_are_named(tmp_path: Path) -> None:
    bad = [b"broken"] * (UNREADABLE_NAMED_MAX + 5)
    _, summary = imported("codex", write(tmp_path / "log.jsonl", [*GOOD["codex"], *bad]))
    assert summary.unreadable == UNREADABLE_NAMED_MAX + 5
    assert len(summary.unreadable_named) == UNREADABLE_NAMED_MAX


def test_a_line_longer_than_the_bound_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"one\n" + b"x" * 5_000_000 + b"\ntwo\n\nthree")
    summary = ImportSummary()
    lines = list(read_lines(path, summary, line_bytes_max=1_000))
    assert [(line.number, line.data) for line in lines] == [
        (1, b"one\n"),
        (3, b"two\n"),
        (5, b"three"),
    ]
    assert summary.unreadable_named == [Unreadable(str(path), 2, "longer than 1000 bytes")]


# The peak of this program alone: `ru_maxrss` would keep that of pytest, from before exec.
MEASURE = """
import re, resource, sys
from pathlib import Path
from streams.importers.base import import_events
events = import_events(sys.argv[1], [Path(name) for name in sys.argv[2:]])
count = sum(1 for _ in events)
status = Path("/proc/self/status")
if status.exists():
    peak_kb = int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1])
else:
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(count, peak_kb // 1024)
"""


@pytest.mark.parametrize(
    ("kind", "sample"),
    [
        pytest.param("codex", CODEX_SAMPLE, id="codex"),
        pytest.param("claude-code", CLAUDE_SAMPLE, id="claude-code"),
    ],
)
def test_memory_does_not_grow_with_the_log(tmp_path: Path, kind: str, sample: Path) -> None:
    """60 MB of real lines, and one line above the bound, in less than 200 MB."""
    log = tmp_path / "large.jsonl"
    text = sample.read_bytes()
    with log.open("wb") as out:
        for _ in range(60_000_000 // len(text)):
            out.write(text)
        out.write(b'{"type":"user","message":"' + b"x" * (LINE_BYTES_MAX + 1) + b'"}\n')
    told = subprocess.run(
        [sys.executable, "-c", MEASURE, kind, str(log)], check=True, capture_output=True, text=True
    ).stdout.split()
    assert int(told[0]) > 10
    assert int(told[1]) < 200
