"""The entries that a batch changes in a partition, all of them or none, on a topic without transactions.

What belongs together may stand in several entries: that something was counted, and the count. So before
the entries themselves a batch announces them, in records of its own: whoever restores takes all of them
from there, also where the worker died before it had written each. What was announced and is not written
yet is written with the next batch, since the next announcement takes the place of the last one.

Entries stay records of their own beside it, or compaction could not do its work. Pure.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec import Struct

# No entry has such a key: theirs are texts that a stage has chosen.
KEY_PREFIX = b"\0announced/"
PART_BYTES = 1024 * 1024  # an entry that is larger has a part for itself
Entries = Mapping[bytes, bytes | None]


class Part(Struct, frozen=True, array_like=True):
    """A part of an announcement; `batch` tells it from the one before, None deletes an entry."""

    batch: int
    index: int
    count: int
    entries: dict[bytes, bytes | None]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Part)


def announcement(batch: int, changed: Entries) -> list[tuple[bytes, bytes]]:
    """Return key and value of the records that come before the entries.

    There are some for a single entry as well: else an older announcement would stay the last one, and
    bring back what has been deleted since.

    Args:
        batch: another number than that of the last announcement in the same partition.
        changed: what becomes of the entries.
    """
    parts = list(_parts(changed))
    return [
        (KEY_PREFIX + b"%d" % index, _ENCODER.encode(Part(batch, index, len(parts), part)))
        for index, part in enumerate(parts)
    ]


def _parts(changed: Entries) -> Iterator[dict[bytes, bytes | None]]:
    part: dict[bytes, bytes | None] = {}
    size_bytes = 0
    for key, value in changed.items():
        added_bytes = len(key) + len(value or b"")
        if part and size_bytes + added_bytes > PART_BYTES:
            yield part
            part, size_bytes = {}, 0
        part[key] = value
        size_bytes += added_bytes
    yield part


class Restored:
    """The entries of a partition, as its changelog says; `owed`: announced, and not written yet."""

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.owed: dict[bytes, bytes | None] = {}
        self._parts: list[Part] = []

    def __repr__(self) -> str:
        return f"<Restored {len(self.entries)} entries, {len(self.owed)} owed>"

    def read(self, key: bytes, value: bytes | None) -> None:
        """Take over a record of the changelog, in the order in which they stand there."""
        if not key.startswith(KEY_PREFIX):
            self.write(key, value)
        elif value is not None:
            self._hear(_DECODER.decode(value))

    def write(self, key: bytes, value: bytes | None) -> None:
        """Take over what became of an entry."""
        self.owed.pop(key, None)
        self._set(key, value)

    def _hear(self, part: Part) -> None:
        if self._parts and self._parts[-1].batch != part.batch:
            self._parts.clear()  # of a batch whose other parts compaction has removed, or that died
        self._parts.append(part)
        if [one.index for one in self._parts] != list(range(part.count)):
            return
        for one in self._parts:
            self.owed.update(one.entries)
            for key, value in one.entries.items():
                self._set(key, value)
        self._parts.clear()

    def _set(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.entries.pop(key, None)
        else:
            self.entries[key] = value


def with_owed(owed: Entries, changed: Iterable[tuple[bytes, bytes | None]]) -> Entries:
    """Return what has to be written now, in the order of the keys."""
    return dict(sorted({**owed, **dict(changed)}.items()))
