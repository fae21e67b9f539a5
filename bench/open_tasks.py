"""A system in which many tasks are open already: what the ledger would have written to `tasks`.

The records are real ones, of tasks that were folded in this process. Only so many are folded as
differ from one another; the others are these under other names.
"""

import time
from collections.abc import Iterator

from aiokafka import AIOKafkaProducer

from bench.load import event
from bench.task_size import PARTITION, PHASES, folded, priced, stored
from schemas.topics import Topic
from streams.budget.state import new_partition
from streams.kafka.settings import Settings
from streams.kafka.topics import partition_for

DIFFERENT = 1_000
TASKS_MAX = 1_000_000  # the names have six digits
BATCH_BYTES_MAX = 1024 * 1024
AHEAD_MS = 3_600_000
# The partition's clock stands in the future and never goes back: no deadline comes due meanwhile.


def task_id(number: int) -> str:
    """Return the name of an open task; all four phases have begun, the last is open."""
    return f"TASK-{number:06}"


OPEN_PHASE = PHASES[-1]


async def write_open_tasks(settings: Settings, tasks: int) -> int:
    """Fill `tasks` with that many; return the bytes before compression.

    One event of each partition of `events`, which gets it here, counts as folded.
    """
    assert tasks <= TASKS_MAX
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers,
        enable_idempotence=True,
        compression_type="lz4",
        max_batch_size=BATCH_BYTES_MAX,
    )
    topic, size_bytes = settings.topic(Topic.TASKS), 0
    await producer.start()
    try:
        builders = {number: producer.create_batch() for number in range(settings.partitions)}
        for partition, key, value in _records(settings.partitions, tasks):
            size_bytes += len(value)
            while builders[partition].append(key=key, value=value, timestamp=None) is None:
                await (await producer.send_batch(builders[partition], topic, partition=partition))
                builders[partition] = producer.create_batch()
        for partition, builder in builders.items():
            await (await producer.send_batch(builder, topic, partition=partition))
            tick = event("clock.tick", f"folded-{partition}", f"partition/{partition}", {})
            await producer.send_and_wait(settings.topic(Topic.EVENTS), tick, partition=partition)
    finally:
        await producer.stop()
    return size_bytes


def _records(partitions: int, tasks: int) -> Iterator[tuple[int, bytes, bytes]]:
    start_ms = time.time_ns() // 1_000_000 + AHEAD_MS
    state = folded(min(tasks, DIFFERENT) or 1, len(PHASES), start_ms)
    for task in state.tasks.values():
        task.last_offset = 0  # all by one event: a task that is ahead of its partition is torn
    different = list(stored(state).items())
    policy = [(key, value) for key, value in different if key.startswith("policy/")]
    models = [value for key, value in different if key.startswith("TASK-")]
    for partition in range(partitions):
        for key, value in policy:
            yield partition, key.encode(), value
    for number in range(tasks):
        model = number % len(models)
        name = task_id(number).encode()
        value = models[model].replace(task_id(model).encode(), name)
        yield partition_for(name, partitions), name, value
    for partition in range(partitions):
        empty = new_partition(partition, priced())
        empty.clock_ms = state.clock_ms
        empty.next_offset = 1
        key = f"partition/{partition}"
        yield partition, key.encode(), stored(empty)[key]


assert PARTITION == 0  # of the models; a restart does not look at it
