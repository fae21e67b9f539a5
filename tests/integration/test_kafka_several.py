"""Many partitions by one request: the same records as one by one, committed ones only."""

import aiokafka
import pytest
from aiokafka.structs import TopicPartition

from schemas.errors import UnavailableError
from schemas.topics import Topic
from streams.kafka.reader import KafkaReader, start_client
from streams.kafka.several import SeveralReader, by_leader, cluster_id
from tests.integration.kafka_world import World, eventually, make_world

pytestmark = pytest.mark.integration

PARTITIONS = 3
TOPICS = (Topic.BREACHES, Topic.EXECUTIONS)


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> World:
    return await make_world(bootstrap_servers, topic_prefix, PARTITIONS)


async def write(world: World, *, commit: bool) -> None:
    """Write some records to every partition, in one transaction."""
    settings = world.settings
    producer = aiokafka.AIOKafkaProducer(
        **settings.producer_kwargs(), transactional_id=f"{settings.topic_prefix}test"
    )
    async with producer:
        await producer.begin_transaction()
        for topic in TOPICS:
            for partition in range(PARTITIONS):
                for number in range(5 + partition):
                    value = f"{topic}/{partition}/{number}/{commit}".encode()
                    await producer.send_and_wait(settings.topic(topic), value, None, partition)
        await (producer.commit_transaction() if commit else producer.abort_transaction())


async def one_by_one(world: World, tps: list[TopicPartition]) -> dict[TopicPartition, list[bytes]]:
    """Return what a reader of each partition alone finds."""
    client = await start_client(world.settings, list({tp.topic for tp in tps}), "alone")
    try:
        found: dict[TopicPartition, list[bytes]] = {}
        for tp in tps:
            reader = KafkaReader(client, *tp)
            end = await reader.end_offset()
            found[tp] = []
            while reader.offset < end:
                found[tp] += [
                    each.value or b"" for chunk in await reader.read() for each in chunk.records
                ]
        return found
    finally:
        await client.close()


async def test_it_reads_of_each_partition_what_a_reader_of_its_own_reads(world: World) -> None:
    for commit in (True, False, True):
        await write(world, commit=commit)
    names = [world.settings.topic(topic) for topic in TOPICS]
    tps = [TopicPartition(name, number) for name in names for number in range(PARTITIONS)]
    expected = await one_by_one(world, tps)
    assert [value for values in expected.values() for value in values if b"False" in value] == []
    client = await start_client(world.settings, names, "several")
    try:
        ((node, led),) = by_leader(client, tps).items()
        assert led == tps
        reader = SeveralReader(client, node, dict.fromkeys(tps, 0))
        found: dict[TopicPartition, list[bytes]] = {tp: [] for tp in tps}

        async def all_is_read() -> bool:
            for each in await reader.read():
                at = TopicPartition(each.topic, each.partition)
                found[at] += [record.value or b"" for record in each.records]
                assert each.next_offset <= each.end_offset
            return found == expected

        await eventually(all_is_read)
    finally:
        await client.close()


async def test_a_partition_that_has_lost_its_place_is_named_again_and_again(world: World) -> None:
    await write(world, commit=True)
    name = world.settings.topic(Topic.BREACHES)
    offsets = {TopicPartition(name, 0): 0, TopicPartition(name, 1): 1_000}
    client = await start_client(world.settings, [name], "several")
    try:
        (node,) = by_leader(client, list(offsets))
        reader = SeveralReader(client, node, offsets)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="partition 1: OffsetOutOfRange"):
                await reader.read()
    finally:
        await client.close()


async def test_a_cluster_says_always_the_same_of_itself(world: World) -> None:
    client = await start_client(world.settings, [world.settings.topic(Topic.TASKS)], "several")
    try:
        assert await cluster_id(client) == await cluster_id(client) != "None"
    finally:
        await client.close()
