"""A broker in memory: partitions with offsets, transactions with epochs, and what readers see of them.

It keeps what Kafka keeps, and no more: a record of a transaction takes its offset when it is
written, long before anybody may see it; nobody who reads committed records gets past the first
record of an open transaction; a marker takes an offset as well, and comes to each partition in its
own time after the transaction was decided. Everything here happens at once, at the moment a request
arrives; what it costs to get here is the network's matter.
"""

import asyncio
import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Sequence

from streams.kafka.ports import Record
from tests.simulation.compaction import Cleaner
from tests.simulation.log import Fate, Headers, Partition, Place, Transaction

MARKER_WITHIN_S = 0.05


class BrokerError(Exception):
    """The broker refuses a request."""


class FencedEpochError(BrokerError):
    """Another producer of this transactional id has begun."""


class OutOfRangeError(BrokerError):
    """There is no such offset; `end` is where reading ends."""

    def __init__(self, end: int) -> None:
        super().__init__(f"the log ends at {end}")
        self.end = end


class _Producer:
    """What the coordinator knows of a transactional id."""

    def __init__(self) -> None:
        self.epoch = 0
        self.transaction: Transaction | None = None
        self.ending: asyncio.Future[None] | None = None  # markers are on their way
        self.timer: asyncio.TimerHandle | None = None


class Broker:
    """All partitions, and the transactions on them.

    Args:
        loop: its timers write markers and end transactions that take too long.
        chance: when markers come.
        clock_ms: the append time.
        tell: is told what happened, in one line.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        chance: random.Random,
        clock_ms: Callable[[], int],
        tell: Callable[[str], None],
    ) -> None:
        self._loop, self._chance, self._clock_ms, self._tell = loop, chance, clock_ms, tell
        self._partitions: dict[Place, Partition] = defaultdict(Partition)
        self._cleaners: dict[Place, Cleaner] = {}
        self._producers: dict[str, _Producer] = defaultdict(_Producer)
        self.fenced = 0  # requests of an epoch that is over
        self.on_append: Callable[[Record], None] = lambda _record: None

    def partition(self, topic: str, partition: int) -> Partition:
        return self._partitions[topic, partition]

    def cleaner(self, topic: str, partition: int) -> Cleaner:
        """Return who may remove records of a partition."""
        cleaner = self._cleaners.get((topic, partition))
        if cleaner is None:
            cleaner = Cleaner(self.partition(topic, partition))
            self._cleaners[topic, partition] = cleaner
        return cleaner

    @property
    def is_quiet(self) -> bool:
        """Whether no transaction is open, and every marker is written."""
        return all(
            producer.transaction is None and producer.ending is None
            for producer in self._producers.values()
        )

    def append(self, record: Record, headers: Headers = ()) -> int:
        """Write one record outside of any transaction; return its offset."""
        self.on_append(record)
        where = self.partition(record.topic, record.partition)
        offset = where.append(self._clock_ms(), record.key, record.value, headers=headers)
        self._tell(f"append {record.topic}-{record.partition} {offset} {_digest([record])}")
        return offset

    async def begin_epoch(self, name: str) -> int:
        """InitProducerId: end the predecessor's transaction, wait for its markers, and fence it."""
        producer = self._producers[name]
        producer.epoch += 1
        epoch = producer.epoch
        if producer.transaction is not None:
            self._end(name, Fate.ABORTED)
        while producer.ending is not None:
            await asyncio.shield(producer.ending)
        self._tell(f"fence {name} epoch {epoch}")
        return epoch

    def epoch(self, name: str) -> int:
        """Return the epoch that counts now."""
        return self._producers[name].epoch

    async def begin(self, name: str, epoch: int, places: Sequence[Place], timeout_s: float) -> None:
        """AddPartitionsToTxn: begin a transaction, which ends by itself after `timeout_s`.

        Raises:
            FencedEpochError: the epoch is over.
        """
        producer = self._producers[name]
        self._check(name, epoch)
        while producer.ending is not None:  # CONCURRENT_TRANSACTIONS: the client comes again
            await asyncio.shield(producer.ending)
            self._check(name, epoch)
        if producer.transaction is None:
            producer.transaction = Transaction()
            producer.timer = self._loop.call_later(timeout_s, self._expire, name, epoch)
        producer.transaction.places.update(places)
        self._tell(f"begin {name} epoch {epoch}")

    def produce(self, name: str, epoch: int, records: Sequence[Record]) -> None:
        """Write records of a transaction to one partition.

        Raises:
            FencedEpochError: the epoch is over.
            BrokerError: no transaction with this partition is open.
        """
        self._check(name, epoch)
        transaction = self._producers[name].transaction
        where = records[0].topic, records[0].partition
        if transaction is None or where not in transaction.places:
            raise BrokerError(f"{name}: no open transaction with {where}")
        partition = self.partition(*where)
        first = partition.end
        for record in records:
            assert (record.topic, record.partition) == where
            partition.append(self._clock_ms(), record.key, record.value, transaction=transaction)
        transaction.written.add(where)
        self._tell(f"produce {name} {epoch} {where[0]}-{where[1]} {first} {_digest(records)}")

    def end(self, name: str, epoch: int, fate: Fate) -> None:
        """EndTxn: decide. What is decided stays, and the markers follow; repeated, it does nothing.

        Raises:
            FencedEpochError: the epoch is over.
        """
        self._check(name, epoch)
        if self._producers[name].transaction is not None:
            self._end(name, fate)

    def _check(self, name: str, epoch: int) -> None:
        if self._producers[name].epoch != epoch:
            self.fenced += 1
            raise FencedEpochError(f"{name}: epoch {epoch} is over")

    def _expire(self, name: str, epoch: int) -> None:
        """End a transaction that takes too long, and fence whoever left it open."""
        producer = self._producers[name]
        if producer.transaction is not None and producer.epoch == epoch:
            self._tell(f"expire {name} epoch {epoch}")
            producer.epoch += 1
            self._end(name, Fate.ABORTED)

    def _end(self, name: str, fate: Fate) -> None:
        producer = self._producers[name]
        transaction, producer.transaction = producer.transaction, None
        assert transaction is not None
        if producer.timer is not None:
            producer.timer.cancel()
        transaction.fate = fate
        self._tell(f"{fate.value} {name} {len(transaction.written)} partitions")
        unmarked = sorted(transaction.written)
        if not unmarked:
            return
        producer.ending = self._loop.create_future()
        last_s = 0.0
        for where in unmarked:
            after_s = self._chance.uniform(0, MARKER_WITHIN_S)
            last_s = max(last_s, after_s)
            self._loop.call_later(after_s, self._mark, transaction, where)
        self._loop.call_later(last_s, self._ended, producer)

    def _mark(self, transaction: Transaction, where: Place) -> None:
        self.partition(*where).mark(transaction)
        self._tell(f"marker {where[0]}-{where[1]}")

    def _ended(self, producer: _Producer) -> None:
        ending, producer.ending = producer.ending, None
        assert ending is not None
        ending.set_result(None)


def _digest(records: Sequence[Record]) -> str:
    found = hashlib.blake2b(digest_size=4)
    for record in records:
        found.update(b"\0" if record.key is None else record.key)
        found.update(b"\1" if record.value is None else record.value)
    return f"{len(records)} records {found.hexdigest()}"
