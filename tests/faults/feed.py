"""Brings what was said to `events`: every record at least once, and none overtakes an earlier one."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiokafka
import aiokafka.errors

from schemas.topics import Topic
from streams.kafka.producers import discard
from streams.kafka.settings import Settings
from streams.kafka.topics import partition_for
from tests.faults.load import Load, Said

# With the skew of a few families, one partition's part stays below what `events` takes at once.
ROUND_RECORDS_MAX = 1_200
ROUND_EVERY_S = 0.1
BATCH_BYTES_MAX = 1024 * 1024
AGAIN_AFTER_S = 0.2

OnAppended = Callable[[int, int, int], None]


class Feed:
    """One idempotent producer, made anew after trouble, in rounds of one batch per partition.

    What of a round was not acknowledged is sent again before anything later: that it may be there
    twice is the point.
    """

    def __init__(self, settings: Settings, on_appended: OnAppended) -> None:
        """Make.

        Args:
            settings: name the proxy to go through.
            on_appended: told partition, first offset and append time (ms) of what is acknowledged.
        """
        self._settings = settings
        self._topic = settings.topic(Topic.EVENTS)
        self._on_appended = on_appended
        self._producer: Any = None
        self._partitions: dict[bytes, int] = {}
        self.sent = 0
        self.failures = 0

    async def run(self, load: Load, rate_per_s: float, until: asyncio.Event) -> None:
        """Send at a mean rate until told; what an outage held up is caught up with."""
        clock = asyncio.get_running_loop().time
        started_s = clock()
        before = self.sent
        while not until.is_set():
            due = int((clock() - started_s) * rate_per_s) - (self.sent - before)
            if due > 0:
                await self.deliver(load.take(min(due, ROUND_RECORDS_MAX)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROUND_EVERY_S):
                    await until.wait()

    async def finish(self, load: Load) -> None:
        """Send what is still to be said."""
        waiting: list[Said] = []
        for some in load.rest():
            waiting += some
            while len(waiting) > ROUND_RECORDS_MAX:
                await self.deliver(waiting[:ROUND_RECORDS_MAX])
                del waiting[:ROUND_RECORDS_MAX]
        await self.deliver(waiting)

    async def deliver(self, round_: Sequence[Said]) -> None:
        """Send until all is acknowledged, however long that takes."""
        left: dict[int, list[Said]] = {}
        for said in round_:
            left.setdefault(self._partition_of(said.key), []).append(said)
        while left:
            try:
                await self._send(left)
            except (aiokafka.errors.KafkaError, OSError, TimeoutError):
                self.failures += 1
                await self.close()
                await asyncio.sleep(AGAIN_AFTER_S)
        self.sent += len(round_)

    async def close(self) -> None:
        """Let go of the producer."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await discard(producer)

    def _partition_of(self, key: bytes) -> int:
        partition = self._partitions.get(key)
        if partition is None:
            if len(self._partitions) >= 10_000:
                self._partitions.clear()
            partition = self._partitions[key] = partition_for(key, self._settings.partitions)
        return partition

    async def _send(self, left: dict[int, list[Said]]) -> None:
        """Send one batch of each partition; removes from `left` what is acknowledged.

        Raises:
            KafkaError: not all is.
        """
        producer = await self._started()
        async with asyncio.timeout(2 * self._settings.request_timeout_ms / 1000):
            waiting: list[tuple[int, Awaitable[Any]]] = []
            for partition, some in left.items():
                batch = producer.create_batch()
                for said in some:
                    added = batch.append(
                        timestamp=None, key=said.key, value=said.value, headers=list(said.headers)
                    )
                    assert added is not None, "a round is smaller than a batch may be"
                batch.close()
                delivery = await producer.send_batch(batch, self._topic, partition=partition)
                waiting.append((partition, delivery))
            answers = await asyncio.gather(*(one for _, one in waiting), return_exceptions=True)
        failed: BaseException | None = None
        for (partition, _), answer in zip(waiting, answers, strict=True):
            if isinstance(answer, BaseException):
                failed = failed or answer
            else:
                del left[partition]
                # A batch that Kafka knew again has no offset.
                if answer.offset >= 0 and answer.timestamp > 0:
                    self._on_appended(partition, answer.offset, answer.timestamp)
        if failed is not None:
            raise failed

    async def _started(self) -> Any:  # noqa: ANN401 - aiokafka has no types
        if self._producer is None:
            producer = aiokafka.AIOKafkaProducer(
                **self._settings.producer_kwargs("feed") | {"max_batch_size": BATCH_BYTES_MAX}
            )
            try:
                async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                    await producer.start()
            except BaseException:
                await discard(producer)
                raise
            self._producer = producer
        return self._producer
