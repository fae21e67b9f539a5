"""How far an agent has come in its sources, asked of the broker alone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiokafka.errors
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from schemas.errors import UnavailableError
from streams.agents.watchdog import Place, Standing
from streams.kafka.leftovers import pass_over_leftovers
from streams.kafka.settings import Settings

# aiokafka tries again by itself for longer than a worker may stand still.
ANSWER_WITHIN_S = 10.0


class Standings:
    """Asks where groups stand; good as long as Kafka answers."""

    def __init__(self, settings: Settings, consumer: Any, admin: Any) -> None:  # noqa: ANN401 - aiokafka has no types
        self._settings, self._consumer, self._admin = settings, consumer, admin

    def __repr__(self) -> str:
        return f"<Standings {self._settings.bootstrap_servers}>"

    async def has_begun(self, group: str) -> bool:
        """Whether a group has ever come anywhere.

        Args:
            group: without the prefix.

        Raises:
            UnavailableError: Kafka does not answer.
        """
        async with self._answering():
            return bool(
                await self._admin.list_consumer_group_offsets(self._settings.group_id(group))
            )

    async def of(self, group: str, sources: Sequence[tuple[str, int]]) -> dict[Place, Standing]:
        """Return where a group stands in topics, each given with its number of partitions.

        Args:
            group: without the prefix.
            sources: the topics, without the prefix.

        Raises:
            UnavailableError: Kafka does not answer.
        """
        prefix = self._settings.topic_prefix
        tps = {
            TopicPartition(f"{prefix}{topic}", partition): (topic, partition)
            for topic, count in sources
            for partition in range(count)
        }
        # In this order: what comes meanwhile is not taken for what was overtaken.
        async with self._answering():
            ends = await self._consumer.end_offsets(list(tps))
            firsts = await self._consumer.beginning_offsets(list(tps))
            committed = await self._admin.list_consumer_group_offsets(
                self._settings.group_id(group)
            )
        return {
            place: Standing(
                max(committed[tp].offset if tp in committed else 0, firsts[tp]), ends[tp]
            )
            for tp, place in tps.items()
        }

    @contextlib.asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                yield
        except (aiokafka.errors.KafkaError, OSError, TimeoutError) as error:
            raise UnavailableError(
                f"Kafka at {self._settings.bootstrap_servers}: {error!r}"
            ) from error


@contextlib.asynccontextmanager
async def opened(settings: Settings, role: str = "agents-lag") -> AsyncIterator[Standings]:
    """Connect.

    Raises:
        UnavailableError: no broker answers.
    """
    pass_over_leftovers()
    consumer = AIOKafkaConsumer(**settings.consumer_kwargs(role))
    admin = AIOKafkaAdminClient(**settings.admin_kwargs(role))
    try:
        try:
            await consumer.start()
            await admin.start()
        except (aiokafka.errors.KafkaError, OSError, TimeoutError) as error:
            raise UnavailableError(f"Kafka at {settings.bootstrap_servers}: {error!r}") from error
        yield Standings(settings, consumer, admin)
    finally:
        await consumer.stop()
        await admin.close()
