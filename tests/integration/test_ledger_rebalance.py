"""The group shares out anew: what a ledger keeps goes on meanwhile, and what it gives away moves once."""

import asyncio
import contextlib
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable

import pytest
from aiokafka import ConsumerRebalanceListener
from aiokafka.structs import TopicPartition
from msgspec.structs import replace

from schemas.topics import Topic
from streams.kafka.ports import Record
from streams.kafka.session import KafkaWriter
from streams.kafka.settings import Driver, Settings
from streams.ledger.assignment import group_consumer
from tests.integration.kafka_world import RunningLedger, World, eventually, make_world

pytestmark = pytest.mark.integration
# Longer than a test: no member is left behind because it takes its time.
REBALANCE_TIMEOUT_MS = 15_000
GIVEN_UP_AFTER_MS = 1_000
UNDECIDED = "the group decides anew; goes on with partitions"
OWNS = "owns partitions"
RESTORED = re.compile(r"partition (\d+): \d+ tasks restored")


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str, driver: Driver) -> World:
    return await make_world(bootstrap_servers, topic_prefix, partitions=4, driver=driver)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "stoploss.ledger")
    return caplog


class Member(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """A member of the ledgers' group that folds nothing, and comes to a rebalance when it likes."""

    def __init__(self) -> None:
        self.has_joined = asyncio.Event()
        self.is_awaited = asyncio.Event()
        self.may_come = asyncio.Event()

    async def on_partitions_revoked(self, _revoked: Iterable[TopicPartition]) -> None:
        if self.has_joined.is_set():
            self.is_awaited.set()
            await self.may_come.wait()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        assert list(assigned) == [], "it would stand still"
        self.has_joined.set()

    @contextlib.asynccontextmanager
    async def taking_part(self, settings: Settings) -> AsyncIterator[None]:
        """Be a member during the block."""
        consumer = group_consumer(settings, dict)
        await consumer.start()
        try:
            consumer.subscribe([settings.topic(Topic.EVENTS)], listener=self)
            yield
        finally:
            self.may_come.set()
            await consumer.stop()


class Claimant(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """A member that folds nothing, and says that it has come to `offset` in what it was given."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self.owned: list[int] = []
        self.told = 0  # how often
        self.may_come = asyncio.Event()
        self.may_come.set()

    async def on_partitions_revoked(self, _revoked: Iterable[TopicPartition]) -> None:
        await self.may_come.wait()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.owned = [tp.partition for tp in assigned]
        self.told += 1

    @contextlib.asynccontextmanager
    async def taking_part(self, settings: Settings) -> AsyncIterator[None]:
        """Be a member during the block."""
        consumer = group_consumer(settings, lambda: dict.fromkeys(self.owned, self._offset))
        await consumer.start()
        try:
            consumer.subscribe([settings.topic(Topic.EVENTS)], listener=self)
            yield
        finally:
            self.may_come.set()
            await consumer.stop()


@contextlib.asynccontextmanager
async def undecided(world: World, said: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Have the group wait for a member during the block; the only ledger has come already."""
    late, third = Member(), Member()
    async with late.taking_part(world.settings):
        await late.has_joined.wait()
        before = said.text.count(UNDECIDED)
        async with third.taking_part(world.settings):
            await late.is_awaited.wait()
            await eventually(lambda: _is(said.text.count(UNDECIDED) > before))
            owned = said.text.count(OWNS)
            yield
            assert said.text.count(OWNS) == owned, "the group has decided too early"
            late.may_come.set()
            await third.has_joined.wait()


async def one_partition(bootstrap_servers: str, topic_prefix: str, driver: Driver) -> World:
    world = await make_world(bootstrap_servers, topic_prefix, partitions=1, driver=driver)
    return World(replace(world.settings, rebalance_timeout_ms=REBALANCE_TIMEOUT_MS))


async def test_a_ledger_decides_on_while_the_group_is_undecided(
    bootstrap_servers: str, topic_prefix: str, driver: Driver, said: pytest.LogCaptureFixture
) -> None:
    world = await one_partition(bootstrap_servers, topic_prefix, driver)
    async with world.ledger():
        await world.send([world.usage("TASK-1", 300)])
        await world.until_folded()
        async with undecided(world, said):
            await world.send([world.usage("TASK-1", 300)])
            await world.until_folded()
        await world.send([world.usage("TASK-1", 300)])
        await world.until_folded()
    assert restored(said) == {0: 1}
    await world.assert_verified()


async def test_who_is_fenced_while_the_group_is_undecided_fences_nobody_before_it_has_decided(
    bootstrap_servers: str, topic_prefix: str, driver: Driver, said: pytest.LogCaptureFixture
) -> None:
    world = await one_partition(bootstrap_servers, topic_prefix, driver)
    async with world.ledger():
        await world.send([world.usage("TASK-1", 300)])
        await world.until_folded()
        async with undecided(world, said):
            # Of the first driver whatever the ledger's is: they share the transactional id.
            usurper = KafkaWriter(world.settings, 0)
            await usurper.fence()
            await world.send([world.usage("TASK-1", 300)])
            await eventually(lambda: _is("waits for the group to decide" in said.text))
            batch = usurper.batch()
            batch.produce(Record(world.settings.topic(Topic.HEALTH), 0, b"usurper", b"{}"))
            await batch.commit()
            await usurper.close()
        await world.until_folded()
    assert restored(said) == {0: 2}
    await world.assert_verified()


async def test_a_partition_is_restored_where_it_comes_to_and_nowhere_else(
    world: World, said: pytest.LogCaptureFixture
) -> None:
    async with world.ledger() as first:
        await eventually(lambda: _owns(first, 4))
        async with world.ledger() as second:
            await eventually(lambda: _owns(second, 2))
            await eventually(lambda: _owns(first, 2))
            moved = set(second.metrics.partitions)
            await world.send([world.usage(world.task_in(number), 300) for number in range(4)])
            await world.until_folded()
            await second.leave()
        await eventually(lambda: _owns(first, 4))
        await world.send([world.usage(world.task_in(number), 300) for number in range(4)])
        await world.until_folded()
    assert restored(said) == {number: 3 if number in moved else 1 for number in range(4)}
    await world.assert_verified()


async def test_a_zombie_that_wakes_leaves_a_partition_to_the_owner_that_it_lost_it_to(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    world = await make_world(bootstrap_servers, topic_prefix, partitions=1)
    settings = replace(world.settings, rebalance_timeout_ms=GIVEN_UP_AFTER_MS)
    zombie, heir = Claimant(900), Claimant(0)  # who restores has come nowhere yet
    async with zombie.taking_part(settings):
        await eventually(lambda: _is(zombie.owned == [0]))
        zombie.may_come.clear()
        async with heir.taking_part(settings):
            await eventually(lambda: _is(heir.owned == [0]))
            zombie.may_come.set()
            await eventually(lambda: _is(zombie.told == heir.told == 2))
            assert (zombie.owned, heir.owned) == ([], [0])


def restored(said: pytest.LogCaptureFixture) -> dict[int, int]:
    """Return how often each partition was restored, by whichever ledger."""
    return dict(Counter(int(number) for number in RESTORED.findall(said.text)))


async def _owns(ledger: RunningLedger, count: int) -> bool:
    return len(ledger.metrics.partitions) == count


async def _is(condition: bool) -> bool:  # noqa: FBT001
    return condition
