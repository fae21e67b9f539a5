"""Events to measure with: usage of many tasks, of about 350 bytes, some of which cross a level."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

import msgspec
import orjson
from aiokafka import AIOKafkaProducer

from streams.kafka.topics import partition_for

SOURCE = "bench/1"
TIME = "2026-11-22T21:00:00.123Z"
BATCH_BYTES_MAX = 512 * 1024

LIFE_EVENTS = 150
# Of 105 metered tokens each: three levels of THINK in a life, so that 2 % of the events cross one.


# A key's events come soon after one another, and hashing it costs as much as making one.
partition_of = lru_cache(maxsize=100_000)(partition_for)


class Load(msgspec.Struct, frozen=True):
    """`events` reports of usage by `tasks` that are open at once and take turns.

    A task ends after `life` reports, and another begins in its place.
    """

    events: int = 3_000_000
    tasks: int = 1_000
    life: int = LIFE_EVENTS


def usage_event(
    index: int,
    task: str,
    *,
    phase: str = "THINK",
    input_tokens: int = 100,
    output_tokens: int = 50,
) -> bytes:
    """Return one usage event; `index` is its sequence, so it must grow."""
    data = {
        "phase": phase,
        "model": "claude-opus-4-6",
        "input_tokens": input_tokens,
        "cache_read_tokens": input_tokens // 2,
        "output_tokens": output_tokens,
        "duration_ms": 450,
        "tool_calls": 1,
    }
    return event("phase.usage", f"{index:032x}", task, data, sequence=f"{index:020d}")


def event(kind: str, event_id: str, task: str, data: Mapping[str, object], **more: str) -> bytes:
    """Return one event of `task`."""
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": SOURCE,
            "type": f"stoploss.{kind}",
            "subject": task,
            "time": TIME,
            **more,
            "data": data,
        }
    )


def started(task: str) -> Iterator[bytes]:
    """Yield what begins a task."""
    yield event("task.started", f"start-{task}", task, {})
    yield event("phase.started", f"think-{task}", task, {"phase": "THINK"})


def ended(task: str) -> Iterator[bytes]:
    """Yield what ends it."""
    yield event("phase.ended", f"thought-{task}", task, {"phase": "THINK", "duration_ms": 70_000})
    yield event("task.ended", f"end-{task}", task, {"outcome": "completed"})


def of_lives(load: Load) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of all events, round-robin."""
    return ((key, value) for _, key, value in numbered(load))


def numbered(load: Load) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield them with their sequence; it is 0 where a task starts or ends.

    Each task is at another point of its life, else all would cross together.
    """
    for index in range(load.events):
        turn, place = divmod(index, load.tasks)
        number, age = divmod(turn + place * load.life // load.tasks, load.life)
        task = f"TASK-{place:06d}-{number}"
        key = task.encode()
        if age == 0 or turn == 0:
            for value in started(task):
                yield 0, key, value
        yield index + 1, key, usage_event(index + 1, task)
        if age == load.life - 1:
            for value in ended(task):
                yield 0, key, value


async def write(
    servers: str, topic: str, partitions: int, events: Iterable[tuple[bytes, bytes]]
) -> tuple[int, int]:
    """Write events to their partitions in large batches; return how many, and their bytes."""
    producer = AIOKafkaProducer(
        bootstrap_servers=servers, enable_idempotence=True, max_batch_size=BATCH_BYTES_MAX
    )
    await producer.start()
    count = size_bytes = 0
    try:
        builders = {number: producer.create_batch() for number in range(partitions)}
        for key, value in events:
            number = partition_of(key, partitions)
            count += 1
            size_bytes += len(value)
            while builders[number].append(key=key, value=value, timestamp=None) is None:
                await (await producer.send_batch(builders[number], topic, partition=number))
                builders[number] = producer.create_batch()
        for number, builder in builders.items():
            if builder.record_count():
                await (await producer.send_batch(builder, topic, partition=number))
    finally:
        await producer.stop()
    return count, size_bytes
