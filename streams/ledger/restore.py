"""The state of a partition, from what its last owner committed to `tasks`."""

import asyncio
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from schemas.events import LEDGER_SOURCE, partition_subject
from schemas.refusal import UNREADABLE
from schemas.topics import Topic
from streams.budget.policy import Policy
from streams.budget.restore import Restoring, TornStateError
from streams.budget.state import PartitionState
from streams.kafka import failpoints
from streams.kafka.ports import PartitionReader, RawRecord

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


class _Named(Struct):
    id: str
    source: str


_NAMED = msgspec.json.Decoder(_Named)


async def lost_state(
    partition: int, outputs: Mapping[Topic, PartitionReader]
) -> TornStateError | None:
    """Tell whether `tasks` has lost the partition's own record, where it is not there.

    Every batch ends with that record, and is visible whole or never. So where it is not there, no
    other topic may have a record that an input of this partition has caused: begun at offset 0, all
    of that would be written a second time, or, where the first events are gone, go on from nothing.

    Args:
        partition: whose record it is.
        outputs: of what the ledger writes beside `tasks`; read from their start.

    Raises:
        UnavailableError: Kafka does not answer; begin again.
    """
    for topic, reader in outputs.items():
        offset, end = await reader.first_offset(), await reader.end_offset()
        reader.seek(offset)
        while offset < end:
            for chunk in await reader.read():
                if any(_is_caused(partition, record) for record in chunk.records):
                    reason = (
                        f"it is not there, and what its events have caused is, in {topic.value}"
                    )
                    return TornStateError(partition, partition_subject(partition), reason)
                offset = chunk.next_offset
    return None


def _is_caused(partition: int, record: RawRecord) -> bool:
    """Tell whether an input of this partition has caused a record, and not somebody else."""
    if record.value is None:
        return False
    try:
        named = _NAMED.decode(record.value)
    except UNREADABLE:
        return False
    return named.source == LEDGER_SOURCE and named.id.startswith(f"{partition}-")
