"""From the backlog to Kafka, in order.

A round is the first events of the backlog, one batch per partition, and the next round begins when
Kafka has acknowledged all of it. aiokafka by itself would go on with the second batch of a partition
when the first was refused, and the later events would make the ledger take the earlier ones for
duplicates. After any failure the producer is thrown away and what was not acknowledged is sent again
by a new one; what then is there twice is known by source and sequence.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

import aiokafka
import aiokafka.errors
import msgspec
from aiokafka.errors import KafkaError

from schemas.errors import StoplossError
from schemas.topics import Topic
from streams.client.backlog import Backlog
from streams.client.ending import end
from streams.client.spool import Item
from streams.kafka import producers
from streams.kafka.leftovers import pass_over_leftovers
from streams.kafka.settings import Settings, load_settings
from streams.kafka.topics import partition_for

log = logging.getLogger(__name__)

ROUND_COUNT_MAX = 1_000
# `events` takes 1 MiB and its header; a topic made by others with the broker's default takes less.
ROUND_BYTES_MAX = 512 * 1024
BATCH_BYTES_MAX = 2 * 1024 * 1024
assert ROUND_BYTES_MAX * 2 < BATCH_BYTES_MAX  # keys and record headers: a round always fits
# More than a broker's restart takes, so that a short one is survived by the same producer, whose
# repeated batches Kafka itself recognises.
ROUND_TIMEOUT_S = 20.0
CONNECT_TIMEOUT_S = 15.0
REQUEST_TIMEOUT_MS = 10_000
RETRY_BACKOFF_MS = 500
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.2, 5.0
# Events encoded or put into a batch before other threads are let in: about a millisecond of work.
SLICE_COUNT = 64
REFUSED_LOGGED_MAX = 10  # then they are only counted
PARTITIONS_CACHED_MAX = 10_000

REFUSED_RECORD = (
    aiokafka.errors.MessageSizeTooLargeError,
    aiokafka.errors.RecordListTooLargeError,
    aiokafka.errors.InvalidMessageError,
    aiokafka.errors.InvalidTimestampError,
)


class Producer(producers.Producer, Protocol):
    """What we use of aiokafka's producer."""

    async def partitions_for(self, topic: str) -> set[int]:
        """Return the ids of the topic's partitions; waits for the topic up to the request's time."""


class Counts(msgspec.Struct):
    """Events since the start: on Kafka, and refused by it for ever."""

    sent: int = 0
    refused: int = 0


class Delivery:
    """Sends the backlog, for ever, until it is cancelled. For the emitter's loop only.

    Args:
        settings: None reads them from the environment at each attempt to connect.
        on_done: called after events left the backlog.
    """

    def __init__(
        self,
        backlog: Backlog,
        settings: Settings | None,
        counts: Counts,
        *,
        on_done: Callable[[], None],
    ) -> None:
        self._counts = counts
        self._backlog = backlog
        self._settings = settings
        self._on_done = on_done
        self._more = asyncio.Event()
        self._producer: Producer | None = None
        self._partitions: dict[bytes, int] = {}
        self._partition_count = 0
        self._round: list[Item] = []
        self._acknowledged: set[int] = set()  # places in the round
        self._one_by_one = 0  # how many more events go alone: a batch of this size was refused
        self._down = False

    def wake(self) -> None:
        """There is something in the backlog."""
        self._more.set()

    async def run(self) -> None:
        """Connect, send, and after a failure wait, ever longer, and do it again."""
        backoff_s = BACKOFF_S_MIN
        while True:
            sent_before = self._counts.sent
            try:
                await self._connect_and_send()
            except Exception as error:  # noqa: BLE001 - whatever it is, events are kept and tried again
                self._said_down(error)
            backoff_s = BACKOFF_S_MIN if self._counts.sent > sent_before else backoff_s * 2
            await asyncio.sleep(min(backoff_s, BACKOFF_S_MAX))

    async def send_aside(self, topic: Topic, key: bytes, value: bytes) -> bool:
        """Send a record that may be lost; whether it arrived."""
        if self._producer is None or self._settings is None:
            return False
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
                await self._producer.send_and_wait(self._settings.topic(topic), value, key, None)
        except (KafkaError, TimeoutError) as error:
            log.debug("%s was not sent: %s", topic, error)
            return False
        return True

    async def _connect_and_send(self) -> None:
        if self._settings is None:
            self._settings = load_settings()
        tasks_before = asyncio.all_tasks()
        producer = _producer(self._settings)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await producer.start()
            self._producer = producer
            await self._send_on(producer)
        finally:
            self._producer = None
            await end(producer, tasks_before, at_once=True)

    async def _send_on(self, producer: Producer) -> None:
        assert self._settings is not None
        topic = self._settings.topic(Topic.EVENTS)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            count = len(await producer.partitions_for(topic))
        if count != self._partition_count:
            self._partition_count, self._partitions = count, {}
        while True:
            if not self._round:
                self._round = self._backlog.peek(ROUND_COUNT_MAX, ROUND_BYTES_MAX)
                self._acknowledged.clear()
            if self._round:
                await self._send_round(producer, topic)
                self._said_up()
            else:
                self._more.clear()
                await self._more.wait()

    async def _send_round(self, producer: Producer, topic: str) -> None:
        """Send what is not yet acknowledged of the round; removes it from the backlog at the end.

        Raises:
            KafkaError: not all was acknowledged; what was is remembered.
        """
        while left := [i for i in range(len(self._round)) if i not in self._acknowledged]:
            places = left[:1] if self._one_by_one else left
            try:
                await self._send_places(producer, topic, places)
            except REFUSED_RECORD as error:
                if len(places) == 1:
                    self._refuse(places[0], error)
                self._one_by_one = max(self._one_by_one, len(places))
                raise
            self._one_by_one = max(0, self._one_by_one - 1)
        count, self._round = len(self._round), []
        self._backlog.drop(count)
        self._on_done()

    async def _send_places(self, producer: Producer, topic: str, places: list[int]) -> None:
        by_partition: dict[int, list[int]] = {}
        for place in places:
            partition = self._partition_of(self._round[place].key)
            by_partition.setdefault(partition, []).append(place)
        async with asyncio.timeout(ROUND_TIMEOUT_S):
            waiting = [
                (await self._send_batch(producer, topic, partition, batch_places), batch_places)
                for partition, batch_places in by_partition.items()
            ]
            results = await asyncio.gather(
                *(future for future, _ in waiting), return_exceptions=True
            )
        for result, (_, batch_places) in zip(results, waiting, strict=True):
            if not isinstance(result, BaseException):
                self._acknowledged.update(batch_places)
                self._counts.sent += len(batch_places)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _send_batch(
        self, producer: Producer, topic: str, partition: int, places: list[int]
    ) -> Awaitable[object]:
        batch = producer.create_batch()
        for count, place in enumerate(places, start=1):
            item = self._round[place]
            appended = batch.append(timestamp=None, key=item.key, value=item.value)
            assert appended is not None, "a round is smaller than a batch may be"
            if count % SLICE_COUNT == 0:
                await asyncio.sleep(0)
        batch.close()
        return await producer.send_batch(batch, topic, partition=partition)

    def _partition_of(self, key: bytes) -> int:
        partition = self._partitions.get(key)
        if partition is None:
            if len(self._partitions) >= PARTITIONS_CACHED_MAX:
                self._partitions.clear()
            partition = self._partitions[key] = partition_for(key, self._partition_count)
        return partition

    def _refuse(self, place: int, error: Exception) -> None:
        item = self._round[place]
        self._acknowledged.add(place)
        self._counts.refused += 1
        if self._counts.refused <= REFUSED_LOGGED_MAX:
            log.error("Kafka will never take this event, dropped: %r: %.300r", error, item.value)

    def _said_down(self, error: Exception) -> None:
        if not self._down:
            self._down = True
            known = isinstance(error, (KafkaError, StoplossError, OSError))
            log.warning("events cannot be sent, they are kept: %r", error, exc_info=not known)

    def _said_up(self) -> None:
        if self._down:
            self._down = False
            log.warning("events are sent again")


def _producer(settings: Settings) -> Producer:
    arguments = settings.producer_kwargs("emitter") | {
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "max_batch_size": BATCH_BYTES_MAX,
        "retry_backoff_ms": RETRY_BACKOFF_MS,
    }
    pass_over_leftovers()
    return cast("Producer", aiokafka.AIOKafkaProducer(**arguments))
