"""Events to measure with: usage of many tasks, of about 350 bytes, some of which cross a level."""

from collections.abc import Iterator

import orjson
from aiokafka import AIOKafkaProducer

from streams.kafka.topics import partition_for

SOURCE = "bench/1"
TIME = "2026-11-22T21:00:00.123Z"


def usage_event(
    index: int, task: str, *, input_tokens: int = 100, output_tokens: int = 50
) -> bytes:
    """Return one usage event; `index` is its sequence, so it must grow."""
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": f"{index:032x}",
            "source": SOURCE,
            "type": "stoploss.phase.usage",
            "subject": task,
            "time": TIME,
            "sequence": f"{index:020d}",
            "data": {
                "phase": "THINK",
                "model": "claude-opus-4-6",
                "input_tokens": input_tokens,
                "cache_read_tokens": input_tokens // 2,
                "output_tokens": output_tokens,
                "duration_ms": 450,
                "tool_calls": 1,
            },
        }
    )


def preloaded(count: int, tasks: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of `count` events of `tasks` tasks, round-robin."""
    for index in range(count):
        task = f"TASK-{index % tasks:06d}"
        yield task.encode(), usage_event(index + 1, task, input_tokens=40, output_tokens=20)


async def preload(servers: str, topic: str, partitions: int, count: int, tasks: int) -> int:
    """Write the events to their partitions in large batches; return their bytes."""
    producer = AIOKafkaProducer(
        bootstrap_servers=servers, enable_idempotence=True, max_batch_size=512 * 1024
    )
    await producer.start()
    size_bytes = 0
    try:
        builders = {number: producer.create_batch() for number in range(partitions)}
        for key, value in preloaded(count, tasks):
            number = partition_for(key, partitions)
            size_bytes += len(value)
            while builders[number].append(key=key, value=value, timestamp=None) is None:
                await (await producer.send_batch(builders[number], topic, partition=number))
                builders[number] = producer.create_batch()
        for number, builder in builders.items():
            if builder.record_count():
                await (await producer.send_batch(builder, topic, partition=number))
    finally:
        await producer.stop()
    return size_bytes
