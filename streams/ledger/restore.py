"""The state of a partition, from what its last owner committed to `tasks`."""

import asyncio

from streams.budget.policy import Policy
from streams.budget.restore import Restoring
from streams.budget.state import PartitionState
from streams.kafka import failpoints
from streams.kafka.ports import PartitionReader

TASKS_AT_ONCE = 100  # 3 ms, in which the process's other partitions wait


async def restore_partition(
    tasks: PartitionReader, partition: int, default_policy: Policy
) -> PartitionState:
    """Read `tasks` from its start to its end; the last record of each key is what counts.

    To be called when the predecessor is fenced: only then is nothing of it still open, and the end
    of what is committed the end of what will ever come from it.

    Raises:
        UnavailableError: Kafka does not answer; begin again.
        StoplossError: a record is torn or foreign; it names the key.
    """
    tasks.seek(await tasks.first_offset())
    end = await tasks.end_offset()
    restoring = Restoring(partition, default_policy)
    offset = await tasks.first_offset()
    while offset < end:
        for chunk in await tasks.read():
            for record in chunk.records:
                key = (record.key or b"").decode(errors="replace")
                restoring.put(key, record.value)
            offset = chunk.next_offset
            failpoints.hit("while_restoring")
    for count, _ in enumerate(restoring.finish(), 1):
        if not count % TASKS_AT_ONCE:
            await asyncio.sleep(0)
    return restoring.state
