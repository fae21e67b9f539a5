"""What was expected and what was found, merged in the order of their inputs. Pure.

An id, `{partition}-{offset}-{index}`, says which input caused a record, and which place it has among
what that input caused: so both sides are sorted, and neither has to be kept.

A compacted topic may lack earlier records of a key. That excuses a missing one only where it is old
enough to have been compacted, and where a later one of its key is there. A deletion has no id: it
stands between two records that have one.
"""

from collections import deque
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from schemas.refusal import UNREADABLE
from streams.verify.difference import first_difference, shown
from streams.verify.result import Difference

Place = tuple[int, int]  # offset of the input, index among what it caused


class Expected(Struct, frozen=True, gc=False):
    """A record that an input must have caused; `clock_ms` is when, in the partition's time."""

    place: Place
    key: bytes | None
    value: bytes | None
    clock_ms: int


class Found(Struct, frozen=True, gc=False):
    """A record that is there; `id` as it says, `place` None where that is not one of ours."""

    key: bytes | None
    value: bytes | None
    id: str
    place: Place | None


class _Identified(Struct):
    id: str


_ID = msgspec.json.Decoder(_Identified)


def found(partition: int, key: bytes | None, value: bytes | None) -> Found:
    """Return a record with the place that its id names."""
    if value is None:
        return Found(key, None, "", None)
    try:
        name = _ID.decode(value).id
    except UNREADABLE:
        return Found(key, value, "", None)
    return Found(key, value, name, _place(partition, name))


def _place(partition: int, name: str) -> Place | None:
    own, _, rest = name.partition("-")
    offset, _, index = rest.partition("-")
    numbers = (own, offset, index)
    if not all(text.isascii() and text.isdigit() for text in numbers) or int(own) != partition:
        return None
    return int(offset), int(index)


class _Group:
    """A found record with the deletions before it; at the end of the topic there is no record."""

    def __init__(self, deleted: list[Found], record: Found | None) -> None:
        self.deleted, self.record = deleted, record


class Merge:
    """One topic and partition. Feed both sides; `difference` is the first one, once there is one.

    Args:
        topic: as differences name it.
        partition: of the topic.
        compacted_before_ms: a record before this time may have been compacted; None: not compacted.
        is_trimmed: whether retention has removed the first records.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        *,
        compacted_before_ms: int | None = None,
        is_trimmed: bool = False,
    ) -> None:
        self._topic, self._partition = topic, partition
        self._compacted_before_ms = compacted_before_ms
        self._is_trimmed = is_trimmed
        self._expected: deque[Expected] = deque()
        self._groups: deque[_Group] = deque()
        self._deleted: list[Found] = []
        self.has_ended = False  # all that is there was found
        # Of a compacted topic, by key: what must be followed by a later one; and what stands there.
        self._owed: dict[bytes | None, Expected] = {}
        self._standing: set[bytes | None] = set()
        self.compared = self.trimmed = 0
        self.difference: Difference | None = None

    def __repr__(self) -> str:
        waiting = f"{len(self._expected)} expected, {len(self._groups)} found"
        return f"<Merge {self._topic}-{self._partition}: {self.compared} equal, {waiting}>"

    @property
    def needs_found(self) -> bool:
        """Whether it goes on only when more is found, or `end_of_found` is called."""
        return (
            self.difference is None
            and bool(self._expected)
            and not self._groups
            and not self.has_ended
        )

    def expect(self, record: Expected) -> None:
        """Add what an input must have caused."""
        self._expected.append(record)

    def find(self, records: Sequence[Found]) -> None:
        """Add what is there, in order."""
        for record in records:
            if record.value is None:
                self._deleted.append(record)
            else:
                self._groups.append(_Group(self._deleted, record))
                self._deleted = []

    def end_of_found(self) -> None:
        """Say that nothing more is there."""
        if not self.has_ended:
            self._groups.append(_Group(self._deleted, None))
            self._deleted, self.has_ended = [], True

    def trim(self) -> None:
        """Say that retention has removed what would have come next."""
        self._is_trimmed = True

    def run(self) -> None:
        """Compare as far as both sides are known."""
        while self.difference is None and self._expected and self._groups:
            self._step(self._expected[0], self._groups[0])

    def finish(self, next_offset: int, later_offset: int) -> None:
        """Judge what is left, after `end_of_found` and `run`.

        Args:
            next_offset: inputs before this one were expected.
            later_offset: where the ledger has come to meanwhile: what these inputs have caused is
                not judged.
        """
        assert self.has_ended, "the topic was not read to its end"
        while self.difference is None and self._groups:
            group = self._groups.popleft()
            if group.deleted and later_offset == next_offset:
                self._extra(group.deleted[0])
            elif group.record is not None:
                place = group.record.place
                if place is None or not next_offset <= place[0] < later_offset:
                    self._extra(group.record)
        if self.difference is None and self._owed:
            self._missing(min(self._owed.values(), key=lambda owed: owed.place))

    def _step(self, expected: Expected, group: _Group) -> None:
        record = group.record
        if record is not None and (record.place is None or record.place < expected.place):
            self._extra(group.deleted[0] if group.deleted else record)
        elif expected.value is None:
            self._step_deletion(expected, group)
        elif record is None or record.place != expected.place:
            self._absent(expected)
        elif group.deleted:
            self._extra(group.deleted[0])
        else:
            self._compare(expected, record)
            self._groups.popleft()

    def _step_deletion(self, expected: Expected, group: _Group) -> None:
        for index, one in enumerate(group.deleted):
            if one.key == expected.key:
                del group.deleted[index]
                self._matched(expected)
                return
        self._absent(expected)

    def _compare(self, expected: Expected, record: Found) -> None:
        if expected.key != record.key:
            self._changed(expected, record, "key", _text(expected.key), _text(record.key))
        elif expected.value != record.value:
            assert expected.value is not None
            assert record.value is not None
            unlike = first_difference(expected.value, record.value)
            if unlike is not None:
                self._changed(expected, record, *unlike)
        if self.difference is None:
            self._matched(expected)

    def _matched(self, expected: Expected) -> None:
        self._expected.popleft()
        self.compared += 1
        self._is_trimmed = False
        if self._compacted_before_ms is not None:
            self._owed.pop(expected.key, None)
            if expected.value is None:
                self._standing.discard(expected.key)
            else:
                self._standing.add(expected.key)

    def _absent(self, expected: Expected) -> None:
        """Excuse a record that is not there, or name it."""
        before_ms = self._compacted_before_ms
        if self._is_trimmed:
            self.trimmed += 1
        elif before_ms is None or expected.clock_ms >= before_ms:
            self._missing(expected)
        elif expected.value is not None:
            self._owed[expected.key] = expected
        elif expected.key in self._standing:
            self._missing(expected)  # compaction removes what is deleted before the deletion
        else:
            self._owed.pop(expected.key, None)
        self._expected.popleft()

    def _missing(self, expected: Expected) -> None:
        offset, index = expected.place
        self.difference = Difference(
            problem="missing",
            topic=self._topic,
            partition=self._partition,
            key=_text(expected.key),
            id="" if expected.value is None else f"{self._partition}-{offset}-{index}",
            expected="a deletion" if expected.value is None else shown(expected.value),
            input_offset=offset,
        )

    def _extra(self, record: Found) -> None:
        self.difference = Difference(
            problem="extra",
            topic=self._topic,
            partition=self._partition,
            key=_text(record.key),
            id=record.id,
            found="a deletion" if record.value is None else shown(record.value),
            input_offset=None if record.place is None else record.place[0],
        )

    def _changed(
        self, expected: Expected, record: Found, field: str, wanted: str | None, there: str | None
    ) -> None:
        self.difference = Difference(
            problem="changed",
            topic=self._topic,
            partition=self._partition,
            key=_text(record.key),
            id=record.id,
            field=field,
            expected=wanted,
            found=there,
            input_offset=expected.place[0],
        )


def _text(key: bytes | None) -> str:
    return "null" if key is None else key.decode(errors="replace")
