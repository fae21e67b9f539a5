"""Files to replay: our events as JSON lines, or the logs of an agent; each told by its content."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import msgspec
from msgspec import Struct

from schemas.decode import Refusal, decode_event
from schemas.errors import InvalidFieldError
from schemas.events import Event
from streams.importers.base import import_events, importer_names, logs_in
from streams.importers.lines import BAD_LINE, LogFileError, Progress, read_lines
from streams.importers.summary import UNREADABLE_NAMED_MAX, ImportSummary

EVENTS = "events"  # the kind of a file of our own events
EXPECTED = f"events as JSON lines, or a log of {', '.join(importer_names())}"
# A file is recognised by its first readable lines, as an importer does it.
LINES_LOOKED_AT = 200


class LogEvents(Iterator[Event]):
    """The events of files in the order given; `summary` is complete when they are all taken."""

    def __init__(self, events: Iterator[Event], summary: ImportSummary, bytes_total: int) -> None:
        self._events = events
        self.summary = summary
        self.bytes_total = bytes_total

    def __next__(self) -> Event:
        return next(self._events)


def source_names() -> tuple[str, ...]:
    """Return what a file can be said to be."""
    return (EVENTS, *importer_names())


def read_events(
    paths: Sequence[Path],
    *,
    source: str | None = None,
    phase: str | None = None,
    task_type: str | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> LogEvents:
    """Return the events of files, plain or gzip; a line without one is counted, named and skipped.

    All files are looked at before the first event.

    Args:
        paths: files, or folders of `*.jsonl` and `*.jsonl.gz`.
        source: one of `source_names()`; each file is recognised by its content where left out.
        phase: for logs: puts all usage into this phase.
        task_type: for logs: stands in for the agent's name.
        on_progress: told how many bytes were read so far, of `LogEvents.bytes_total`.

    Raises:
        InvalidFieldError: `source`, `phase` or `task_type` is not allowed.
        LogFileError: a path is not there, cannot be read, or is nothing that we know.
    """
    if source is not None and source not in source_names():
        raise InvalidFieldError("source", source, f"one of {', '.join(source_names())}")
    files = list(dict.fromkeys(file for path in paths for file in _files(path)))
    kinds = [(source or _kind(file), file) for file in files]
    summary = ImportSummary(files=len(files))
    total = sum(file.stat().st_size for file in files)
    done = _Done(on_progress)
    options = {"phase": phase, "task_type": task_type}
    groups = [
        _Group(kind, [file for _, file in group])
        for kind, group in groupby(kinds, key=lambda pair: pair[0])
    ]
    return LogEvents(_events(groups, options, summary, done), summary, total)


class _Group(Struct, frozen=True):
    """Neighbours of one kind: an importer reads sessions and their sub-agents together."""

    kind: str
    files: list[Path]


class _Done:
    """Adds up the bytes of groups, each of which counts from 0."""

    def __init__(self, report: Callable[[int], None] | None) -> None:
        self._report = report
        self._before = self._now = 0

    def __call__(self, done: int) -> None:
        self._now = done
        if self._report is not None:
            self._report(self._before + done)

    def next_group(self) -> None:
        self._before, self._now = self._before + self._now, 0


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if not (files := logs_in(path)):
        raise LogFileError(path, "no *.jsonl or *.jsonl.gz in this folder", EXPECTED)
    return files


def _kind(file: Path) -> str:
    """Return what a file is; an empty one is as good as no events."""
    looked_at = 0
    for line in read_lines(file):
        looked_at += 1
        if _is_ours(line.data):
            return EVENTS
        if looked_at >= LINES_LOOKED_AT:
            break
    if not looked_at:
        return EVENTS
    for kind in importer_names():
        try:
            import_events(kind, [file])
        except LogFileError:
            continue
        return kind
    raise LogFileError(file, "this is no log that is known here", EXPECTED)


class _Ours(Struct):
    specversion: str
    type: str


_OURS = msgspec.json.Decoder(_Ours)


def _is_ours(line: bytes) -> bool:
    try:
        return _OURS.decode(line).type.startswith("stoploss.")
    except BAD_LINE:
        return False


def _events(
    groups: Sequence[_Group],
    options: dict[str, str | None],
    summary: ImportSummary,
    done: _Done,
) -> Iterator[Event]:
    for group in groups:
        if group.kind == EVENTS:
            progress = Progress(done)
            for file in group.files:
                yield from _own_events(file, summary, progress)
        else:
            log = import_events(group.kind, group.files, on_progress=done, **options)
            yield from log
            _add(summary, log.summary)
        done.next_group()


def _own_events(file: Path, summary: ImportSummary, progress: Progress) -> Iterator[Event]:
    for line in read_lines(file, summary, progress):
        event = decode_event(line.data.rstrip(b"\r\n"))
        if isinstance(event, Refusal):
            detail = event.detail
            reason = f"{event.reason}: {detail.field}: {detail.value!r}; use {detail.allowed}"
            summary.count_unreadable(file, line.number, reason)
        else:
            summary.events += 1
            yield event


def _add(summary: ImportSummary, other: ImportSummary) -> None:
    summary.lines += other.lines
    summary.events += other.events
    summary.unreadable += other.unreadable
    left = UNREADABLE_NAMED_MAX - len(summary.unreadable_named)
    summary.unreadable_named += other.unreadable_named[:left]
