"""The group's offsets are for lag tools: whatever an operator does with them, nothing changes."""

from collections.abc import Awaitable, Callable

import aiokafka
import pytest
from aiokafka.protocol.admin import DeleteGroupsRequest
from aiokafka.structs import TopicPartition

from schemas.topics import Topic
from streams.kafka.reader import start_client
from tests.integration.kafka_world import World, make_world

pytestmark = [pytest.mark.integration, pytest.mark.faults]

TASKS = [f"TASK-{number}" for number in range(12)]


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> World:
    return await make_world(bootstrap_servers, topic_prefix)


async def set_offsets(world: World, offset: int) -> None:
    """Commit an offset for each partition, as a member of nothing; the group must be empty."""
    topic = world.settings.topic(Topic.EVENTS)
    tps = [TopicPartition(topic, number) for number in range(world.settings.partitions)]
    async with aiokafka.AIOKafkaConsumer(
        **world.settings.consumer_kwargs(), group_id=world.settings.group_id()
    ) as consumer:
        consumer.assign(tps)
        await consumer.commit(dict.fromkeys(tps, offset))
        assert {await consumer.committed(tp) for tp in tps} == {offset}


async def set_back(world: World) -> None:
    await set_offsets(world, 0)


async def set_forward(world: World) -> None:
    await set_offsets(world, 1_000_000)


async def delete(world: World) -> None:
    """Delete the group, and its offsets with it."""
    client = await start_client(world.settings, [], "operator")
    try:
        node = client.cluster.brokers().pop().nodeId
        group = world.settings.group_id()
        response = await client.send(node, DeleteGroupsRequest([group]))
        assert [(name, code) for name, code in response.results] == [(group, 0)]
    finally:
        await client.close()


@pytest.mark.parametrize("change", [set_back, set_forward, delete])
async def test_an_operator_who_changes_the_offsets_changes_nothing(
    world: World, change: Callable[[World], Awaitable[None]]
) -> None:
    async with world.ledger():
        await world.send([world.usage(task, 300) for _ in range(20) for task in TASKS])
        await world.until_folded()
    before = await world.read(Topic.BREACHES)
    await change(world)
    async with world.ledger():
        await world.send([world.usage(task, 1) for task in TASKS])
        await world.until_folded()
    assert await world.read(Topic.BREACHES) == before
    await world.assert_verified()
