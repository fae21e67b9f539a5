"""Events on disk while Kafka is away: a queue in files, first in, first out.

A spool is a folder of one emitter, locked while that emitter lives:

    SPOOL_DIR/.gitignore
    SPOOL_DIR/00001764018000000000-4711-7f3a09c1/lock
                                                 about.json    whose it is, which topic it is for
                                                 0000000001.spool …

A segment is text, a line per event: the CRC-32 of the value in eight hex digits, a space, and the
value as it goes to Kafka, byte for byte; the Kafka key is in the value (`partitionkey`, else
`subject`). A line that a crash has cut short, or a disk has damaged, does not fit its CRC: it is
counted and passed over, and the next line is read again. A segment is deleted when Kafka has all
of it, so after a crash at most one segment is sent twice; the ledger knows its events again by
source and sequence. An orderly end leaves only what Kafka does not have.

Nothing is synced: this outlives the death of the process, not of the machine.
"""

import os
import shutil
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from schemas.refusal import UNREADABLE
from streams.client.folder_lock import FolderLock

# What a killed emitter's successor sends again at most.
SEGMENT_BYTES_MAX = 1024 * 1024
READ_BYTES = 256 * 1024
SPOOL_BYTES_MAX = 256 * 1024 * 1024
_CRC_DIGITS = 8
_PREFIX_BYTES = _CRC_DIGITS + 1


class Item(NamedTuple):
    """An event as Kafka gets it."""

    key: bytes
    value: bytes

    @property
    def size_bytes(self) -> int:
        """What it takes in the spool, and about what it takes in memory."""
        return len(self.value) + _PREFIX_BYTES + 1


class _Keys(msgspec.Struct, gc=False):
    subject: str
    partitionkey: str | None = None


class About(msgspec.Struct):
    """Whose spool it is; one for another topic is not ours to send."""

    source: str
    topic: str


_KEYS = msgspec.json.Decoder(_Keys)


def encode_line(item: Item) -> bytes:
    """Return the line of an event; its value is JSON, so it has no line feed of its own."""
    assert b"\n" not in item.value
    return b"%08x %b\n" % (zlib.crc32(item.value), item.value)


def decode_line(line: bytes) -> Item | None:
    """Return the event in a line (without its line feed), or None where the line is damaged."""
    value = line[_PREFIX_BYTES:]
    try:
        if int(line[:_CRC_DIGITS], 16) != zlib.crc32(value):
            return None
        keys = _KEYS.decode(value)
    except UNREADABLE:
        return None
    return Item((keys.partitionkey or keys.subject).encode(), value)


def prepare_spool_dir(folder: Path) -> None:
    """Make `folder` for our eyes only, and keep it out of any repository around it.

    Raises:
        OSError: it cannot be made or written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        descriptor = os.open(ignore, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write("# Budget data stays on this machine.\n*\n")


class Spool:
    """One emitter's queue on disk. For one thread."""

    def __init__(self, folder: Path, lock: FolderLock, about: About) -> None:
        self.folder = folder
        self.about = about
        self.damaged_count = 0
        self._lock = lock
        self._segments: deque[Path] = deque(sorted(folder.glob("*.spool")))
        self._sizes: dict[Path, int] = {path: path.stat().st_size for path in self._segments}
        self.count = sum(_count_lines(path) for path in self._segments)
        self._next_number = int(self._segments[-1].stem) + 1 if self._segments else 1
        self._writing: int | None = None  # descriptor of the last segment, while we append to it
        # The first events, not yet dropped, each with where its line ends in the first segment.
        self._read: deque[tuple[Item, int]] = deque()
        self._read_bytes = 0  # of the first segment, that stand in `_read` or were dropped
        self._dropped_bytes = 0  # of the first segment

    def __repr__(self) -> str:
        return f"<Spool {self.folder.name} count={self.count} size_bytes={self.size_bytes}>"

    @classmethod
    def create(cls, spool_dir: Path, name: str, about: About) -> "Spool":
        """Make a spool of this emitter's own.

        Raises:
            OSError: it cannot be written.
        """
        prepare_spool_dir(spool_dir)
        # Locked before others can see it: until then its name begins with a dot.
        hidden = spool_dir / f".{name}"
        hidden.mkdir(mode=0o700)
        lock = FolderLock.acquire(hidden)
        if lock is None:
            shutil.rmtree(hidden, ignore_errors=True)
            raise OSError(f"{hidden}: cannot be locked; use a local file system")
        descriptor = os.open(hidden / "about.json", os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(about))
        return cls(hidden.rename(spool_dir / name), lock, about)

    @classmethod
    def adopt(cls, folder: Path, topic: str) -> "Spool | None":
        """Take over the spool of an emitter that is no more; None where it lives, or isn't ours."""
        lock = FolderLock.acquire(folder)
        if lock is None:
            return None
        try:
            about = msgspec.json.decode((folder / "about.json").read_bytes(), type=About)
            if about.topic == topic:
                return cls(folder, lock, about)
        except (OSError, *UNREADABLE):
            pass  # not a spool, or an unreadable one: left for a person to look at
        lock.release()
        return None

    @property
    def size_bytes(self) -> int:
        """What it takes on disk."""
        return sum(self._sizes.values())

    def append(self, items: Sequence[Item], room_bytes: int) -> int:
        """Write as many of `items`, from the first, as fit into `room_bytes`; return how many.

        Raises:
            OSError: the disk does not take them; none of the last segment's was written then.
        """
        written = 0
        while written < len(items):
            lines: list[bytes] = []
            size_bytes = 0
            room_of_segment = SEGMENT_BYTES_MAX - self._last_size()
            for item in items[written:]:
                size_bytes += item.size_bytes
                if size_bytes > room_bytes or (lines and size_bytes > room_of_segment):
                    break
                lines.append(encode_line(item))
            if not lines:
                break
            self._write(b"".join(lines))
            self.count += len(lines)
            written += len(lines)
            room_bytes -= sum(map(len, lines))
        return written

    def peek(self, count_max: int, bytes_max: int) -> list[Item]:
        """Return the first events, at least one if there is one, without removing them.

        Raises:
            OSError: the disk does not give them.
        """
        while len(self._read) < count_max and self._read_on():
            pass
        self._remove_read()  # nothing but damaged lines may have been in it
        taken: list[Item] = []
        for item, _ in self._read:
            bytes_max -= item.size_bytes
            if len(taken) == count_max or (taken and bytes_max < 0):
                break
            taken.append(item)
        return taken

    def drop(self, count: int) -> None:
        """Remove the first `count` events: Kafka has them."""
        while count:
            while not self._read and self._read_on():
                pass  # written, and acknowledged, before they were read back
            here = min(count, len(self._read))
            for _ in range(here):
                self._dropped_bytes = self._read.popleft()[1]
            self.count -= here
            count -= here
            self._remove_read()
            if not here:
                return

    def close(self) -> None:
        """Give the spool up; what is in it stays for the next emitter, an empty one disappears.

        Raises:
            OSError: it could not be removed, or cut to what Kafka does not have: it is given up all
                the same.
        """
        self._stop_writing()
        try:
            if not self._segments:
                shutil.rmtree(self.folder)
            elif self._dropped_bytes:
                self._cut_first()
        finally:
            self._lock.release()

    def abandon(self) -> None:
        """In a forked child: close the descriptors; the spool is the parent's."""
        self._stop_writing()
        self._lock.release()

    def _first_size(self) -> int:
        return self._sizes[self._segments[0]]

    def _last_size(self) -> int:
        if self._writing is None:
            return SEGMENT_BYTES_MAX  # an adopted or finished segment takes no more
        return self._sizes[self._segments[-1]]

    def _write(self, lines: bytes) -> None:
        if self._last_size() + len(lines) > SEGMENT_BYTES_MAX or self._writing is None:
            self._start_segment()
        assert self._writing is not None
        path = self._segments[-1]
        written = 0
        try:
            while written < len(lines):  # a disk that is nearly full takes a part first
                written += os.write(self._writing, lines[written:])
        except OSError:
            os.ftruncate(self._writing, self._sizes[path])  # no half a line before the next one
            raise
        self._sizes[path] += len(lines)

    def _start_segment(self) -> None:
        self._stop_writing()
        path = self.folder / f"{self._next_number:010d}.spool"
        self._writing = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o600)
        self._next_number += 1
        self._segments.append(path)
        self._sizes[path] = 0

    def _stop_writing(self) -> None:
        if self._writing is not None:
            os.close(self._writing)
            self._writing = None

    def _read_on(self) -> bool:
        """Read some more of the first segment that has more; whether there was any."""
        self._remove_read()
        if not self._segments or self._read_bytes >= self._first_size():
            return False  # one segment at a time: it is deleted as a whole
        with self._segments[0].open("rb") as file:
            file.seek(self._read_bytes)
            chunk = file.read(min(READ_BYTES, self._first_size() - self._read_bytes))
            if not chunk.endswith(b"\n"):
                chunk += file.readline()
        end_bytes = self._read_bytes
        self._read_bytes += len(chunk)
        *lines, torn = chunk.split(b"\n")
        for line in lines:
            end_bytes += len(line) + 1
            item = decode_line(line)
            if item is None:
                self.damaged_count += 1
                self.count -= 1
            else:
                self._read.append((item, end_bytes))
        self.damaged_count += bool(torn)  # never counted in `count`: it has no line feed
        return True

    def _remove_read(self) -> None:
        """Delete the first segments, as far as all of them was read and dropped."""
        while not self._read and self._segments and self._read_bytes >= self._first_size():
            path = self._segments.popleft()
            if not self._segments:
                self._stop_writing()
            path.unlink(missing_ok=True)
            del self._sizes[path]
            self._read_bytes = self._dropped_bytes = 0

    def _cut_first(self) -> None:
        """Leave in the first segment only what was not dropped: an orderly end repeats nothing."""
        path = self._segments[0]
        rest = path.with_suffix(".rest")
        with path.open("rb") as source:
            source.seek(self._dropped_bytes)
            descriptor = os.open(rest, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as target:
                shutil.copyfileobj(source, target)
        rest.replace(path)


def left_over(spool_dir: Path, topic: str) -> Iterator[Spool]:
    """Take over what emitters that are no more have left, the oldest first."""
    for folder in sorted(path for path in spool_dir.glob("[!.]*") if path.is_dir()):
        if spool := Spool.adopt(folder, topic):
            yield spool


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1024 * 1024), b""))
