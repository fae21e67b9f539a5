"""Topics read by a command: whole, or from a place on, typed."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from schemas.alerts import Alert
from schemas.audit import Audit
from schemas.envelope import Envelope
from schemas.errors import UnavailableError
from schemas.events import PARTITION_PREFIX
from schemas.outputs import Breach, DeadLetter, Decision, Heartbeat
from schemas.refusal import UNREADABLE
from schemas.state import PartitionStateData, PolicyStateData, TaskStateData
from schemas.topics import BY_PARTITION, Topic
from streams.kafka.ports import Chunk, RawRecord
from streams.kafka.reader import KafkaReader, start_client
from streams.kafka.settings import Settings

# One heartbeat comes a second for each partition: so many seconds are read back.
HEARTBEATS_LOOKED_AT = 20
# A new topic has no leader for a moment, one whose broker restarts for some seconds.
PATIENCE_S = 5.0
RETRY_EVERY_S = 0.05
POLICY_KEY = "policy/"
# What people look at.
LOOKED_AT = (*sorted(BY_PARTITION), Topic.HEARTBEATS, Topic.ALERTS)

Answer = TypeVar("Answer")
Data = TypeVar("Data")

_TASK = msgspec.json.Decoder(Envelope[TaskStateData])
_PARTITION = msgspec.json.Decoder(Envelope[PartitionStateData])
_POLICY = msgspec.json.Decoder(Envelope[PolicyStateData], float_hook=Decimal)
_DECISION = msgspec.json.Decoder(Envelope[Decision])
_BREACH = msgspec.json.Decoder(Envelope[Breach])
_ALERT = msgspec.json.Decoder(Envelope[Alert])
_HEARTBEAT = msgspec.json.Decoder(Envelope[Heartbeat])
_AUDIT = msgspec.json.Decoder(Envelope[Audit])
_DEAD_LETTER = msgspec.json.Decoder(Envelope[DeadLetter])


class Seen(Struct, frozen=True):
    """A task's last state, and where the task lives."""

    partition: int
    state: TaskStateData


class Beat(Struct, frozen=True):
    """A partition's last heartbeat; `at_ms` is when it was sent, by the ledger's clock."""

    at_ms: int
    data: Heartbeat


class LedgerView:
    """What `tasks` says: filled record by record, in the order of each partition."""

    def __init__(self) -> None:
        self.tasks: dict[str, Seen] = {}
        self.partitions: dict[int, PartitionStateData] = {}
        self.policies: dict[str, PolicyStateData] = {}
        self._unreadable: set[tuple[int, str]] = set()

    def __repr__(self) -> str:
        return f"<LedgerView tasks={len(self.tasks)} partitions={len(self.partitions)}>"

    @property
    def unreadable(self) -> int:
        """How many keys have a last record that cannot be read."""
        return len(self._unreadable)

    def take(self, partition: int, record: RawRecord) -> None:
        """Remember what a record of `tasks` says; one that cannot be read is counted."""
        key, value = (record.key or b"").decode(errors="replace"), record.value
        self._unreadable.discard((partition, key))
        try:
            if key.startswith(PARTITION_PREFIX):
                if value is not None:
                    self.partitions[partition] = _PARTITION.decode(value).data
            elif key.startswith(POLICY_KEY):
                if value is not None:  # kept when its last task goes: another partition may use it
                    self.policies[key.removeprefix(POLICY_KEY)] = _POLICY.decode(value).data
            elif value is None:
                self.tasks.pop(key, None)
            else:
                self.tasks[key] = Seen(partition, _TASK.decode(value).data)
        except UNREADABLE:
            self._unreadable.add((partition, key))


class PatientReader:
    """A reader that tries again for a while: a leader has just been chosen, or is being chosen."""

    def __init__(self, reader: KafkaReader) -> None:
        self._reader = reader

    def __repr__(self) -> str:
        return f"<PatientReader {self._reader}>"

    @property
    def offset(self) -> int:
        """Where the next read begins."""
        return self._reader.offset

    def seek(self, offset: int) -> None:
        """Go on from `offset`."""
        self._reader.seek(offset)

    async def read(self) -> Sequence[Chunk]:
        """Return what comes next, which may be nothing."""
        return await _patiently(self._reader.read)

    async def first_offset(self) -> int:
        """Return the offset of the first record that is left."""
        return await _patiently(self._reader.first_offset)

    async def end_offset(self) -> int:
        """Return the offset after the last committed record."""
        return await _patiently(self._reader.end_offset)

    async def written_offset(self) -> int:
        """Return the offset after the last record, those of open transactions included."""
        return await _patiently(self._reader.written_offset)

    async def offset_since(self, timestamp_ms: int) -> int:
        """Return the offset of the first record of that time or later."""
        return await _patiently(functools.partial(self._reader.offset_since, timestamp_ms))


async def _patiently(request: Callable[[], Awaitable[Answer]]) -> Answer:
    """Return the answer to `request`, which is made again while Kafka is not ready for it.

    Raises:
        UnavailableError: Kafka is not ready for too long.
    """
    clock_s = asyncio.get_running_loop().time
    deadline_s = clock_s() + PATIENCE_S
    while True:
        try:
            return await request()
        except UnavailableError:
            if clock_s() > deadline_s:
                raise
        await asyncio.sleep(RETRY_EVERY_S)


class Log:
    """A connection to the topics of one system."""

    def __init__(self, settings: Settings, client: Any) -> None:  # noqa: ANN401 - aiokafka has no types
        self.settings = settings
        self._client = client

    def __repr__(self) -> str:
        return f"<Log {self.settings.bootstrap_servers} {self.settings.topic_prefix}>"

    @property
    def partitions(self) -> range:
        """The partitions of `events`, and of what the ledger writes beside it."""
        name = self.settings.topic(Topic.TASKS)
        return range(len(self._client.cluster.partitions_for_topic(name)))

    def reader(self, topic: Topic, partition: int, offset: int = 0) -> PatientReader:
        """Return a reader of one partition."""
        name = self.settings.topic(topic)
        return PatientReader(KafkaReader(self._client, name, partition, offset))

    async def records(
        self, topic: Topic, partition: int, first: int | None = None
    ) -> AsyncIterator[RawRecord]:
        """Yield what is committed now, from `first` on, else from the start."""
        reader = self.reader(topic, partition)
        begin, end = await reader.first_offset(), await reader.end_offset()
        reader.seek(begin if first is None else max(first, begin))
        while reader.offset < end:
            for chunk in await reader.read():
                for record in chunk.records:
                    yield record

    async def ledger_view(self) -> LedgerView:
        """Return all that `tasks` says."""
        view = LedgerView()
        for partition in self.partitions:
            async for record in self.records(Topic.TASKS, partition):
                view.take(partition, record)
        return view

    async def decisions(self, partition: int, task_id: str) -> list[Envelope[Decision]]:
        """Return a task's decisions that are still there, in order."""
        return await readable(_DECISION, self._of_task(Topic.DECISIONS, partition, task_id))

    async def breaches(self, partition: int, task_id: str) -> list[Envelope[Breach]]:
        """Return a task's breaches of the last weeks, in order."""
        return await readable(_BREACH, self._of_task(Topic.BREACHES, partition, task_id))

    async def _of_task(self, topic: Topic, partition: int, task_id: str) -> AsyncIterator[bytes]:
        key = task_id.encode()
        async for record in self.records(topic, partition):
            if record.key == key and record.value is not None:
                yield record.value

    async def audits(self, since_ms: int | None = None) -> AsyncIterator[Envelope[Audit]]:
        """Yield the entries of `audit`, of some time on; what cannot be read is left out."""
        first = None
        if since_ms is not None:
            first = await self.reader(Topic.AUDIT, 0).offset_since(since_ms)
        async for record in self.records(Topic.AUDIT, 0, first):
            if record.value is not None:
                with contextlib.suppress(*UNREADABLE):
                    yield _AUDIT.decode(record.value)

    async def heartbeats(self) -> dict[int, Beat]:
        """Return the last heartbeat of each partition that had one lately."""
        reader = self.reader(Topic.HEARTBEATS, 0)
        first = await reader.end_offset() - HEARTBEATS_LOOKED_AT * len(self.partitions)
        beats = {}
        async for record in self.records(Topic.HEARTBEATS, 0, max(first, 0)):
            with contextlib.suppress(*UNREADABLE):
                partition = int((record.key or b"").decode().removeprefix(PARTITION_PREFIX))
                if record.value is not None:
                    data = _HEARTBEAT.decode(record.value).data
                    beats[partition] = Beat(record.timestamp, data)
        return beats

    async def alerts(self) -> AsyncIterator[tuple[str, Envelope[Alert] | None]]:
        """Yield key and edge of each record of `alerts`; None deletes the key."""
        async for record in self.records(Topic.ALERTS, 0):
            with contextlib.suppress(*UNREADABLE):
                yield alert_in(record)

    async def dead_letters(self, partition: int, *, since_ms: int) -> list[DeadLetter]:
        """Return the dead letters of a partition from a time on, the agents' among them."""
        first = await self.reader(Topic.DEAD_LETTERS, partition).offset_since(since_ms)
        return [letter.data async for _, letter in self.letters(partition, first)]

    async def refused_events(self, partition: int, first: int) -> list[DeadLetter]:
        """Return the dead letters about `events`, from an offset on."""
        events = self.settings.topic(Topic.EVENTS)
        return [
            letter.data
            async for _, letter in self.letters(partition, first)
            if letter.data.input.topic == events
        ]

    async def letters(
        self, partition: int, first: int | None = None
    ) -> AsyncIterator[tuple[RawRecord, Envelope[DeadLetter]]]:
        """Yield each dead letter of a partition with its record; what cannot be read is left out."""
        async for record in self.records(Topic.DEAD_LETTERS, partition, first):
            if record.value is not None:
                with contextlib.suppress(*UNREADABLE):
                    yield record, _DEAD_LETTER.decode(record.value)


@contextlib.asynccontextmanager
async def opened(settings: Settings, topics: Sequence[Topic] = ()) -> AsyncIterator[Log]:
    """Connect to `topics`, by default all that the ledger reads and writes, and `audit`.

    Raises:
        UnavailableError: no broker answers, or a topic is missing.
    """
    wanted = topics or [*BY_PARTITION, Topic.HEARTBEATS, Topic.AUDIT]
    client = await start_client(settings, [settings.topic(topic) for topic in wanted], "cli")
    try:
        yield Log(settings, client)
    finally:
        await client.close()


async def readable(
    decoder: "msgspec.json.Decoder[Envelope[Data]]", values: AsyncIterator[bytes]
) -> list[Envelope[Data]]:
    """Return what can be read, in order: what somebody else has written is left out."""
    found = []
    async for value in values:
        with contextlib.suppress(*UNREADABLE):
            found.append(decoder.decode(value))
    return found


def alert_in(record: RawRecord) -> tuple[str, Envelope[Alert] | None]:
    """Return key and edge of a record of `alerts`; None deletes the key.

    Raises:
        UNREADABLE: it is no alert.
    """
    value = record.value
    return (record.key or b"").decode(), None if value is None else _ALERT.decode(value)


def decode_decision(value: bytes) -> Envelope[Decision]:
    """Return the decision in a record of `decisions`."""
    return _DECISION.decode(value)
