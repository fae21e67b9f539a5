"""Events on their way to Kafka in order: what importing and the demo share."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiokafka.errors
from aiokafka import AIOKafkaProducer

from schemas.encode import encode_event
from schemas.errors import UnavailableError
from schemas.events import Event
from schemas.topics import Topic
from streams.kafka.producers import discard
from streams.kafka.settings import Settings

# Deliveries awaited together: bounds the memory, and is large enough that Kafka is never idle.
WINDOW = 2_000
LINGER_MS = 5
GIVE_UP_WITHIN_S = 2.0
BATCH_BYTES = 256 * 1024


class Publisher:
    """Sends events in the order given; a task family's to its partition."""

    def __init__(self, settings: Settings, producer: Any) -> None:  # noqa: ANN401 - aiokafka has no types
        self._topic = settings.topic(Topic.EVENTS)
        self._producer = producer
        self._waiting: list[asyncio.Future[Any]] = []
        self.sent = 0
        self.ends: dict[int, int] = {}  # by partition: the offset after the last event of ours

    async def send(self, event: Event) -> None:
        """Queue one event; now and then wait until Kafka has those before it."""
        root = event.partitionkey or event.subject
        self._waiting.append(
            await self._producer.send(self._topic, encode_event(event), key=root.encode())
        )
        if len(self._waiting) >= WINDOW:
            await self.flush()

    async def flush(self) -> None:
        """Wait until Kafka has every event."""
        for delivered in await asyncio.gather(*self._waiting):
            end = delivered.offset + 1
            self.ends[delivered.partition] = max(end, self.ends.get(delivered.partition, 0))
        self.sent += len(self._waiting)
        self._waiting.clear()

    async def give_up(self) -> None:
        """Deliver what is on its way, if that goes fast; ask what became of each in any case."""
        try:
            async with asyncio.timeout(GIVE_UP_WITHIN_S):
                await self._producer.stop()
        except (aiokafka.errors.KafkaError, OSError, TimeoutError):
            await discard(self._producer)
        await asyncio.gather(*self._waiting, return_exceptions=True)  # else asyncio complains


@contextlib.asynccontextmanager
async def publisher(settings: Settings, role: str) -> AsyncIterator[Publisher]:
    """Give a publisher; when the block ends without an error, Kafka has everything.

    Raises:
        UnavailableError: Kafka does not take an event; those before it are there.
    """
    producer = AIOKafkaProducer(
        **settings.producer_kwargs(role),
        compression_type="lz4",
        linger_ms=LINGER_MS,
        max_batch_size=BATCH_BYTES,
    )
    made = Publisher(settings, producer)
    try:
        await producer.start()
        yield made
        await made.flush()
        await producer.stop()
    except (aiokafka.errors.KafkaError, TimeoutError) as error:
        await made.give_up()
        raise UnavailableError(f"Kafka at {settings.bootstrap_servers}: {error!r}") from error
    except BaseException:
        await made.give_up()
        raise
