"""How far a processor has committed, seen from outside."""

from types import TracebackType
from typing import Protocol, Self

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from schemas.topics import Topic
from streams.kafka.settings import Settings


class Position(Protocol):
    """Connected while its block runs."""

    async def __aenter__(self) -> Self:
        """Connect."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect."""

    async def committed(self) -> int:
        """Return the sum of the next offsets of all partitions of `events`."""


class LedgerPosition:
    """The ledger's is part of the state that it commits.

    Args:
        from_end: what it had committed before is not looked at.
    """

    def __init__(self, settings: Settings, *, from_end: bool = False) -> None:
        topic = settings.topic(Topic.TASKS)
        self._partitions = [TopicPartition(topic, number) for number in range(settings.partitions)]
        self._from_end = from_end
        self._servers = settings.bootstrap_servers
        self._next: dict[int, int] = {}

    async def __aenter__(self) -> Self:
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._servers, isolation_level="read_committed"
        )
        await self._consumer.start()
        self._consumer.assign(self._partitions)
        if self._from_end:
            await self._consumer.seek_to_end()
        else:
            await self._consumer.seek_to_beginning()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._consumer.stop()

    async def committed(self) -> int:
        """See `Position.committed`; a partition counts from its first new commit."""
        return sum((await self.by_partition()).values())

    async def by_partition(self) -> dict[int, int]:
        """Return the next offset of each partition that has committed."""
        for records in (await self._consumer.getmany(timeout_ms=1)).values():
            for record in records:
                if record.key.startswith(b"partition/") and record.value:
                    self._next[record.partition] = _STATE.decode(record.value).data.next_offset
        return self._next


class GroupPosition:
    """A consumer group's, whose offsets its transactions commit."""

    def __init__(self, settings: Settings, group: str) -> None:
        self._topic, self._group = settings.topic(Topic.EVENTS), group
        self._admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)

    async def __aenter__(self) -> Self:
        await self._admin.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._admin.close()

    async def committed(self) -> int:
        """See `Position.committed`."""
        try:
            offsets = await self._admin.list_consumer_group_offsets(self._group)
        except GroupCoordinatorNotAvailableError:  # of a broker that never had a group
            return 0
        return sum(max(found.offset, 0) for tp, found in offsets.items() if tp.topic == self._topic)


class _Next(msgspec.Struct):
    next_offset: int


class _State(msgspec.Struct):
    data: _Next


_STATE = msgspec.json.Decoder(_State)
