"""The local servers are real: what is written can be read, also after a restart."""

import aiokafka
import pytest
import redis.asyncio
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.local.redis import RedisServer

pytestmark = pytest.mark.integration


async def create_topic(bootstrap_servers: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def produce(bootstrap_servers: str, topic: str, value: bytes) -> None:
    async with aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        await producer.send_and_wait(topic, value)


async def consume(bootstrap_servers: str, topic: str) -> bytes:
    consumer = aiokafka.AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest"
    )
    async with consumer:
        record = await consumer.getone()
    value: bytes = record.value
    return value


async def test_a_record_comes_back(bootstrap_servers: str, topic_prefix: str) -> None:
    topic = f"{topic_prefix}events"
    await create_topic(bootstrap_servers, topic)
    await produce(bootstrap_servers, topic, b"17")
    assert await consume(bootstrap_servers, topic) == b"17"


async def test_a_value_comes_back(redis_server: RedisServer, topic_prefix: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_server.url) as client:
        await client.set(f"{topic_prefix}used", "17")
        assert await client.get(f"{topic_prefix}used") == b"17"
