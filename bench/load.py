"""Events to measure with: usage of many tasks, of about 350 bytes, some of which cross a level."""

from collections.abc import Iterator, Mapping

import orjson
from aiokafka import AIOKafkaProducer

from streams.kafka.topics import partition_for

SOURCE = "bench/1"
TIME = "2026-11-22T21:00:00.123Z"


def usage_event(
    index: int, task: str, *, input_tokens: int = 100, output_tokens: int = 50
) -> bytes:
    """Return one usage event; `index` is its sequence, so it must grow."""
    data = {
        "phase": "THINK",
        "model": "claude-opus-4-6",
        "input_tokens": input_tokens,
        "cache_read_tokens": input_tokens // 2,
        "output_tokens": output_tokens,
        "duration_ms": 450,
        "tool_calls": 1,
    }
    return _event("phase.usage", f"{index:032x}", task, data, sequence=f"{index:020d}")


def _event(kind: str, event_id: str, task: str, data: Mapping[str, object], **more: str) -> bytes:
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


def preloaded(count: int, tasks: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of `count` usage events of `tasks` started tasks, round-robin."""
    for number in range(tasks):
        task = f"TASK-{number:06d}"
        for kind, data in (("task.started", {}), ("phase.started", {"phase": "THINK"})):
            yield task.encode(), _event(kind, f"{kind}-{number}", task, data)
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
