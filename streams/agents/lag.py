"""How far an agent, or the delivery to a sink, has come in its sources; asked of the broker alone."""

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
NOBODY_THERE = frozenset({"Empty", "Dead"})  # states of a group


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

    async def behind(self, group: str, topics: Sequence[str]) -> int | None:
        """Return how many records wait in topics of one partition; None where the group never began.

        A partition in which it has not begun counts nothing.

        Args:
            group: without the prefix.
            topics: without the prefix.

        Raises:
            UnavailableError: Kafka does not answer.
        """
        prefix = self._settings.topic_prefix
        async with self._answering():
            committed = await self._admin.list_consumer_group_offsets(
                self._settings.group_id(group)
            )
            begun = [
                tp for topic in topics if (tp := TopicPartition(f"{prefix}{topic}", 0)) in committed
            ]
            if not begun:
                return None
            ends = await self._consumer.end_offsets(begun)
        waiting: list[int] = [max(ends[tp] - committed[tp].offset, 0) for tp in begun]
        return sum(waiting)

    async def groups(self, beginning: str) -> list[str]:
        """Return the groups that have members now and a name that begins so, without the prefix.

        Raises:
            UnavailableError: Kafka does not answer.
        """
        prefix = self._settings.topic_prefix
        async with self._answering():
            listed = await self._admin.list_consumer_groups()
            named = [name for name, _ in listed if name.startswith(f"{prefix}{beginning}")]
            # One at a time: aiokafka does not know the last field of a group in the answer, and takes
            # it for the beginning of the next group.
            found = [await self._admin.describe_consumer_groups([name]) for name in named]
        return sorted(
            name.removeprefix(prefix)
            for (answer,) in found
            for _, name, state, *_ in answer.groups
            if state not in NOBODY_THERE
        )

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
