"""What `tasks` holds of a partition: where its ledger stands, and the last record of each key."""

import hashlib
from collections.abc import Callable

import msgspec
from msgspec import Struct

from schemas.refusal import UNREADABLE
from schemas.state import PartitionStateData
from streams.budget.encode import Encoded
from streams.verify.difference import first_difference, shown
from streams.verify.reading import OutputReader
from streams.verify.result import Difference, Problem

DIGEST_BYTES = 16
POLICY_KEY = b"policy/"


class Stored(Struct, frozen=True, gc=False):
    """The last record of a key: where it stands, and what it says, as a digest.

    Whole states would take as much memory again as the fold; one that differs is read again.
    """

    offset: int
    digest: bytes


class _PartitionRecord(Struct):
    data: PartitionStateData


_PARTITION = msgspec.json.Decoder(_PartitionRecord)


class StoredState:
    """The last records of one partition, as of the last whole batch.

    A batch ends with the partition's own record, and is visible whole or never; so what stands
    after the last of these was not written by a ledger, and counts as well: it will be found out.

    Args:
        judged_part: leaves out of a record what is not judged.
    """

    def __init__(
        self,
        reader: OutputReader,
        partition: int,
        judged_part: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self._reader, self._partition, self._judged_part = reader, partition, judged_part
        self._own_key = b"partition/%d" % partition
        self.last: dict[bytes, Stored] = {}
        self.policies: dict[str, bytes] = {}  # every policy that was stored, by its hash
        self.own_record = b""  # the partition's
        self.next_offset = 0
        self._later_offset = 0
        self.compared = 0

    def __repr__(self) -> str:
        return f"<StoredState {self._partition}: {len(self.last)} keys to {self.next_offset}>"

    async def read(self) -> None:
        """Read what is committed now."""
        batch: dict[bytes, Stored | None] = {}
        async for record in self._reader.until_written():
            key = record.key or b""
            if record.value is None:
                batch[key] = None
                continue
            batch[key] = Stored(record.offset, _digest(self._judged_part(record.value)))
            if key.startswith(POLICY_KEY):
                self.policies[key.removeprefix(POLICY_KEY).decode(errors="replace")] = record.value
            if key == self._own_key:
                self._apply(batch)
                batch = {}
                self.own_record = record.value
                self.next_offset = _next_offset(record.value, self.next_offset)
        self._apply(batch)

    async def later_offset(self) -> int:
        """Return the offset to which the ledger has come by now."""
        later = max(self.next_offset, self._later_offset)
        async for record in self._reader.until_written():
            if record.key == self._own_key and record.value is not None:
                later = max(later, _next_offset(record.value, later))
        self._later_offset = later
        return later

    async def compare(self, expected: Encoded, place: tuple[int, int]) -> Difference | None:
        """Judge one key, which is not looked at again."""
        assert expected.key is not None
        assert expected.value is not None
        stored = self.last.pop(expected.key, None)
        if stored is None:
            return self._difference("missing", expected.key, place, expected=shown(expected.value))
        wanted = self._judged_part(expected.value)
        if stored.digest == _digest(wanted):
            self.compared += 1
            return None
        record = await self._reader.at(stored.offset)
        if record is None or record.value is None:
            # Another one has taken its place meanwhile: the ledger goes on.
            there, unlike = "a record that is gone by now", None
        else:
            there = shown(record.value)
            unlike = first_difference(wanted, self._judged_part(record.value))
            if unlike is None:
                self.compared += 1
                return None
        field, told, there = unlike or ("value", shown(expected.value), there)
        return self._difference(
            "changed", expected.key, place, field=field, expected=told, found=there
        )

    def left(self, judges: Callable[[str], bool]) -> Difference | None:
        """Return a key that is there and was never asked for, if one of those judged is."""
        left = [
            (key, stored)
            for key, stored in self.last.items()
            if judges(key.decode(errors="replace"))
        ]
        if not left:
            return None
        key, stored = min(left, key=lambda item: item[1].offset)
        return Difference(
            problem="extra",
            topic=self._reader.topic,
            partition=self._partition,
            key=key.decode(errors="replace"),
            found=f"a record at offset {stored.offset}",
        )

    def _apply(self, batch: dict[bytes, Stored | None]) -> None:
        for key, stored in batch.items():
            if stored is None:
                self.last.pop(key, None)
            else:
                self.last[key] = stored

    def _difference(
        self,
        problem: Problem,
        key: bytes,
        place: tuple[int, int],
        *,
        field: str | None = None,
        expected: str | None = None,
        found: str | None = None,
    ) -> Difference:
        return Difference(
            problem=problem,
            topic=self._reader.topic,
            partition=self._partition,
            key=key.decode(errors="replace"),
            id=f"{self._partition}-{place[0]}-{place[1]}",
            field=field,
            expected=expected,
            found=found,
            input_offset=place[0],
        )


def _next_offset(value: bytes, before: int) -> int:
    """Return where a partition's record says that it stands; one that is torn says nothing."""
    try:
        return _PARTITION.decode(value).data.next_offset
    except UNREADABLE:
        return before


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=DIGEST_BYTES).digest()
