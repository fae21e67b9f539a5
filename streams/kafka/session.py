"""The transaction of one batch of one input partition: produce, await every delivery, commit.

```
OPEN ──commit──▶ COMMITTING ──▶ COMMITTED
  │                  │
  └──abort           └── any failure, cancellation, deadline
       │                 │
       ▼                 ▼
    ABORTED          DISCARDED   (with its producer; the state is restored from the topic)
```
The transaction itself begins only in `commit`, with all records at hand: while it is open, nobody
who reads committed records gets past it.
"""

import abc
import asyncio
import enum
from collections.abc import Awaitable, Iterator
from itertools import groupby

import aiokafka.errors

from schemas.errors import UnavailableError
from streams.kafka import failpoints
from streams.kafka.errors import FencedError, UnconfirmedBatchError
from streams.kafka.ports import Record
from streams.kafka.producers import Builder, Producer, discard, transactional_producer
from streams.kafka.settings import Settings

ABORT_WITHIN_S = 1.0
FENCED = (
    aiokafka.errors.ProducerFenced,
    aiokafka.errors.InvalidProducerEpoch,
)


class At(enum.Enum):
    """Where a batch stands."""

    OPEN = "open"
    COMMITTING = "committing"
    COMMITTED = "committed"
    ABORTED = "aborted"
    DISCARDED = "discarded"


MOVES: dict[At, frozenset[At]] = {
    At.OPEN: frozenset({At.COMMITTING, At.ABORTED}),
    At.COMMITTING: frozenset({At.COMMITTED, At.DISCARDED}),
    At.COMMITTED: frozenset(),
    At.ABORTED: frozenset(),
    At.DISCARDED: frozenset(),
}


class States:
    """The state of a batch, which moves only as `MOVES` says; shared by both sides of the port."""

    def __init__(self) -> None:
        self.at = At.OPEN

    def move(self, to: At) -> None:
        """Go on to `to`; anything else than a move of the table is our own mistake."""
        assert to in MOVES[self.at], f"a batch that is {self.at.value} cannot be {to.value}"
        self.at = to


class GatheredBatch(abc.ABC):
    """A batch, but for the transaction itself, which each driver does in its own way; see `Batch`."""

    def __init__(self, partition: int, deadline_s: float) -> None:
        self._partition = partition
        self._deadline_s = deadline_s
        self._records: list[Record] = []
        self._states = States()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.at.value} records={len(self._records)}>"

    @property
    def at(self) -> At:
        """Where it stands."""
        return self._states.at

    def produce(self, record: Record) -> None:
        """See `Batch.produce`."""
        assert self.at is At.OPEN, self
        self._records.append(record)

    async def commit(self) -> None:
        """See `Batch.commit`."""
        self._states.move(At.COMMITTING)
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._transact()
        except BaseException as error:
            self._states.move(At.DISCARDED)
            is_fenced = await self._give_up(error)
            if not isinstance(error, Exception):
                raise
            if is_fenced:
                raise FencedError(self._partition) from error
            raise UnconfirmedBatchError(self._partition, repr(error)) from error
        self._states.move(At.COMMITTED)

    async def abort(self) -> None:
        """See `Batch.abort`; nothing has been sent yet."""
        self._states.move(At.ABORTED)
        self._records.clear()

    @abc.abstractmethod
    async def _transact(self) -> None:
        """Begin, send, await every delivery, commit."""

    @abc.abstractmethod
    async def _give_up(self, error: BaseException) -> bool:
        """Abort where `error` allows it, so that readers need not wait for a time-out.

        Within a bounded time, and the producer is never used again. Returns whether another owner
        has begun.
        """

    def _by_target(self) -> Iterator[tuple[tuple[str, int], Iterator[Record]]]:
        """Yield records by topic and partition, so that they leave in as few requests as can be."""
        return groupby(sorted(self._records, key=_target), key=_target)  # stable: their order stays


def _target(record: Record) -> tuple[str, int]:
    return record.topic, record.partition


class KafkaWriter:
    """The transactional producer of one input partition; see `PartitionWriter`."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self._settings = settings
        self.partition = partition
        self._producer: Producer | None = None
        self._batch: KafkaBatch | None = None

    def __repr__(self) -> str:
        return f"<KafkaWriter {self._settings.transactional_id(self.partition)} {self._batch}>"

    async def fence(self) -> None:
        """See `PartitionWriter.fence`: InitProducerId ends the predecessor's transaction."""
        await self.close()
        producer = transactional_producer(self._settings, self.partition)
        try:
            async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                await producer.start()
        except (aiokafka.errors.KafkaError, OSError, TimeoutError) as error:
            await discard(producer)
            raise UnavailableError(f"{self!r}: {error!r}") from error
        except BaseException:
            await discard(producer)
            raise
        self._producer = producer

    def batch(self) -> "KafkaBatch":
        """See `PartitionWriter.batch`."""
        assert self._producer is not None, "fence first"
        assert self._batch is None or self._batch.at in (At.COMMITTED, At.ABORTED)
        deadline_s = self._settings.batch_deadline_ms / 1000
        self._batch = KafkaBatch(self._producer, self.partition, deadline_s)
        return self._batch

    async def close(self) -> None:
        """See `PartitionWriter.close`."""
        producer, self._producer, self._batch = self._producer, None, None
        if producer is not None:
            await discard(producer)


class KafkaBatch(GatheredBatch):
    """One transaction; see `Batch`."""

    def __init__(self, producer: Producer, partition: int, deadline_s: float) -> None:
        super().__init__(partition, deadline_s)
        self._producer = producer
        self._deliveries: list[Awaitable[object]] = []

    async def _transact(self) -> None:
        await self._producer.begin_transaction()  # 1. nothing is sent by this
        failpoints.hit("after_begin")
        await self._send()  # 2.
        failpoints.hit("after_state_sent")
        # 3. A batch that the broker refuses fails here and nowhere else: without this the
        # transaction would commit what is left of it.
        await asyncio.gather(*self._deliveries)
        failpoints.hit("before_commit")
        failpoints.on_the_way("in_commit")
        await self._producer.commit_transaction()  # 4.
        failpoints.hit("after_commit")

    async def _send(self) -> None:
        for (topic, partition), records in self._by_target():
            await failpoints.delivered("after_outputs_sent", self._deliveries, topic)
            builder = self._producer.create_batch()
            for record in records:
                if builder.append(timestamp=None, key=record.key, value=record.value) is None:
                    await self._queue(builder, topic, partition)
                    builder = self._producer.create_batch()
                    added = builder.append(timestamp=None, key=record.key, value=record.value)
                    assert added is not None, "an empty batch takes a record of any size"
            await self._queue(builder, topic, partition)

    async def _queue(self, builder: Builder, topic: str, partition: int) -> None:
        builder.close()
        self._deliveries.append(
            await self._producer.send_batch(builder, topic, partition=partition)
        )

    async def _give_up(self, error: BaseException) -> bool:
        """See `GatheredBatch._give_up`.

        The producer is never used again: after an authorization error aiokafka's abort does
        nothing, and its next commit would commit the records of this batch.
        """
        is_fenced = isinstance(error, FENCED)
        if not is_fenced:
            try:
                async with asyncio.timeout(ABORT_WITHIN_S):
                    await self._producer.abort_transaction()
            except (aiokafka.errors.KafkaError, OSError, TimeoutError, AssertionError):
                pass  # the next owner's fence ends it, or its time-out
        await discard(self._producer)
        await asyncio.gather(*self._deliveries, return_exceptions=True)  # all are over by now
        return is_fenced
