"""Whatever happens to a ledger: each event counts once, and what it caused is there once."""

import asyncio
import itertools
from collections import Counter

import pytest

from schemas.topics import Topic
from streams.kafka.session import KafkaWriter
from streams.kafka.settings import Driver
from streams.ledger.health import Health
from streams.local.broker import KafkaBroker
from tests.integration.kafka_world import RunningLedger, World, eventually, make_world
from tests.integration.recorded_log import remove_first_events

pytestmark = pytest.mark.integration
TASKS = [f"TASK-{number}" for number in range(24)]


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str, driver: Driver) -> World:
    return await make_world(bootstrap_servers, topic_prefix, partitions=4, driver=driver)


async def send_some(world: World, rounds: int) -> None:
    """Send `rounds` usage events of every task; together they pass every level."""
    await world.send([world.usage(task, 300) for _ in range(rounds) for task in TASKS])


async def judge(world: World) -> None:
    """Hold what came out against what was sent; everything of it stands there once."""
    assert await world.used_tokens() == world.tokens
    for topic in (Topic.DECISIONS, Topic.BREACHES, Topic.LIFECYCLE):
        ids = Counter(seen.id for seen in await world.read(topic))
        assert [one for one, count in ids.items() if count > 1] == []
    numbers: dict[str, list[int]] = {}
    for seen in await world.read(Topic.DECISIONS):
        numbers.setdefault(seen.key, []).append(seen.data["number"])
    assert set(numbers) == set(TASKS)
    for found in numbers.values():
        assert found == list(range(1, len(found) + 1))
    breaches = Counter(
        (seen.key, str(seen.data["cell"]), seen.data["level"])
        for seen in await world.read(Topic.BREACHES)
    )
    assert set(breaches.values()) == {1}
    await world.assert_verified()


async def test_a_restart_in_the_middle_goes_on_where_the_state_stands(world: World) -> None:
    await send_some(world, 20)
    async with world.ledger() as first:
        await world.until_folded()
        await first.leave()
    await send_some(world, 20)
    async with world.ledger():
        await send_some(world, 20)
        await world.until_folded()
    await judge(world)


async def test_a_crash_in_the_middle_loses_and_repeats_nothing(world: World) -> None:
    for _ in range(3):
        await send_some(world, 10)
        async with world.ledger() as crashing:
            await eventually(lambda: _something_new(world, 10))
            await crashing.crash()
    async with world.ledger():
        await world.until_folded()
    await judge(world)


async def test_two_ledgers_share_the_partitions_and_one_may_leave(world: World) -> None:
    async with world.ledger() as first:
        await send_some(world, 10)
        async with world.ledger() as second:
            await send_some(world, 10)
            await eventually(lambda: _shared(first, second))
            await send_some(world, 10)
            await world.until_folded()
            await second.leave()
        await send_some(world, 10)
        await world.until_folded()
    await judge(world)


async def test_a_ledger_that_was_fenced_drops_the_partition_and_takes_it_again(
    world: World,
) -> None:
    async with world.ledger():
        await send_some(world, 10)
        await world.until_folded()
        # Of the first driver whatever the ledger's is: they share the transactional id.
        usurper = KafkaWriter(world.settings, world.partition(TASKS[0]))
        await usurper.fence()
        await usurper.close()
        await send_some(world, 10)
        await world.until_folded()
    await judge(world)


async def test_a_ledger_waits_for_a_broker_that_is_away(
    tmp_path_factory: pytest.TempPathFactory, topic_prefix: str, driver: Driver
) -> None:
    broker = KafkaBroker(tmp_path_factory.mktemp("away"))
    async with broker:
        world = await make_world(
            broker.bootstrap_servers, topic_prefix, partitions=4, driver=driver
        )
        await send_some(world, 10)
    async with world.ledger() as ledger:
        await eventually(lambda: _is(ledger.health.state is Health.WAITING_FOR_KAFKA))
        await broker.start()
        await world.until_folded()
        await eventually(lambda: _is(ledger.health.state is Health.RUNNING))
        await broker.kill()
        await eventually(lambda: _is(ledger.health.state is Health.WAITING_FOR_KAFKA))
        await broker.start()
        await send_some(world, 10)
        await world.until_folded()
        await eventually(lambda: _is(ledger.health.state is Health.RUNNING))
        await judge(world)
        await broker.stop()
        await eventually(lambda: _is(ledger.health.state is Health.WAITING_FOR_KAFKA))
        async with asyncio.timeout(world.settings.stop_deadline_ms / 1000 + 10):
            await ledger.leave()  # also without a broker
    assert ledger.health.state is Health.STOPPING


async def _something_new(world: World, rounds: int) -> bool:
    """Whether a crash now would be in the middle: something is folded of what was sent."""
    used = sum((await world.used_tokens()).values())
    return used > sum(world.tokens.values()) - rounds * 300 * len(TASKS)


async def _shared(*ledgers: RunningLedger) -> bool:
    """Whether each has a part, and together they have everything."""
    parts = [ledger.metrics.partitions for ledger in ledgers]
    return all(parts) and sorted(itertools.chain(*parts)) == [0, 1, 2, 3]


async def _is(condition: bool) -> bool:  # noqa: FBT001
    return condition


async def test_events_that_are_deleted_before_they_are_folded_are_named_and_the_next_ones_count(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    task = TASKS[0]
    partition = world.partition(task)
    async with world.ledger() as first:
        await world.send([world.usage(task, 1)])
        await world.until_folded()
        await first.leave()
    await world.send([world.usage(task, 10), world.usage(task, 10), world.usage(task, 100)])
    events = [seen.offset for seen in await world.read(Topic.EVENTS) if seen.partition == partition]
    await remove_first_events(world.settings, {partition: events[-1]})

    async def is_counted() -> bool:
        return (await world.used_tokens())[task] == 1 + 100

    async with world.ledger():
        await eventually(is_counted)
    (said,) = [line for line in caplog.messages if "were deleted before they were folded" in line]
    assert said.startswith(f"ledger: partition {partition}: ")
    assert f" to {events[-1] - 1} were deleted" in said
