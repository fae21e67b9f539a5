"""A Kafka of its own for a measurement, with our topics on it."""

import asyncio
import contextlib
import logging
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.kafka.settings import Settings
from streams.kafka.topics import create_or_check_topics
from streams.local.broker import KafkaBroker


class Place(msgspec.Struct, frozen=True):
    """Where a measurement runs; all of it is gone afterwards."""

    settings: Settings
    folder: Path
    broker: KafkaBroker


@contextlib.asynccontextmanager
async def place(partitions: int, prefix: str = "bench.") -> AsyncIterator[Place]:
    """Start a broker and create the topics."""
    # A partition of a new topic has no leader yet: aiokafka says it each time that it asks again.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    me = asyncio.current_task()
    assert me is not None
    # Otherwise gigabytes stay behind where a run is told to end.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    with tempfile.TemporaryDirectory(prefix="stoploss-bench-") as folder:
        async with KafkaBroker(Path(folder) / "kafka") as broker:
            yield await another(Place(Settings(), Path(folder), broker), partitions, prefix)


async def another(where: Place, partitions: int, prefix: str) -> Place:
    """Return a place on the same broker with topics of its own."""
    settings = Settings(
        bootstrap_servers=where.broker.bootstrap_servers,
        topic_prefix=prefix,
        partitions=partitions,
    )
    await create_or_check_topics(settings)
    return Place(settings, where.folder, where.broker)


async def create_topics(settings: Settings, names: Sequence[str]) -> None:
    """Create topics that are no part of ours, with as many partitions."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, settings.partitions, 1) for name in names])
    finally:
        await admin.close()
