"""What stands in `tasks` of one partition, as a restore sees it, and how far its ledger had come.

A record that the ledger wrote is known by its id, `{partition}-{offset}-{index}`, and the partition's
own by saying the same in `next_offset`; so what somebody else wrote does not lead astray.
"""

import contextlib

import msgspec
from msgspec import Struct

from schemas.events import partition_subject
from schemas.refusal import UNREADABLE
from schemas.state import PartitionStateData
from streams.budget.restore import TornStateError, read_policy
from streams.budget.state import POLICY_KEY
from streams.verify.compare import found
from streams.verify.reading import OutputReader


class _Own(Struct):
    data: PartitionStateData


_OWN = msgspec.json.Decoder(_Own)


class TasksLog:
    """The last record of each key. `read` goes on where it stopped."""

    def __init__(self, reader: OutputReader, partition: int) -> None:
        self._reader, self._partition = reader, partition
        self._own_key = partition_subject(partition)
        self.last: dict[str, bytes] = {}
        self.raw_keys: dict[str, bytes] = {}  # what is no UTF-8 is shown otherwise
        self.policies: dict[str, bytes] = {}  # every sound one that was stored, by its hash
        self.own_record = b""  # the partition's last one that a ledger wrote
        self._own_is_last = False
        self.next_offset = 0  # what it says
        self.folded_at_least = 0  # one more than the latest input that any record names

    def __repr__(self) -> str:
        return f"<TasksLog {self._partition}: {len(self.last)} keys to {self.next_offset}>"

    @property
    def own_counts(self) -> bool:
        """Whether the partition's record is the last one that a ledger wrote, and no older one."""
        return self._own_is_last and self.next_offset >= self.folded_at_least

    async def read(self) -> None:
        """Read what is committed by now.

        Raises:
            UnavailableError: Kafka does not answer, or a transaction stays open.
        """
        async for record in self._reader.until_written():
            raw = record.key or b""
            key, value = raw.decode(errors="replace"), record.value
            self.raw_keys[key] = raw
            if value is None:
                self.last.pop(key, None)
            else:
                self.last[key] = value
                self._learn(key, value)
            if key == self._own_key:
                self._own_is_last = value == self.own_record

    def _learn(self, key: str, value: bytes) -> None:
        place = found(self._partition, None, value).place
        if place is not None:
            self.folded_at_least = max(self.folded_at_least, place[0] + 1)
        if key.startswith(POLICY_KEY):
            with contextlib.suppress(TornStateError):
                policy_hash = read_policy(self._partition, key, value).hash
                if policy_hash == key.removeprefix(POLICY_KEY):
                    self.policies[policy_hash] = value
        if key == self._own_key and place is not None:
            try:
                data = _OWN.decode(value).data
            except UNREADABLE:
                return
            is_own = (data.partition, data.next_offset) == (self._partition, place[0] + 1)
            if is_own and data.next_offset >= self.next_offset:
                self.own_record, self.next_offset = value, data.next_offset
