"""What the ledger needs of a log, and no more; Kafka's side and the simulation's both keep it.

The promise of each method stands here; `tests/integration/test_kafka_session.py` holds both
sides to it.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

END_AGE_MAX_S = 0.5


class Record(Struct, frozen=True, gc=False):
    """What is to be written; `topic` with its prefix, `value` None deletes the key."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None


class HeadedRecord(Record, frozen=True, gc=False):
    """A record with headers; the ledger writes none."""

    headers: Sequence[tuple[str, bytes | None]] = ()


class RawRecord(Protocol):
    """A record as it was read; `timestamp` in ms, the broker's append time on `events`."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970."""

    @property
    def key(self) -> bytes | None:
        """What chose the partition."""

    @property
    def value(self) -> bytes | None:
        """None deletes the key of a compacted topic."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Names may repeat; what of a name is not UTF-8 is there as lone surrogates."""


class Chunk(Struct, frozen=True):
    """Some records in order, with what the reader knows of every offset from `offset` on.

    `next_offset` is where reading goes on, and where the next chunk begins: past markers and gaps
    too. `passed` counts the offsets before it that are taken by what is not for us: markers, aborted
    transactions. `gone` counts those of which nothing is there: retention or compaction has removed
    it, or a broker has lost it. `end_offset` is where committed records ended when the broker
    answered, which is at most `END_AGE_MAX_S` before the chunk is returned, and never before
    `next_offset`: who has come to it had read everything then.
    """

    records: Sequence[RawRecord]
    offset: int
    next_offset: int
    end_offset: int
    passed: int = 0
    gone: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether each of its offsets is accounted for."""
        return len(self.records) + self.passed + self.gone == self.next_offset - self.offset


class Batch(Protocol):
    """What one read of an input partition causes: visible whole, or never. Good for one commit."""

    def produce(self, record: Record) -> None:
        """Queue `record`; no reader sees it before `commit`."""

    async def commit(self) -> None:
        """Make all records visible together; the state among them carries the next offset.

        Decided when it returns, and visible a moment later; to the next owner, who fences first,
        at once.

        Cancelled or failed, the writer is unusable until it fences again.

        Raises:
            FencedError: another owner has begun; nothing of this batch is visible.
            UnconfirmedBatchError: all of it is visible or nothing; restoring tells which.
        """

    async def abort(self) -> None:
        """Forget the records; the writer goes on with the next batch."""


class PartitionWriter(Protocol):
    """The only one who may write what an input partition causes, from `fence` on."""

    async def fence(self) -> None:
        """End every predecessor and its open transaction; returns when both have ended.

        Raises:
            UnavailableError: Kafka does not answer.
        """

    def batch(self) -> Batch:
        """Begin a batch; the one before has been committed or aborted."""

    async def close(self) -> None:
        """Let go of everything, within a bounded time, whatever state it is in."""


class PartitionReader(Protocol):
    """Committed records of one partition, in order, from an offset on."""

    async def read(self) -> Sequence[Chunk]:
        """Return what comes next; nothing, after a moment, where there is nothing new.

        Each chunk is whole, and begins where the one before has ended, or where `seek` said.

        Raises:
            UnavailableError: Kafka does not answer; the next call tries again.
            OffsetGoneError: retention has deleted where we are, or it was never written.
        """

    async def end_offset(self) -> int:
        """Return the offset after the last committed record, open transactions not included.

        The broker is asked each time.

        Raises:
            UnavailableError: Kafka does not answer.
        """

    async def first_offset(self) -> int:
        """Return the offset of the first record that retention has left."""

    def seek(self, offset: int) -> None:
        """Go on from `offset`."""


class RecordAppender(Protocol):
    """Single records outside of any transaction."""

    async def append(self, record: Record) -> None:
        """Deliver one record.

        Raises:
            UnavailableError: not delivered in time; it will not arrive later either, unless it is
                on its way already.
        """

    async def close(self) -> None:
        """Let go of everything; the next `append` begins anew."""


class Connection(Protocol):
    """What the owner of an input partition has of the log; closed when it is no longer the owner."""

    def writer(self) -> PartitionWriter:
        """Return the writer of what the partition causes; to be closed before the connection."""

    def reader(self, topic: str, offset: int = 0, *, is_compacted: bool = False) -> PartitionReader:
        """Return a reader of the partition of this number in `topic`, a name with its prefix.

        Of a topic that is compacted, `gone` may be counted as `passed`: it tells nobody anything.
        """

    async def close(self) -> None:
        """Let go of everything, within a bounded time."""


class Connect(Protocol):
    """How an owner comes to its connection."""

    async def __call__(self, partition: int) -> Connection:
        """Return a connection of its own for an input partition.

        Raises:
            UnavailableError: Kafka does not answer, or a topic does not exist.
        """
