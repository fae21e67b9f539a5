"""Throughput: the ledger and quix-streams exactly-once, on the same broker and the same events.

Both start on a preloaded topic and are watched from outside, by what they have committed. The time
counts from the first commit seen to the last, so that starting up is no part of it.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from bench.load import preload
from schemas.topics import Topic
from streams.kafka.settings import Settings
from streams.kafka.topics import create_or_check_topics
from streams.local.broker import KafkaBroker

PARTITIONS = 4
POLL_S = 0.02
DEADLINE_S = 600
PEERS_PYTHON = Path(".venv-peers/bin/python")


class Measured(msgspec.Struct, frozen=True):
    """One system's run. `cpu_s` and `rss_mb` are those of the processor alone."""

    name: str
    events: int
    seconds: float
    events_per_s: float
    cpu_s_per_million: float
    rss_mb_max: float


async def measure(
    name: str,
    command: list[str],
    env: dict[str, str],
    events: int,
    done: Callable[[], Awaitable[int]],
) -> Measured:
    """Run a processor until it has committed all events."""
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | env, stdout=asyncio.subprocess.DEVNULL
    )
    watched = psutil.Process(process.pid)
    first: tuple[float, int, float] | None = None
    rss_max = 0
    try:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                count, now = await done(), time.perf_counter()
                rss_max = max(rss_max, watched.memory_info().rss)
                cpu = sum(watched.cpu_times()[:2])
                if count and first is None:
                    first = (now, count, cpu)
                if count >= events and first is not None:
                    break
                if process.returncode is not None:
                    raise SystemExit(f"{name} ended with {process.returncode}")
                await asyncio.sleep(POLL_S)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()
    seconds = now - first[0]
    counted = events - first[1]
    return Measured(
        name=name,
        events=counted,
        seconds=round(seconds, 2),
        events_per_s=round(counted / seconds),
        cpu_s_per_million=round((cpu - first[2]) / counted * 1e6, 2),
        rss_mb_max=round(rss_max / 1e6),
    )


async def ledger(settings: Settings, events: int) -> Measured:
    """Measure the ledger; its position is the state that it commits."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers, isolation_level="read_committed"
    )
    await consumer.start()
    topic = settings.topic(Topic.TASKS)
    consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
    await consumer.seek_to_beginning()
    at: dict[int, int] = {}

    async def done() -> int:
        for records in (await consumer.getmany(timeout_ms=1)).values():
            for record in records:
                if record.key.startswith(b"partition/") and record.value:
                    at[record.partition] = _NEXT.decode(record.value).data.next_offset
        return sum(at.values())

    env = {
        "STOPLOSS_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "STOPLOSS_TOPIC_PREFIX": settings.topic_prefix,
    }
    command = [sys.executable, "-m", "streams.cli.main", "ledger"]
    try:
        # One policy.set of each partition is an event as well.
        return await measure("stoploss ledger", command, env, events + PARTITIONS, done)
    finally:
        await consumer.stop()


class _Next(msgspec.Struct):
    next_offset: int


class _Record(msgspec.Struct):
    data: _Next


_NEXT = msgspec.json.Decoder(_Record)


async def quix(settings: Settings, events: int, state_dir: str) -> Measured:
    """Measure quix-streams; its position is what its transactions commit for its group."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    group = f"{settings.topic_prefix}quix"

    async def done() -> int:
        try:
            offsets = await admin.list_consumer_group_offsets(group)
        except GroupCoordinatorNotAvailableError:  # of a broker that never had a group
            return 0
        return sum(max(found.offset, 0) for found in offsets.values())

    command = [
        str(PEERS_PYTHON),
        str(Path(__file__).parent / "peers" / "quix_app.py"),
        settings.bootstrap_servers,
        settings.topic_prefix,
        state_dir,
    ]
    try:
        return await measure("quix-streams exactly-once", command, {}, events, done)
    finally:
        await admin.close()


async def throughput(events: int, tasks: int, *, with_peers: bool) -> list[Measured]:
    """Measure both on topics of their own, filled with the same events."""
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory() as folder:
        async with KafkaBroker(Path(folder) / "kafka") as broker:
            for name in ("quix", "ledger") if with_peers else ("ledger",):
                settings = Settings(
                    bootstrap_servers=broker.bootstrap_servers,
                    topic_prefix=f"bench-{name}.",
                    partitions=PARTITIONS,
                )
                await create_or_check_topics(settings)
                topic = settings.topic(Topic.EVENTS)
                size = await preload(broker.bootstrap_servers, topic, PARTITIONS, events, tasks)
                total = events + 2 * tasks
                print(f"{name}: {events:,} events preloaded, {size / events:.0f} bytes each")
                if name == "quix":
                    measured.append(await quix(settings, total, f"{folder}/quix-state"))
                else:
                    measured.append(await ledger(settings, total))
                print(f"  {measured[-1]}")
    return measured
