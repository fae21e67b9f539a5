"""Event → decision: from the producer's send until a read_committed consumer has the decision.

    python -m bench.latency [--rates 2000 10000 50000] [--seconds 30] [--driver librdkafka]

Each rate has a broker and a ledger of its own. The sender says what it has reached: where that is
less than what was asked for, the figure is of that load.
"""

import argparse
import asyncio
import statistics
import time
from array import array
from contextlib import AsyncExitStack
from typing import get_args

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.load import Load, numbered, partition_of
from bench.place import place
from bench.processor import ledger
from bench.report import emit, table
from schemas.topics import Topic
from streams.kafka.settings import Driver, Settings

PARTITIONS = 4
EVENTS_OF_A_TASK_PER_S = 20  # so many tasks that each begins a new life several times
TICK_S = 0.002
BATCH_BYTES_MAX = 1024 * 1024
WARM_UP_S = 25.0  # the JVM still compiles before
QUIET_S = 3.0
LAST_ONE_WITHIN_S = 120.0  # those that come late count as well
HEX_DIGITS = 32


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from send to visible decision."""

    events_per_s: int
    sent_per_s: int
    decisions: int
    p50_ms: float
    p99_ms: float
    p999_ms: float


async def latency(rate: int, seconds: float, driver: Driver) -> Latency:
    """Send at a steady rate for a while; measure those events that cause a decision."""
    async with place(PARTITIONS) as where:
        settings = msgspec.structs.replace(where.settings, driver=driver)
        async with ledger(settings, where.folder) as processor:
            found = await _measure(settings, rate, seconds)
            processor.check()
            return found


async def _measure(settings: Settings, rate: int, seconds: float) -> Latency:
    sent_at_s = array("d", bytes(8 * (int(rate * (seconds + WARM_UP_S)) + 1)))  # by sequence
    seen: list[float] = []
    started_s = time.perf_counter()

    async def watch(consumer: AIOKafkaConsumer) -> None:
        async for record in consumer:
            now_s = time.perf_counter()
            if record.value is None:
                continue
            event_id = _DECISION.decode(record.value).data.event_id or ""
            if len(event_id) != HEX_DIGITS:
                continue  # caused by the start or the end of a task
            at_s = sent_at_s[int(event_id, 16)]
            if at_s - started_s > WARM_UP_S:
                seen.append((now_s - at_s) * 1000)

    async with AsyncExitStack() as stack:
        consumer = await _consumer(settings, stack)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch(consumer))
            sent = await _send(settings, rate, seconds + WARM_UP_S, sent_at_s)
            await _quiet(seen)
            watching.cancel()
    if len(seen) < 2:
        raise SystemExit(f"at {rate:,} events/s: no decisions after {LAST_ONE_WITHIN_S:.0f} s")
    cuts = statistics.quantiles(seen, n=1000, method="inclusive")
    return Latency(
        events_per_s=rate,
        sent_per_s=round(sent / (seconds + WARM_UP_S)),
        decisions=len(seen),
        p50_ms=round(cuts[499], 2),
        p99_ms=round(cuts[989], 2),
        p999_ms=round(cuts[998], 2),
    )


async def _quiet(seen: list[float]) -> None:
    """Wait until no decision comes any more."""
    deadline_s = time.perf_counter() + LAST_ONE_WITHIN_S
    count = -1
    while (not seen or count != len(seen)) and time.perf_counter() < deadline_s:
        count = len(seen)
        await asyncio.sleep(QUIET_S)


async def _consumer(settings: Settings, stack: AsyncExitStack) -> AIOKafkaConsumer:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        isolation_level="read_committed",
        fetch_max_wait_ms=500,
    )
    await consumer.start()
    stack.push_async_callback(consumer.stop)
    topic = settings.topic(Topic.DECISIONS)
    consumer.assign([TopicPartition(topic, number) for number in range(settings.partitions)])
    await consumer.seek_to_beginning()
    return consumer


async def _send(settings: Settings, rate: int, seconds: float, sent_at_s: "array[float]") -> int:
    """Send what is due at each tick, a record batch for each partition; return how many events.

    `sent_at_s` gets when each was put into its batch.
    """
    load = Load(int(rate * seconds), max(1, rate // EVENTS_OF_A_TASK_PER_S))
    topic, partitions = settings.topic(Topic.EVENTS), settings.partitions
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, linger_ms=0, max_batch_size=BATCH_BYTES_MAX
    )
    await producer.start()
    try:
        events = numbered(load)
        start_s, sent = time.perf_counter(), 0
        while (tick_s := time.perf_counter()) - start_s < seconds:
            builders = [producer.create_batch() for _ in range(partitions)]
            due = int((tick_s - start_s) * rate)
            while sent < due and (now_s := time.perf_counter()) - tick_s < TICK_S:
                index, key, value = next(events)
                builder = builders[partition_of(key, partitions)]
                added = builder.append(key=key, value=value, timestamp=None)
                assert added is not None, "a tick fits into a record batch"
                sent_at_s[index] = now_s
                sent = index or sent
            for partition, builder in enumerate(builders):
                if builder.record_count():
                    _delivery = await producer.send_batch(builder, topic, partition=partition)
            await asyncio.sleep(TICK_S if sent >= due else 0)
    finally:
        await producer.stop()
    return sent


async def latencies(rates: list[int], seconds: float, driver: Driver) -> list[Latency]:
    """Measure at each rate."""
    measured = []
    for rate in rates:
        found = await latency(rate, seconds, driver)
        emit("latency", found)
        measured.append(found)
    return measured


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description=__doc__)
    parser.add_argument("--rates", type=int, nargs="+", default=[2_000, 10_000, 50_000])
    parser.add_argument("--seconds", type=float, default=30.0, help="after a warm-up of 25")
    parser.add_argument("--driver", choices=get_args(Driver), default="aiokafka")
    asked = parser.parse_args()
    measured = asyncio.run(latencies(asked.rates, asked.seconds, asked.driver))
    table(
        ("events/s", "sent/s", "decisions", "p50 ms", "p99 ms", "p99.9 ms"),
        (msgspec.structs.astuple(each) for each in measured),
    )


class _Data(msgspec.Struct):
    event_id: str | None = None


class _Record(msgspec.Struct):
    data: _Data


_DECISION = msgspec.json.Decoder(_Record)


if __name__ == "__main__":
    main()
