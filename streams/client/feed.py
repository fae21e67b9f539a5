"""Decisions and heartbeats, from Kafka to whoever listens: from the first to the end, then on.

Partitions are assigned by hand. With a subscription aiokafka assigns anew whenever the metadata
names other partitions, which a restarting broker does for a moment, and reads from the first record
again: old verdicts would come back to life. For the same reason a feed that had to connect again
loads into a new table, which is shown when it is complete.
"""

import asyncio
import logging
from typing import Any, Protocol

import aiokafka
import msgspec

from schemas.envelope import Envelope
from schemas.outputs import Decision, Heartbeat
from schemas.refusal import UNREADABLE
from schemas.topics import Topic
from streams.client.ending import end
from streams.client.reconnecting import Reconnecting
from streams.kafka.reader import start_client
from streams.kafka.settings import Settings, load_settings

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 15.0
REQUEST_TIMEOUT_MS = 10_000
RETRY_BACKOFF_MS = 500
POLL_MS = 200
RECORDS_AT_ONCE = 500  # then other threads are let in

_DECISION = msgspec.json.Decoder(Envelope[Decision])
_HEARTBEAT = msgspec.json.Decoder(Envelope[Heartbeat])


class Listener(Protocol):
    """Whoever is told; on the feed's thread."""

    def loading(self, partitions: range) -> None:
        """Connected; `decided` begins with the first record of each partition."""

    def decided(self, decision: Envelope[Decision], partition: int) -> None:
        """Another decision."""

    def left(self, task_id: str) -> None:
        """A tombstone: the task is no more."""

    def loaded(self) -> None:
        """All that was there when loading began was told."""

    def heard(self, partition: int, heartbeat: Heartbeat) -> None:
        """A ledger lives."""

    def unreadable(self, what: str) -> None:
        """A record that is none of these."""


class Feed:
    """Reads for ever, until it is cancelled. `settings` None: read anew at each attempt."""

    def __init__(self, settings: Settings | None, listener: Listener) -> None:
        self._settings = settings
        self._listener = listener
        self._reconnecting = Reconnecting("verdicts", log)

    async def run(self) -> None:
        """Connect and read; after a failure wait, ever longer, and do it again."""
        await self._reconnecting.run(self._connect_and_read)

    async def _connect_and_read(self) -> None:
        if self._settings is None:
            self._settings = load_settings()
        decisions = self._settings.topic(Topic.DECISIONS)
        heartbeats = self._settings.topic(Topic.HEARTBEATS)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            client = await start_client(self._settings, [decisions, heartbeats], "verdicts")
            count = len(client.cluster.partitions_for_topic(decisions))
            await client.close()
        arguments = self._settings.consumer_kwargs("verdicts") | {
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            "retry_backoff_ms": RETRY_BACKOFF_MS,
        }
        tasks_before = asyncio.all_tasks()
        consumer = aiokafka.AIOKafkaConsumer(**arguments)
        try:
            tps = [aiokafka.TopicPartition(decisions, partition) for partition in range(count)]
            heartbeat_tp = aiokafka.TopicPartition(heartbeats, 0)
            consumer.assign([*tps, heartbeat_tp])
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await consumer.start()
                await consumer.seek_to_end(heartbeat_tp)
                ends = await consumer.end_offsets(tps)
            self._listener.loading(range(count))
            await self._read_on(consumer, ends, heartbeat_tp)
        finally:
            await end(consumer, tasks_before, at_once=False)

    async def _read_on(self, consumer: Any, ends: dict[Any, int], heartbeat_tp: Any) -> None:  # noqa: ANN401 - aiokafka has no types
        loading, loaded = dict(ends), False
        while True:
            found = await consumer.getmany(timeout_ms=POLL_MS, max_records=RECORDS_AT_ONCE)
            for tp, records in found.items():
                for record in records:
                    if tp == heartbeat_tp:
                        self._take_heartbeat(record.key, record.value)
                    else:
                        self._take_decision(record.key, record.value, tp.partition)
            for tp, end_offset in list(loading.items()):
                # Not by the records: the last ones may be control records, or compacted away.
                if await consumer.position(tp) >= end_offset:
                    del loading[tp]
            if not loading and not loaded:
                loaded = True
                self._listener.loaded()
                self._reconnecting.is_up()
            await asyncio.sleep(0)

    def _take_decision(self, key: bytes | None, value: bytes | None, partition: int) -> None:
        try:
            if value is None:
                left, decision = (key or b"").decode(), None
            else:
                left, decision = "", _DECISION.decode(value)
        except UNREADABLE as error:
            self._listener.unreadable(f"decision of {key!r:.80}: {error}")
            return
        if decision is None:
            self._listener.left(left)
        else:
            self._listener.decided(decision, partition)

    def _take_heartbeat(self, key: bytes | None, value: bytes | None) -> None:
        if value is None:
            return
        try:
            partition = int((key or b"").decode().removeprefix("partition/"))
            heartbeat = _HEARTBEAT.decode(value).data
        except UNREADABLE as error:
            self._listener.unreadable(f"heartbeat of {key!r:.80}: {error}")
            return
        self._listener.heard(partition, heartbeat)
