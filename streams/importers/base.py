"""What every importer promises, and the one call that runs them.

To add an agent: a module with an `Importer`, and a row in `_IMPORTERS`.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, cast

from schemas.errors import InvalidFieldError
from schemas.events import Event
from schemas.fields import NAME_LENGTH_MAX
from streams.importers.lines import LogFileError, Progress, read_lines
from streams.importers.summary import ImportSummary
from streams.importers.tasks import Options

# Modules are loaded when they are used: the names alone are asked for much more often.
_IMPORTERS = {
    "claude-code": "streams.importers.claude_code",
    "codex": "streams.importers.codex",
    "usage-jsonl": "streams.importers.usage_jsonl",
}
_PHASE_LENGTH_MAX = 64
# Files are recognised by their first readable lines; the first few may be of a kind unknown to us.
_LINES_LOOKED_AT = 200


class Importer(Protocol):
    """Turns the logs of one agent into events; good for one import."""

    expected: str
    """What its files are, for the message to somebody who named another one."""

    def __init__(self, options: Options, summary: ImportSummary, progress: Progress) -> None: ...

    def recognises(self, line: bytes) -> bool:
        """Whether a file with this line is one of the importer's; never raises."""

    def read(self, paths: Sequence[Path]) -> Iterator[Event]:
        """Yield the events of recognised files, in constant memory; count what cannot be read."""


class Import(Iterator[Event]):
    """The events of an import; `summary` is complete when they are all taken."""

    def __init__(self, events: Iterator[Event], summary: ImportSummary, bytes_total: int) -> None:
        self._events = events
        self.summary = summary
        self.bytes_total = bytes_total

    def __next__(self) -> Event:
        event = next(self._events)
        self.summary.events += 1
        return event


def importer_names() -> tuple[str, ...]:
    """Return the kinds of logs that can be imported."""
    return tuple(_IMPORTERS)


def import_events(
    kind: str,
    paths: Sequence[Path],
    *,
    phase: str | None = None,
    task_type: str | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Import:
    """Return the events of logs, in the order in which they should be folded.

    Importing the same files again gives the same events with the same ids. All files are looked at
    before the first event: a wrong one gives nothing, rather than half an import.

    Args:
        kind: one of `importer_names()`.
        paths: files, plain or gzip; of a folder all `*.jsonl` and `*.jsonl.gz` in it, at any depth.
        phase: puts all usage into this phase; inferred from the tools used where it is left out.
        task_type: stands in for the agent's name, for policies with a factor for it.
        on_progress: told how many bytes were read so far, of `Import.bytes_total`.

    Raises:
        InvalidFieldError: `kind`, `phase` or `task_type` is not allowed.
        LogFileError: a path is not there, cannot be read, or is no log of that kind.
    """
    if kind not in _IMPORTERS:
        raise InvalidFieldError("kind", kind, f"one of {', '.join(_IMPORTERS)}")
    _check_length("phase", phase, _PHASE_LENGTH_MAX)
    _check_length("task_type", task_type, NAME_LENGTH_MAX)
    summary = ImportSummary()
    make = cast("type[Importer]", importlib.import_module(_IMPORTERS[kind]).IMPORTER)
    importer = make(Options(phase, task_type), summary, Progress(on_progress))
    files = list(_recognised(importer, kind, paths, summary))
    summary.files = len(files)
    bytes_total = sum(file.stat().st_size for file in files)
    return Import(importer.read(files), summary, bytes_total)


def _check_length(field: str, value: str | None, length_max: int) -> None:
    if value is not None and not 1 <= len(value) <= length_max:
        raise InvalidFieldError(field, value, f"1 to {length_max} characters")


def _recognised(
    importer: Importer, kind: str, paths: Sequence[Path], summary: ImportSummary
) -> Iterator[Path]:
    """Yield each file once. What was found in a folder may be something else; what was named not."""
    seen: set[Path] = set()
    for path in paths:
        named = not path.is_dir()
        files = [path] if named else logs_in(path)
        if not files:
            raise LogFileError(path, "no *.jsonl or *.jsonl.gz in this folder", importer.expected)
        for file in files:
            if (real := file.resolve()) in seen:
                continue
            seen.add(real)
            if _is_log(importer, file):
                yield file
            elif named:
                raise LogFileError(file, f"this is no log of kind {kind}", importer.expected)
            else:
                summary.files_skipped += 1


def logs_in(folder: Path) -> list[Path]:
    """Return the files of a folder, at any depth, that may be logs by their names."""
    found = (file for pattern in ("*.jsonl", "*.jsonl.gz") for file in folder.rglob(pattern))
    return sorted(file for file in found if file.is_file())


def _is_log(importer: Importer, path: Path) -> bool:
    """Say yes to an empty file, and to one that ends inside its first line: a session just begun."""
    only_cut = True
    for line in read_lines(path):
        if importer.recognises(line.data):
            return True
        only_cut = only_cut and not line.ended and line.data.startswith(b"{")
        if line.number >= _LINES_LOOKED_AT:
            break
    return only_cut
