"""One partition of the simulated log: what was written, and what readers of it see."""

import asyncio
import enum
from collections.abc import Sequence

from msgspec import Struct

Place = tuple[str, int]  # topic, partition
Headers = Sequence[tuple[str, bytes | None]]


class Fate(enum.Enum):
    """What becomes of a transaction; it is decided once."""

    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"


class Transaction:
    """Records that become visible together, or never."""

    def __init__(self) -> None:
        self.fate = Fate.OPEN
        self.places: set[Place] = set()
        self.written: set[Place] = set()


class Stored(Struct, frozen=True):
    """A record as a reader sees it, and the transaction that it belongs to."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    transaction: Transaction | None = None

    @property
    def is_committed(self) -> bool:
        """Whether it counts; what is decided may still be hidden until its marker is written."""
        return self.transaction is None or self.transaction.fate is Fate.COMMITTED


class Partition:
    """One partition of one topic.

    `records` are those that a reader still finds, `history` all that were ever written: the two
    differ where a cleaner has been (see `compaction`).
    """

    def __init__(self) -> None:
        self.records: list[Stored] = []
        self.history: list[Stored] = []
        self.end = 0
        self._open: dict[Transaction, int] = {}
        self._arrived: list[asyncio.Future[None]] = []

    @property
    def stable_end(self) -> int:
        """The last stable offset: nothing before it will change what it is."""
        return min(self._open.values(), default=self.end)

    def append(
        self,
        at_ms: int,
        key: bytes | None,
        value: bytes | None,
        *,
        headers: Headers = (),
        transaction: Transaction | None = None,
    ) -> int:
        offset = self.end
        if transaction is not None:
            self._open.setdefault(transaction, offset)
        record = Stored(offset, at_ms, key, value, headers, transaction)
        self.records.append(record)
        self.history.append(record)
        self.end += 1
        self._wake()
        return offset

    def mark(self, transaction: Transaction) -> None:
        """Write the marker that says what became of a transaction."""
        self.end += 1
        self._open.pop(transaction, None)
        self._wake()

    def committed(self, offset: int = 0, until: int | None = None) -> list[Stored]:
        """Return what a reader of committed records sees from `offset` on."""
        return _committed(self.records, offset, self.stable_end if until is None else until)

    def ever_committed(self) -> list[Stored]:
        """Return what readers of committed records have ever been able to see."""
        return _committed(self.history, 0, self.stable_end)

    def arrival(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Return what is done when the partition changes."""
        future = loop.create_future()
        self._arrived.append(future)
        return future

    def _wake(self) -> None:
        waiting, self._arrived = self._arrived, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


def newest(records: Sequence[Stored]) -> dict[bytes | None, bytes]:
    """Return the last value of each key that is not deleted."""
    found = {record.key: record.value for record in records}
    return {key: value for key, value in found.items() if value is not None}


def _committed(records: Sequence[Stored], offset: int, end: int) -> list[Stored]:
    found: list[Stored] = []
    for record in reversed(records):
        if record.offset < offset:
            break
        if record.offset < end and record.is_committed:
            found.append(record)
    found.reverse()
    return found
