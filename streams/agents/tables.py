"""faust's tables as we need them: by partition, and written only once the broker has the change.

What is different from faust's own, and why:
- Its memory store has one dictionary for all partitions, and knows which key is of which only where
  it has read it from the changelog: what a worker has written itself stays behind when the partition
  goes to another one, and is there again, out of date, when it comes back.
- Its tables are written like a dictionary, and the change is sent some time later, to the partition
  of the event that is current then; in a batch that is any. Here the shell sends the change, to the
  partition of the record, and puts the value into the store when it has been delivered.
- Its recovery goes on where it believes to have stopped reading, which a rebalance during a rebalance
  leaves wrong. Here the store knows how far it has come, and says so.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import faust
from faust.stores import memory
from faust.types import TP

from streams.agents.folding import Change
from streams.agents.together import Restored, with_owed

EMPTY: Mapping[bytes, bytes] = {}
NOTHING_READ = -1


class PartitionedStore(memory.Store[bytes, bytes]):
    """What the changelog says, by partition; keys and values are bytes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.partitions: dict[int, Restored] = {}
        self.restored = 0  # changes read since the start
        self._offsets: dict[int, int] = {}  # of the last change that is in it

    def persisted_offset(self, tp: TP) -> int:
        """Return the offset of the last change that is in it; the next one is read then."""
        return self._offsets.get(tp.partition, NOTHING_READ)

    def of(self, partition: int) -> Mapping[bytes, bytes]:
        """Return what stands in a partition."""
        found = self.partitions.get(partition)
        return EMPTY if found is None else found.entries

    def to_write(self, partition: int, changes: Sequence[Change]) -> Mapping[bytes, bytes | None]:
        """Return what has to be written with changes of a partition, in the order of the keys."""
        found = self.partitions.get(partition, Restored())
        return with_owed(found.owed, ((change.key, change.value) for change in changes))

    def announced(self, partition: int, offset: int) -> None:
        """Note that an announcement of ours stands at `offset`."""
        self._reached(partition, offset)

    def write(self, partition: int, offset: int, key: bytes, value: bytes | None) -> None:
        """Remember a change that the changelog has at `offset`; a value of None deletes."""
        self._reached(partition, offset)
        self.partitions.setdefault(partition, Restored()).write(key, value)

    def apply_changelog_batch(
        self,
        batch: Iterable[Any],
        to_key: Callable[[Any], Any],  # noqa: ARG002 - faust's
        to_value: Callable[[Any], Any],  # noqa: ARG002 - faust's
    ) -> None:
        """Take over what was read from the changelog, in order.

        What is in it already may come once more: a fetch that was under way when it was looked up.
        It must not take the place of what came after it.
        """
        for event in batch:
            self.restored += 1
            message = event.message
            is_known = message.offset <= self._offsets.get(message.partition, NOTHING_READ)
            if message.key is not None and not is_known:
                self._reached(message.partition, message.offset)
                found = self.partitions.setdefault(message.partition, Restored())
                found.read(message.key, message.value)

    def _reached(self, partition: int, offset: int) -> None:
        self._offsets[partition] = max(offset, self._offsets.get(partition, NOTHING_READ))

    async def on_rebalance(
        self,
        assigned: set[TP],
        revoked: set[TP],  # noqa: ARG002 - faust's
        newly_assigned: set[TP],
        generation_id: int = 0,  # noqa: ARG002 - faust's
    ) -> None:
        """Forget what is another's now, and what will be read from the start.

        Somebody else may have deleted of it, and compaction removed the deletion.
        """
        topic = self.table.changelog_topic.get_topic_name()
        kept = {tp.partition for tp in assigned - newly_assigned if tp.topic == topic}
        for partition in list(self.partitions):
            if partition not in kept:
                del self.partitions[partition]
                self._offsets.pop(partition, None)

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Keep everything: what is not ours has gone before it was read."""


class Table(faust.Table):  # type: ignore[type-arg]
    """A changelog, and the store that it is read into."""

    def _new_store(self) -> PartitionedStore:
        return PartitionedStore("memory://", self.app, self, table_name=self.name, loop=self.loop)

    @property
    def store(self) -> PartitionedStore:
        """What stands in it."""
        return cast("PartitionedStore", self.data)

    @property
    def topic(self) -> str:
        """The changelog's name on the broker."""
        return str(self.changelog_topic.get_topic_name())
