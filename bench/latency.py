"""Event → decision: from the producer's send until a read_committed consumer has the decision."""

import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.load import usage_event
from schemas.topics import Topic
from streams.kafka.settings import Settings
from streams.kafka.topics import create_or_check_topics
from streams.local.broker import KafkaBroker

PARTITIONS = 4
TASKS_AT_ONCE = 50
EVENTS_OF_A_TASK = 100  # of 150 tokens less half of the cached: three levels of THINK in each
WARM_UP_S = 25.0


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from send to visible decision."""

    events_per_s: int
    decisions: int
    p50_ms: float
    p99_ms: float
    p999_ms: float


async def latency(rate: int, seconds: float) -> Latency:
    """Send usage at a steady rate for a while; measure those events that cause a decision."""
    with tempfile.TemporaryDirectory() as folder:
        async with KafkaBroker(Path(folder) / "kafka") as broker:
            settings = Settings(
                bootstrap_servers=broker.bootstrap_servers,
                topic_prefix="bench-latency.",
                partitions=PARTITIONS,
            )
            await create_or_check_topics(settings)
            process = await _start_ledger(settings)
            try:
                return await _measure(settings, rate, seconds)
            finally:
                process.send_signal(signal.SIGTERM)
                await process.wait()


async def _start_ledger(settings: Settings) -> asyncio.subprocess.Process:
    env = {
        "STOPLOSS_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "STOPLOSS_TOPIC_PREFIX": settings.topic_prefix,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streams.cli.main", "ledger", env=os.environ | env
    )


async def _measure(settings: Settings, rate: int, seconds: float) -> Latency:
    sent: dict[str, float] = {}
    seen: list[float] = []
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        isolation_level="read_committed",
        fetch_max_wait_ms=500,
    )
    await consumer.start()
    topic = settings.topic(Topic.DECISIONS)
    consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
    await consumer.seek_to_beginning()
    started = time.perf_counter()

    async def watch() -> None:
        async for record in consumer:
            now = time.perf_counter()
            if record.value is None:
                continue
            at = sent.get(_DECISION.decode(record.value).data.event_id or "")
            if at is not None and at - started > WARM_UP_S:
                seen.append((now - at) * 1000)

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        await _send(settings, rate, seconds + WARM_UP_S, sent)
        await asyncio.sleep(1)
        watching.cancel()
    await consumer.stop()
    cuts = statistics.quantiles(seen, n=1000, method="inclusive")
    return Latency(rate, len(seen), round(cuts[499], 2), round(cuts[989], 2), round(cuts[998], 2))


async def _send(settings: Settings, rate: int, seconds: float, sent: dict[str, float]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, linger_ms=0)
    await producer.start()
    try:
        start, index = time.perf_counter(), 0
        while (now := time.perf_counter()) - start < seconds:
            while index < (now - start) * rate:
                index += 1
                task = _task_of(index)
                value = usage_event(index, task)
                sent[f"{index:032x}"] = time.perf_counter()
                await producer.send(settings.topic(Topic.EVENTS), key=task.encode(), value=value)
            await asyncio.sleep(0.001)
    finally:
        await producer.stop()


def _task_of(index: int) -> str:
    """Tasks take turns; each is at another point of its life, else all would cross together."""
    turn, place = divmod(index, TASKS_AT_ONCE)
    life = (turn + place * EVENTS_OF_A_TASK // TASKS_AT_ONCE) // EVENTS_OF_A_TASK
    return f"TASK-{place}-{life}"


class _Data(msgspec.Struct):
    event_id: str | None = None


class _Record(msgspec.Struct):
    data: _Data


_DECISION = msgspec.json.Decoder(_Record)
