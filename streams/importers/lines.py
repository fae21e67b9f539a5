"""Lines of a log of any size, plain or gzip, in constant memory.

A line is read whole only up to a bound. What cannot be read is named by file and line number in the
summary and skipped: a log of last month is worth importing although one line of it is broken.
"""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import msgspec

from schemas.errors import InvalidFileError
from schemas.refusal import UNREADABLE
from streams.importers.summary import ImportSummary

# Some agents write images and whole files as one line; such a line holds no usage. A bound of
# 64 MiB would, with the copy that joining its pieces makes, come close to 200 MB of memory.
LINE_BYTES_MAX = 32 * 1024 * 1024
_SKIP_BYTES = 1024 * 1024
_BUFFER_BYTES = 256 * 1024
_PROGRESS_BYTES = 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# What a decoder raises on a line that it cannot read, however broken it is.
BAD_LINE = UNREADABLE

OnProgress = Callable[[int], None]


class LogFileError(InvalidFileError):
    """A file that was named cannot be imported: it is not there, or not what it was said to be."""

    def __init__(self, path: Path, problem: str, expected: str) -> None:
        super().__init__("FILE", path, expected, problem)


class Line(NamedTuple):
    """One line that is not blank; `number` counts from 1, blank and unreadable lines included."""

    number: int
    data: bytes
    ended: bool  # by a newline; the last line of a log that was cut, or is being written, is not


class Progress:
    """How many bytes of all files were read, as they lie on the disk, so gzip counts compressed."""

    def __init__(self, report: OnProgress | None) -> None:
        self._report = report
        self._done = self._told = 0

    def at(self, position: int) -> None:
        """Tell that the open file was read up to `position`."""
        if self._report is not None and self._done + position - self._told >= _PROGRESS_BYTES:
            self._told = self._done + position
            self._report(self._told)

    def finished(self, size: int) -> None:
        """Tell that a file of `size` bytes was read to its end."""
        self._done += size
        if self._report is not None and self._done > self._told:
            self._told = self._done
            self._report(self._told)


def read_lines(
    path: Path,
    summary: ImportSummary | None = None,
    progress: Progress | None = None,
    *,
    line_bytes_max: int = LINE_BYTES_MAX,
) -> Iterator[Line]:
    """Yield the lines of `path`; without a `summary` unreadable ones are passed over in silence.

    Raises:
        LogFileError: the file cannot be opened.
    """
    with _opened(path) as raw:
        stream = _unpacked(raw)
        number = 0
        while True:
            number += 1
            try:
                data = stream.readline(line_bytes_max + 1)
                long = len(data) > line_bytes_max and not data.endswith(b"\n")
                if long:
                    _skip_line(stream)
            except (OSError, EOFError, zlib.error) as error:
                if summary is not None:
                    summary.count_unreadable(path, number, f"the file breaks off ({error})")
                break
            if progress is not None:
                progress.at(raw.tell())
            if not data:
                break
            if number == 1:
                data = data.removeprefix(_BYTE_ORDER_MARK)
            if summary is not None:
                summary.lines += 1
                if long:
                    reason = f"longer than {line_bytes_max} bytes"
                    summary.count_unreadable(path, number, reason)
            if not long and not data.isspace():
                yield Line(number, data, data.endswith(b"\n"))
        if progress is not None:
            progress.finished(raw.seek(0, io.SEEK_END))


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=_BUFFER_BYTES)
    except OSError as error:
        raise LogFileError(path, error.strerror or str(error), "a file that can be read") from error


def _unpacked(raw: BinaryIO) -> BinaryIO:
    """Gzip is known by its first bytes: names lie more often."""
    packed = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    raw.seek(0)
    if not packed:
        return raw
    unpacked = gzip.GzipFile(fileobj=raw, mode="rb")
    return cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", unpacked), _BUFFER_BYTES))


def _skip_line(stream: BinaryIO) -> None:
    piece = stream.readline(_SKIP_BYTES)
    while piece and not piece.endswith(b"\n"):
        piece = stream.readline(_SKIP_BYTES)


def why(error: Exception, *, ended: bool) -> str:
    """Return the reason why a line is unreadable, without anything of its content.

    Args:
        ended: by a newline, as `Line.ended`.
    """
    if not ended:
        return "the file ends inside it"
    if isinstance(error, msgspec.ValidationError):
        return f"a field is not as expected ({error})"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"not JSON ({error})"
