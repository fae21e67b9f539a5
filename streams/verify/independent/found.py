"""The records that stand in a topic, read side by side with the inputs that have caused them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from streams.verify.independent.exact_json import loads
from streams.verify.independent.records import Output
from streams.verify.independent.wire import Data

FOREVER = 2**63  # after every input
DELETIONS_MAX = 10_000
AGENTS = "stoploss-agents"


@dataclass(slots=True)
class Found:
    """A record that is there, with the place that its id names."""

    offset: int
    key: str | None
    place: tuple[int, int] | None
    envelope: Data

    @property
    def data(self) -> Data:
        """Return its data; empty where it has none."""
        data = self.envelope.get("data")
        return data if isinstance(data, dict) else {}


class FoundTopic:
    """The records of one topic, handed out input by input."""

    def __init__(self, name: str, partition: int, records: Iterable[Output]) -> None:
        self.name, self._partition = name, partition
        self._records = iter(records)
        self._next: Found | None = None
        self._again: list[Found] = []  # were shown, and are to be taken
        self.deletions: dict[str | None, list[int]] = {}
        self.keeps_deletion: Callable[[str | None], bool] | None = None  # None: of all keys
        self.begins_at = 0  # what earlier inputs have caused is passed over
        self.next_input = -1  # that has caused the next record, or one before it
        self.last: tuple[int, int] = (-1, -1)
        self.first_input: int | None = None  # that has caused the first record that is there

    def take(self, input_offset: int) -> list[Found]:
        """Return the records of an input, and those before that nobody has asked for."""
        found, self._again = self._again, []
        while (record := self._peek()) is not None:
            if record.place is not None and record.place[0] > input_offset:
                self.next_input = record.place[0]
                return found
            found.append(record)
            self._next = None
        self.next_input = FOREVER
        return found

    def peek_all(self, input_offset: int) -> list[Found]:
        """Return the records of an input, and leave them there to be taken."""
        found = self.take(input_offset)
        self._again = [*found, *self._again]
        if found:
            self.next_input = input_offset
        return found

    def look(self, input_offset: int) -> None:
        """Find out which input has caused the next record."""
        if self.next_input < input_offset:
            record = self._peek()
            self.next_input = (
                FOREVER
                if record is None
                else input_offset
                if record.place is None
                else record.place[0]
            )

    def _drop_deletions(self) -> None:
        """Forget those that nobody asks for; not at once, since what is read is ahead of the inputs."""
        if self.keeps_deletion is not None and len(self.deletions) > DELETIONS_MAX:
            self.deletions = {
                key: offsets for key, offsets in self.deletions.items() if self.keeps_deletion(key)
            }

    def _peek(self) -> Found | None:
        while self._next is None:
            record = next(self._records, None)
            if record is None:
                return None
            offset, raw_key, value = record
            key = None if raw_key is None else raw_key.decode(errors="replace")
            if value is None:
                self.deletions.setdefault(key, []).append(offset)
                self._drop_deletions()
                continue
            try:
                envelope = loads(value)
            except ValueError:
                envelope = {}
            if not isinstance(envelope, dict):
                envelope = {}
            if self.name == "dead-letters" and envelope.get("source") == AGENTS:
                continue  # about what an agent could not read: no input of the ledger's causes it
            place = _place(envelope.get("id"), self._partition)
            if place is not None and place[0] < self.begins_at:
                self.deletions.clear()
                continue
            if self.first_input is None and place is not None:
                self.first_input = place[0]
            self._next = Found(offset, key, place, envelope)
        return self._next


def _place(name: object, partition: int) -> tuple[int, int] | None:
    parts = name.split("-") if isinstance(name, str) else []
    if len(parts) != 3 or not all(one.isascii() and one.isdigit() for one in parts):  # noqa: PLR2004
        return None
    own, offset, index = (int(one) for one in parts)
    return (offset, index) if own == partition else None
