"""Single records outside of any transaction: ticks, the built-in policy, heartbeats."""

import asyncio

import aiokafka.errors

from schemas.errors import UnavailableError
from streams.kafka.ports import Record
from streams.kafka.producers import Producer, discard, idempotent_producer
from streams.kafka.settings import Settings

APPEND_WITHIN_S = 5.0


class Appender:
    """One idempotent producer for a whole process, made when it is needed, and anew after trouble."""

    def __init__(self, settings: Settings, role: str) -> None:
        self._settings = settings
        self._role = role
        self._producer: Producer | None = None
        self._starting = asyncio.Lock()

    async def append(self, record: Record) -> None:
        """Deliver one record.

        Raises:
            UnavailableError: not delivered in `APPEND_WITHIN_S`; it will not arrive later either,
                unless it is on its way already.
        """
        producer = None
        try:
            async with asyncio.timeout(APPEND_WITHIN_S):
                producer = await self._started()
                await producer.send_and_wait(
                    record.topic, record.value, record.key, record.partition
                )
        except (aiokafka.errors.KafkaError, OSError, TimeoutError) as error:
            if producer is not None and producer is self._producer:
                await self.close()
            raise UnavailableError(f"{record.topic}: {error!r}") from error

    async def close(self) -> None:
        """Let go of the producer; the next `append` makes another."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await discard(producer)

    async def _started(self) -> Producer:
        async with self._starting:
            if self._producer is None:
                producer = idempotent_producer(self._settings, self._role)
                try:
                    await producer.start()
                except BaseException:
                    await discard(producer)
                    raise
                self._producer = producer
            return self._producer
