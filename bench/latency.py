"""Event → decision: from the producer's send until a read_committed consumer has the decision.

    python -m bench.latency [--rates 2000 10000 50000] [--seconds 30] [--systems …]

Each run has a broker of its own. The sender says what it has reached: where that is less than what
was asked for, the figure is of that load. Kafka Streams commits every 10 ms here, at the lowest rate
only: what it decides is not visible before.
"""

import argparse
import asyncio
import statistics
import sys
import time
from array import array
from contextlib import AsyncExitStack

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.load import Load, numbered, partition_of
from bench.place import place
from bench.report import emit, table
from bench.systems import LEDGERS, SYSTEMS, crossings_topic
from schemas.topics import Topic
from streams.kafka.settings import Settings

PARTITIONS = 4
SYSTEMS_MEASURED = ["ledger", "ledger-compiled", "ledger-librdkafka", "kafka-streams"]
COMMIT_MS = 10  # of a peer
EVENTS_OF_A_TASK_PER_S = 20  # so many tasks that each begins a new life several times
TICK_S = 0.002
BATCH_BYTES_MAX = 1024 * 1024
WARM_UP_S = 25.0  # the JVM still compiles before
QUIET_S = 3.0
LAST_ONE_WITHIN_S = 120.0  # those that come late count as well
HEX_DIGITS = 32


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from send to visible decision."""

    system: str
    events_per_s: int
    sent_per_s: int
    decisions: int
    p50_ms: float
    p99_ms: float
    p999_ms: float


async def latency(system: str, rate: int, seconds: float) -> Latency:
    """Send at a steady rate for a while; measure those events that cause a decision."""
    async with place(PARTITIONS) as where:
        ready, _ = await SYSTEMS[system](where, COMMIT_MS)
        async with ready as processor:
            found = await _measure(where.settings, system, rate, seconds)
            processor.check()
            return found


async def _measure(settings: Settings, system: str, rate: int, seconds: float) -> Latency:
    sent_at_s = array("d", bytes(8 * (int(rate * (seconds + WARM_UP_S)) + 1)))  # by sequence
    seen: list[float] = []
    started_s = time.perf_counter()

    async def watch(consumer: AIOKafkaConsumer) -> None:
        async for record in consumer:
            now_s = time.perf_counter()
            if record.value is None:
                continue
            decision = _DECISION.decode(record.value)
            event_id = decision.event_id or decision.data.event_id or ""
            if len(event_id) != HEX_DIGITS:
                continue  # caused by the start or the end of a task
            at_s = sent_at_s[int(event_id, 16)]
            if at_s - started_s > WARM_UP_S:
                seen.append((now_s - at_s) * 1000)

    async with AsyncExitStack() as stack:
        consumer = await _consumer(settings, _decisions_topic(settings, system), stack)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch(consumer))
            sent = await send(settings, rate, seconds + WARM_UP_S, sent_at_s)
            await _quiet(seen)
            watching.cancel()
    if len(seen) < 2:
        raise SystemExit(f"at {rate:,} events/s: no decisions after {LAST_ONE_WITHIN_S:.0f} s")
    cuts = statistics.quantiles(seen, n=1000, method="inclusive")
    return Latency(
        system=system,
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


def _decisions_topic(settings: Settings, system: str) -> str:
    return (
        settings.topic(Topic.DECISIONS) if system in LEDGERS else crossings_topic(settings, system)
    )


async def _consumer(settings: Settings, topic: str, stack: AsyncExitStack) -> AIOKafkaConsumer:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        isolation_level="read_committed",
        fetch_max_wait_ms=500,
    )
    await consumer.start()
    stack.push_async_callback(consumer.stop)
    consumer.assign([TopicPartition(topic, number) for number in range(settings.partitions)])
    await consumer.seek_to_beginning()
    return consumer


async def send(settings: Settings, rate: int, seconds: float, sent_at_s: "array[float]") -> int:
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


async def latencies(systems: list[str], rates: list[int], seconds: float) -> list[Latency]:
    """Measure the ledger at each rate, the others at the lowest."""
    measured = []
    for system in systems:
        for rate in rates if system == "ledger" else [min(rates)]:
            print(f"{system} at {rate:,} events/s …", file=sys.stderr)
            found = await latency(system, rate, seconds)
            emit("latency", found)
            measured.append(found)
    return measured


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description=__doc__)
    parser.add_argument("--rates", type=int, nargs="+", default=[2_000, 10_000, 50_000])
    parser.add_argument("--seconds", type=float, default=30.0, help="after a warm-up of 25")
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=SYSTEMS_MEASURED)
    asked = parser.parse_args()
    measured = asyncio.run(latencies(asked.systems, asked.rates, asked.seconds))
    table(
        ("system", "events/s", "sent/s", "decisions", "p50 ms", "p99 ms", "p99.9 ms"),
        (msgspec.structs.astuple(each) for each in measured),
    )


class _Data(msgspec.Struct, frozen=True):
    event_id: str | None = None


class _Record(msgspec.Struct):
    """Of the ledger in `data`, of a peer beside it."""

    data: _Data = _Data()
    event_id: str | None = None


_DECISION = msgspec.json.Decoder(_Record)


if __name__ == "__main__":
    main()
