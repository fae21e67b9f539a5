"""The ports in memory, for the simulator: one log, which survives what its users go through.

It keeps what `ports.py` promises and can fail at every await: `trouble` is asked at each step by
its name (`fence`, `commit`, `committed`, `read`) and raises what should go wrong there.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

from msgspec import Struct

from streams.kafka.errors import FencedError, OffsetGoneError, UnconfirmedBatchError
from streams.kafka.ports import Chunk, Record
from streams.kafka.session import At, States

Trouble = Callable[[str], None]


class MemoryRecord(Struct, frozen=True):
    """A record of the log in memory."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


class MemoryLog:
    """All topics, and who may write. `now_ms` is the append time; whoever simulates moves it."""

    def __init__(self) -> None:
        self.now_ms = 0
        self._records: dict[tuple[str, int], list[MemoryRecord]] = defaultdict(list)
        self._ends: dict[tuple[str, int], int] = defaultdict(int)
        self._epochs: dict[int, int] = defaultdict(int)

    def append(self, record: Record) -> int:
        """Write outside of any transaction; return the offset."""
        where = record.topic, record.partition
        offset = self._ends[where]
        self._records[where].append(MemoryRecord(offset, self.now_ms, record.key, record.value))
        self._ends[where] = offset + 1
        return offset

    def commit(self, records: Sequence[Record]) -> None:
        """Write all, and a marker behind them in each partition: an offset that is no record."""
        for record in records:
            self.append(record)
        for where in {(record.topic, record.partition) for record in records}:
            self._ends[where] += 1

    def records(self, topic: str, partition: int) -> list[MemoryRecord]:
        """Return what is there."""
        return list(self._records[topic, partition])

    def end_offset(self, topic: str, partition: int) -> int:
        """Return the offset that comes next."""
        return self._ends[topic, partition]

    def begin_epoch(self, partition: int) -> int:
        """Let a new owner of an input partition in; the one before is fenced."""
        self._epochs[partition] += 1
        return self._epochs[partition]

    def is_current(self, partition: int, epoch: int) -> bool:
        """Whether nobody has come after this owner."""
        return self._epochs[partition] == epoch


def _no_trouble(_step: str) -> None:
    pass


class MemoryWriter:
    """See `PartitionWriter`."""

    def __init__(self, log: MemoryLog, partition: int, trouble: Trouble = _no_trouble) -> None:
        self._log, self.partition, self._trouble = log, partition, trouble
        self._epoch: int | None = None
        self._batch: MemoryBatch | None = None

    async def fence(self) -> None:
        """See `PartitionWriter.fence`."""
        self._trouble("fence")
        self._epoch, self._batch = self._log.begin_epoch(self.partition), None

    def batch(self) -> "MemoryBatch":
        """See `PartitionWriter.batch`."""
        assert self._epoch is not None, "fence first"
        assert self._batch is None or self._batch.at in (At.COMMITTED, At.ABORTED)
        self._batch = MemoryBatch(self._log, self.partition, self._epoch, self._trouble)
        return self._batch

    async def close(self) -> None:
        """See `PartitionWriter.close`."""
        self._epoch = None


class MemoryBatch:
    """See `Batch`."""

    def __init__(self, log: MemoryLog, partition: int, epoch: int, trouble: Trouble) -> None:
        self._log, self._partition, self._epoch, self._trouble = log, partition, epoch, trouble
        self._records: list[Record] = []
        self._states = States()

    @property
    def at(self) -> At:
        """Where it stands."""
        return self._states.at

    def produce(self, record: Record) -> None:
        """See `Batch.produce`."""
        assert self.at is At.OPEN
        self._records.append(record)

    async def abort(self) -> None:
        """See `Batch.abort`."""
        self._states.move(At.ABORTED)

    async def commit(self) -> None:
        """See `Batch.commit`."""
        self._states.move(At.COMMITTING)
        try:
            self._trouble("commit")
            if not self._log.is_current(self._partition, self._epoch):
                raise FencedError(self._partition)  # noqa: TRY301 - takes the way out of all failures
            self._log.commit(self._records)
            self._trouble("committed")  # visible, and the answer is lost
        except BaseException as error:
            self._states.move(At.DISCARDED)
            if isinstance(error, Exception) and not isinstance(error, FencedError):
                raise UnconfirmedBatchError(self._partition, repr(error)) from error
            raise
        self._states.move(At.COMMITTED)


class MemoryReader:
    """See `PartitionReader`."""

    def __init__(
        self,
        log: MemoryLog,
        topic: str,
        partition: int,
        offset: int = 0,
        trouble: Trouble = _no_trouble,
    ) -> None:
        self._log, self._topic, self._partition = log, topic, partition
        self._trouble = trouble
        self.offset = offset

    def seek(self, offset: int) -> None:
        """See `PartitionReader.seek`."""
        self.offset = offset

    async def read(self) -> Sequence[Chunk]:
        """See `PartitionReader.read`."""
        self._trouble("read")
        end = await self.end_offset()
        if self.offset > end:
            raise OffsetGoneError(self._topic, self._partition, self.offset, 0, end)
        if self.offset == end:
            return []
        found = self._log.records(self._topic, self._partition)
        records = [record for record in found if record.offset >= self.offset]
        self.offset = end
        return [Chunk(records, end, end)]

    async def end_offset(self) -> int:
        """See `PartitionReader.end_offset`."""
        return self._log.end_offset(self._topic, self._partition)

    async def first_offset(self) -> int:
        """See `PartitionReader.first_offset`."""
        return 0
