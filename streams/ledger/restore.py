"""The state of a partition, from what its last owner committed to `tasks`."""

from streams.budget.policy import Policy
from streams.budget.snapshot import restore
from streams.budget.state import PartitionState
from streams.kafka.ports import PartitionReader


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
    last: dict[str, bytes] = {}
    offset = await tasks.first_offset()
    while offset < end:
        for chunk in await tasks.read():
            for record in chunk.records:
                key = (record.key or b"").decode(errors="replace")
                if record.value is None:
                    last.pop(key, None)
                else:
                    last[key] = record.value
            offset = chunk.next_offset
    return restore(partition, last.items(), default_policy)
