"""Events out of the middle of their topic are gone: both drivers say so, and the ledger names them."""

from typing import get_args

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.topics import Topic, topic_config
from streams.kafka.drivers import connect_by
from streams.kafka.ports import Chunk, PartitionReader
from streams.kafka.reader import KafkaReader, start_client
from streams.kafka.settings import Driver
from tests.faults.broker import ProxiedBroker
from tests.faults.conftest import CALM
from tests.integration.kafka_world import World, eventually, make_world

pytestmark = [pytest.mark.integration, pytest.mark.faults]

TASK = "TASK-1"
# Somebody has had `events` compacted.
COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "50",
    "min.cleanable.dirty.ratio": "0.001",
    "max.compaction.lag.ms": "100",
}


async def chunks_of(reader: PartitionReader) -> list[Chunk]:
    """Read to the end of what is there; each chunk goes on where the last ended."""
    end, chunks = await reader.end_offset(), list[Chunk]()
    while not chunks or chunks[-1].next_offset < end:
        chunks += await reader.read()
    assert [chunk.offset for chunk in chunks] == [0, *[one.next_offset for one in chunks]][:-1]
    assert all(chunk.is_whole for chunk in chunks)
    return chunks


@pytest.mark.parametrize("driver", get_args(Driver))
async def test_events_out_of_the_middle_are_named_by_both_drivers(
    proxied: ProxiedBroker, topic_prefix: str, driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    world = await make_world(proxied.servers(CALM), topic_prefix, partitions=1, driver=driver)
    await configure(world)
    topic = world.settings.topic(Topic.EVENTS)
    client = await start_client(world.settings, [topic], "test")

    async def has_a_gap() -> bool:
        await world.send([world.usage(TASK, 1)])
        chunks = await chunks_of(KafkaReader(client, topic, 0))
        return sum(chunk.gone for chunk in chunks) > 0

    await eventually(has_a_gap)
    wanted = await chunks_of(KafkaReader(client, topic, 0))
    connection = await connect_by(world.settings)(0)
    found = await chunks_of(connection.reader(topic))
    await connection.close()
    await client.close()
    assert sum(chunk.gone for chunk in found) >= sum(chunk.gone for chunk in wanted) > 0
    async with world.ledger() as ledger:
        await eventually(lambda: _counts(world))
        assert not ledger.task.done()
    assert any("were deleted before they were folded" in line for line in caplog.messages)


async def _counts(world: World) -> bool:
    """Whether the last event of the task counts: what is left of them, the first ones are gone."""
    return 0 < (await world.used_tokens()).get(TASK, 0) < world.tokens[TASK]


async def configure(world: World) -> None:
    """Set how the broker keeps `events`."""
    admin = AIOKafkaAdminClient(**world.settings.admin_kwargs())
    await admin.start()
    try:
        name = world.settings.topic(Topic.EVENTS)
        config = topic_config(Topic.EVENTS) | COMPACTED
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, config)])
    finally:
        await admin.close()
