"""`alerts` and `reports` to every sink, each at its own pace: one that is away holds back no other."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import aiohttp
import aiokafka.errors
import msgspec
from aiokafka import AIOKafkaConsumer
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from schemas.alerts import Alert
from schemas.envelope import Envelope
from schemas.reports import Report
from schemas.topics import DAY_MS, Topic
from streams.agents.delivery.send import Courier
from streams.agents.delivery.sinks import TOPICS, Sink
from streams.insight.notices import Notice, notice_of_alert, notice_of_completion
from streams.kafka.settings import Settings

log = logging.getLogger("stoploss.delivery")

# A sink that is new is told what happened lately, and not of all alerts of the last 90 days.
HISTORY_MS = 3_600_000
RECORDS_MAX = 100
STOP_WITHIN_S = 5.0
MEASURE_EVERY_S = 0.5
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0

AWAY = (aiokafka.errors.KafkaError, OSError)

_ALERT = msgspec.json.Decoder(Envelope[Alert])
_REPORT = msgspec.json.Decoder(Envelope[Report])


class Deliverer:
    """Follows the topics for one sink; its position is the group `{prefix}delivery-{sink}`'s."""

    def __init__(self, settings: Settings, courier: Courier) -> None:
        self.courier = courier
        self.lag = 0
        self._next: dict[Any, int] = {}  # by partition: what is not delivered yet begins there
        self._settings = settings
        self._topics = {settings.topic(topic): topic for topic in TOPICS}

    def __repr__(self) -> str:
        return f"<Deliverer {self.courier} lag={self.lag}>"

    async def run(self) -> None:
        """Deliver until cancelled; where Kafka is away, wait for it.

        Whatever else goes wrong is said, and it begins again: other sinks are not to suffer for it.
        """
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(Exception),
            wait=wait_random_exponential(FIRST_WAIT_S, LONGEST_WAIT_S),
            before_sleep=self._say_failed,
            reraise=True,
        ):
            with attempt:
                async with self._consumer() as consumer:
                    measuring = asyncio.ensure_future(self._measure(consumer))
                    try:
                        await self._follow(consumer)
                    finally:
                        measuring.cancel()
                        await asyncio.gather(measuring, return_exceptions=True)

    def _say_failed(self, state: RetryCallState) -> None:
        error = None if state.outcome is None else state.outcome.exception()
        if not isinstance(error, AWAY):
            log.error("delivery: %s: begins again", self.courier.sink.name, exc_info=error)

    @contextlib.asynccontextmanager
    async def _consumer(self) -> AsyncIterator[Any]:
        group = self.courier.sink.group
        consumer = AIOKafkaConsumer(
            **self._settings.consumer_kwargs(group),
            **self._settings.group_kwargs(),
            group_id=self._settings.group_id(group),
            # While its sink is away nothing is asked for, and yet the partition stays ours.
            max_poll_interval_ms=DAY_MS,
        )
        consumer.subscribe(list(self._topics))
        await consumer.start()
        try:
            yield consumer
        finally:
            with contextlib.suppress(TimeoutError, aiokafka.errors.KafkaError):
                async with asyncio.timeout(STOP_WITHIN_S):
                    await consumer.stop()

    async def _follow(self, consumer: Any) -> None:  # noqa: ANN401 - aiokafka has no types
        begun: set[Any] = set()
        self._next.clear()
        while True:
            for partition in consumer.assignment() - begun:
                await self._begin(consumer, partition)
                begun.add(partition)
                self._next[partition] = await consumer.position(partition)
            begun &= consumer.assignment()
            for partition in self._next.keys() - begun:
                del self._next[partition]
            found = await consumer.getmany(timeout_ms=500, max_records=RECORDS_MAX)
            for partition, records in found.items():
                if partition not in begun:
                    consumer.seek(partition, records[0].offset)  # it has just become ours
                    continue
                for record in records:
                    await self._deliver(record)
                    await consumer.commit({partition: record.offset + 1})
                    self._next[partition] = record.offset + 1
            for partition in begun & consumer.assignment():
                self._next[partition] = await consumer.position(partition)

    async def _begin(self, consumer: Any, partition: Any) -> None:  # noqa: ANN401 - aiokafka has no types
        """Go on where this sink was; the first time, with what happened lately.

        Where it begins is kept at once: a sink that takes nothing at first is told later on what it was
        to be told now, and how far it is behind can be seen.
        """
        if await consumer.committed(partition) is not None:
            return
        since_ms = time.time_ns() // 1_000_000 - HISTORY_MS
        # Asked for first: what comes meanwhile is after it, and neither is passed over.
        end = (await consumer.end_offsets([partition]))[partition]
        found = (await consumer.offsets_for_times({partition: since_ms}))[partition]
        first = end if found is None else found.offset
        consumer.seek(partition, first)
        await consumer.commit({partition: first})

    async def _deliver(self, record: Any) -> None:  # noqa: ANN401 - aiokafka has no types
        if record.value is None:
            return
        try:
            notice = self._notice(record)
        except Exception as error:  # noqa: BLE001 - of one record, which must not hold up the others
            self.courier.refuse(f"{record.topic} offset {record.offset} cannot be read: {error!r}")
            return
        if notice is not None:
            await self.courier.send(notice)

    def _notice(self, record: Any) -> Notice | None:  # noqa: ANN401 - aiokafka has no types
        if self._topics[record.topic] is Topic.ALERTS:
            return notice_of_alert(_ALERT.decode(record.value))
        return notice_of_completion(_REPORT.decode(record.value))

    async def _measure(self, consumer: Any) -> None:  # noqa: ANN401 - aiokafka has no types
        """Ask again and again how much there is: while the sink is away nothing else does."""
        while True:
            await asyncio.sleep(MEASURE_EVERY_S)
            with contextlib.suppress(*AWAY, TimeoutError):
                behind = dict(self._next)
                ends = await consumer.end_offsets(list(behind))
                self.lag = sum(max(ends[each] - behind[each], 0) for each in behind)


async def deliver(
    settings: Settings,
    sinks: Sequence[Sink],
    tell: Callable[[Sequence[Deliverer]], None] | None = None,
) -> None:
    """Deliver to all sinks until cancelled.

    Args:
        settings: where Kafka is.
        sinks: each has its own position in the topics.
        tell: is given who delivers to each of them, again and again.
    """
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
        deliverers = [Deliverer(settings, Courier(sink, http)) for sink in sinks]
        for each in deliverers:
            log.info("delivery: to %s (%s)", each.courier.sink.name, each.courier.sink.kind)
            group.create_task(each.run())
        while tell is not None:
            tell(deliverers)
            await asyncio.sleep(MEASURE_EVERY_S)
