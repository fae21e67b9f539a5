"""A store and its readers on a real Redis, and records brought there as the view does, without Kafka."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.topics import Topic
from streams.view.changes import Command
from streams.view.digest import Digest
from streams.view.keys import Keys
from streams.view.queries import Queries
from streams.view.store import Standing, Store, redis_client
from tests.integration.view_world import now_ms
from tests.unit.view.records import Kept

CLUSTER = "kafka-of-this-test"
Piece = Sequence[tuple[Topic, Kept]]


@dataclass
class Shelf:
    """What a view writes with, what people read with, and Redis itself."""

    store: Store
    queries: Queries
    redis: Any
    standing: Standing
    offset: int = 0

    @property
    def keys(self) -> Keys:
        return self.store.keys

    async def begin(self, wanted: str | None = None) -> None:
        """Go on as a view does after a failure."""
        self.standing = await self.store.begin(CLUSTER, now_ms(), wanted)
        self.offset = self.standing.positions.get("executions/0", 0)

    async def write(self, *commands: Command) -> None:
        """Do commands as a piece of one record."""
        keys, end = self.keys, self.offset + 1
        told = {
            keys.positions: {"executions/0": str(end)},
            keys.progress: {"executions/0": f"{end} {now_ms()}"},
            keys.meta: {"at_ms": str(now_ms())},
        }
        await self.store.apply(self.standing.fence, commands, told)
        self.offset = end

    async def show(self, piece: Piece) -> None:
        """Bring a piece of the topics to Redis, all of which can be read."""
        digest = Digest(self.keys)
        for topic, record in piece:
            digest.take(topic, 0, [record])
        wanted = digest.wanted()
        found = dict(zip(wanted, await self.store.look_up(wanted), strict=True))
        commands = [*digest.changes(found).commands()]
        assert not digest.unreadable
        await self.write(*commands)


@contextlib.asynccontextmanager
async def shelf(url: str, prefix: str) -> AsyncIterator[Shelf]:
    """Give the keys of a system that has nothing yet."""
    store, queries, redis = (
        Store(url, Keys(prefix)),
        Queries(url, prefix, now_ms),
        redis_client(url),
    )
    try:
        standing = await store.begin(CLUSTER, now_ms())
        yield Shelf(store, queries, redis, standing)
    finally:
        for each in (store.close(), queries.close(), redis.aclose()):
            await each
