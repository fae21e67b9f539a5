"""The ports of `streams.kafka.ports` on the simulated broker: what the driver is given for Kafka.

The writer goes the way of `streams.kafka.session`: begin, send all, await every delivery, decide;
what fails is aborted where that is still possible, and never used again.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import groupby
from typing import TypeVar

from schemas.errors import UnavailableError
from schemas.topics import Topic
from streams.kafka.errors import FencedError, OffsetGoneError, UnconfirmedBatchError
from streams.kafka.ports import Chunk, Record
from streams.kafka.session import At, States
from streams.kafka.settings import Settings
from tests.simulation.broker import Broker, BrokerError, FencedEpochError, OutOfRangeError
from tests.simulation.compaction import Cleaned
from tests.simulation.faults import Fault
from tests.simulation.log import Fate, Stored
from tests.simulation.network import Network, NoAnswerError, Sender

FETCH_WAIT_S = 0.5
ABORT_WITHIN_S = 1.0
APPEND_WITHIN_S = 5.0
COMMIT_AGAIN = 3
Answer = TypeVar("Answer")


class Link:
    """What one process has of the broker; its parts are made of these classes."""

    writers: "type[SimulatedWriter]"
    readers: "type[SimulatedReader]"
    batches: "type[SimulatedBatch]"

    def __init__(
        self,
        sender: Sender,
        broker: Broker,
        network: Network,
        settings: Settings,
        chance: random.Random,
    ) -> None:
        self.sender, self.broker, self.network = sender, broker, network
        self.settings, self.chance = settings, chance

    async def ask(
        self,
        kind: str,
        serve: Callable[[], Awaitable[Answer]],
        within_s: float | None = None,
    ) -> Answer:
        """Ask the broker; see `Network.ask`."""
        limit_s = self.settings.request_timeout_ms / 1000 if within_s is None else within_s
        return await self.network.ask(self.sender, kind, serve, limit_s)

    async def __call__(self, partition: int) -> "SimulatedConnection":
        """See `Connect`."""
        await _available(self.ask("connect", _nothing))
        return SimulatedConnection(self, partition)


class SimulatedConnection:
    """See `Connection`."""

    def __init__(self, link: Link, partition: int) -> None:
        self.link, self.partition = link, partition

    def writer(self) -> "SimulatedWriter":
        return self.link.writers(self.link, self.partition)

    def reader(
        self,
        topic: str,
        offset: int = 0,
        *,
        is_compacted: bool = False,  # noqa: ARG002 - a reader of a topic knows
    ) -> "SimulatedReader":
        return self.link.readers(self.link, topic, self.partition, offset)

    async def close(self) -> None:
        pass


class SimulatedWriter:
    """See `PartitionWriter`."""

    def __init__(self, link: Link, partition: int) -> None:
        self.link, self.partition = link, partition
        self.name = link.settings.transactional_id(partition)
        self._epoch: int | None = None
        self._batch: SimulatedBatch | None = None

    async def fence(self) -> None:
        self._epoch = self._batch = None
        self._epoch = await _available(self.link.ask("fence", self.begin_epoch))

    async def begin_epoch(self) -> int:
        """End whoever came before; return our epoch."""
        return await self.link.broker.begin_epoch(self.name)

    def batch(self) -> "SimulatedBatch":
        assert self._epoch is not None, "fence first"
        assert self._batch is None or self._batch.at in (At.COMMITTED, At.ABORTED)
        self._batch = self.link.batches(self.link, self.partition, self.name, self._epoch)
        return self._batch

    async def close(self) -> None:
        self._epoch = self._batch = None


class SimulatedBatch:
    """See `Batch`."""

    def __init__(self, link: Link, partition: int, name: str, epoch: int) -> None:
        self.link, self.partition, self.name, self.epoch = link, partition, name, epoch
        self.records: list[Record] = []
        self._states = States()

    @property
    def at(self) -> At:
        return self._states.at

    def produce(self, record: Record) -> None:
        assert self.at is At.OPEN
        self.records.append(record)

    async def abort(self) -> None:
        self._states.move(At.ABORTED)

    async def commit(self) -> None:
        self._states.move(At.COMMITTING)
        try:
            async with asyncio.timeout(self.link.settings.batch_deadline_ms / 1000):
                await self.write(self.records)
        except BaseException as error:
            self._states.move(At.DISCARDED)
            await self._give_up(error)
            if isinstance(error, FencedEpochError):
                raise FencedError(self.partition) from error
            if isinstance(error, Exception):
                raise UnconfirmedBatchError(self.partition, repr(error)) from error
            raise
        self._states.move(At.COMMITTED)

    async def write(self, records: Sequence[Record]) -> None:
        """Begin, send all, await every delivery, decide."""
        ordered = sorted(records, key=_place)
        groups = [list(group) for _, group in groupby(ordered, key=_place)]
        timeout_s = self.link.settings.transaction_timeout_ms / 1000
        places = [_place(group[0]) for group in groups]
        broker = self.link.broker
        await self.link.ask(
            "begin", partial(broker.begin, self.name, self.epoch, places, timeout_s)
        )
        await self.deliver(groups)
        await self.end(Fate.COMMITTED)

    async def deliver(self, groups: Sequence[Sequence[Record]]) -> None:
        """Send all at once; returns when all have arrived, and raises when any has not."""
        answers = await asyncio.gather(
            *(self.link.ask("produce", partial(self._produced, group)) for group in groups),
            return_exceptions=True,
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def _produced(self, records: Sequence[Record]) -> None:
        if self.link.network.meets(Fault.REFUSED):
            raise BrokerError("the record batch is too large")
        self.link.broker.produce(self.name, self.epoch, records)

    async def end(self, fate: Fate) -> None:
        """Decide; a request whose answer does not come is sent again, for a while."""
        kind = "commit" if fate is Fate.COMMITTED else "abort"
        for again in range(COMMIT_AGAIN):
            try:
                await self.link.ask(kind, partial(self._decided, fate))
            except NoAnswerError:
                if again == COMMIT_AGAIN - 1 or self.link.chance.random() < 0.5:
                    raise
            else:
                return

    async def _decided(self, fate: Fate) -> None:
        self.link.broker.end(self.name, self.epoch, fate)

    async def _give_up(self, error: BaseException) -> None:
        if isinstance(error, FencedEpochError) or not self.link.sender.is_alive:
            return
        try:
            async with asyncio.timeout(ABORT_WITHIN_S):
                await self.end(Fate.ABORTED)
        except (NoAnswerError, BrokerError, TimeoutError):
            pass  # the next owner's fence ends it, or its time-out


class SimulatedReader:
    """See `PartitionReader`."""

    def __init__(self, link: Link, topic: str, partition: int, offset: int) -> None:
        self.link, self.topic, self._partition = link, topic, partition
        self.log = link.broker.partition(topic, partition)
        self.cleaner = link.broker.cleaner(topic, partition)
        self._restores = topic == link.settings.topic(Topic.TASKS)
        self.offset = offset

    def seek(self, offset: int) -> None:
        self.offset = offset

    async def read(self) -> Sequence[Chunk]:
        offset = self.offset
        kind = "restore" if self._restores else "read"
        try:
            chunks = await _available(self.link.ask(kind, partial(self._fetch, offset)))
        except OutOfRangeError as error:
            raise OffsetGoneError(self.topic, self._partition, offset, 0, error.end) from error
        if chunks:
            self.offset = chunks[-1].next_offset
        return chunks

    async def _fetch(self, offset: int) -> list[Chunk]:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + FETCH_WAIT_S
        if offset and self._is_cleaned_ahead:
            self._clean_ahead(offset)
        while True:
            end = self.end()
            if offset >= end:
                self.cleaner.restore_ends(self.link.sender)
            if offset > end:
                raise OutOfRangeError(end)
            if offset < end:
                return self._chunks(self.visible(offset), offset, end)
            left_s = until_s - loop.time()
            if left_s <= 0:
                return []
            try:
                async with asyncio.timeout(left_s):
                    await self.log.arrival(loop)
            except TimeoutError:
                return []

    @property
    def _is_cleaned_ahead(self) -> bool:
        return self._restores and self.link.network.has(Fault.COMPACTION_AHEAD)

    def _clean_ahead(self, offset: int) -> None:
        """Remove records between two reads of somebody who restores."""
        network = self.link.network
        cleaned = self.clean()
        if cleaned.superseded and cleaned.superseded[-1] >= offset:
            network.note(Fault.COMPACTION_AHEAD)
        if cleaned.deletions:
            network.note(Fault.DELETION_GONE)

    def clean(self) -> Cleaned:
        return self.cleaner.clean(may_forget=self.link.network.has(Fault.DELETION_GONE))

    def end(self) -> int:
        return self.log.stable_end

    def visible(self, offset: int) -> list[Stored]:
        return self.log.committed(offset)

    def _chunks(self, found: list[Stored], offset: int, end: int) -> list[Chunk]:
        """Cut what is there into pieces, as record batches do; the last may leave some behind."""
        chunks: list[Chunk] = []
        chance = self.link.chance
        while found and (not chunks or chance.random() < 0.7):
            size = chance.choice((1, 2, 5, 20, 1_000))
            records, found = found[:size], found[size:]
            next_offset = records[-1].offset + 1 if found else end
            passed = next_offset - offset - len(records)
            chunks.append(Chunk(records, offset, next_offset, end, passed))
            offset = next_offset
            if self._is_cleaned_ahead:
                break  # more reads, and more between them
        return chunks or [Chunk([], offset, end, end, end - offset)]

    async def end_offset(self) -> int:
        return await _available(self.link.ask("offsets", self._end))

    async def _end(self) -> int:
        return self.end()

    async def first_offset(self) -> int:
        await _available(self.link.ask("offsets", self._begun))
        return 0

    async def _begun(self) -> None:
        self.cleaner.restore_begins(self.link.sender)


Link.writers, Link.readers, Link.batches = SimulatedWriter, SimulatedReader, SimulatedBatch


class SimulatedAppender:
    """See `RecordAppender`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def append(self, record: Record) -> None:
        await _available(self._link.ask("append", partial(self._written, record), APPEND_WITHIN_S))

    async def _written(self, record: Record) -> None:
        self._link.broker.append(record)

    async def close(self) -> None:
        pass


async def _available(asked: Awaitable[Answer]) -> Answer:
    """Turn silence, and a broker that refuses, into what the port promises."""
    try:
        return await asked
    except (NoAnswerError, FencedEpochError) as error:
        raise UnavailableError(f"{error!r}") from error


async def _nothing() -> None:
    pass


def _place(record: Record) -> tuple[str, int]:
    return record.topic, record.partition
