"""The cleaner of a compacted topic: it removes what is superseded, when the seed says so.

As Kafka's does it: only before the first open transaction and outside the newest segment; a record
goes when a later committed one of its key is among what is looked at, an aborted one goes by
itself; all others keep their offsets, so that there are gaps. A deletion stays when it is first
looked at, and goes at a later time. Kafka keeps it for `delete.retention.ms`, a day, which is longer
than any restore takes; here it stays as long as somebody restores who may have seen what it deletes.
"""

from typing import Protocol

from msgspec import Struct

from tests.simulation.log import Partition, Stored


class Restorer(Protocol):
    """Who reads a partition from its start to its end."""

    is_alive: bool


class Cleaned(Struct, frozen=True):
    """The offsets that one cleaning has removed."""

    superseded: list[int]
    deletions: list[int]


class Cleaner:
    """Of one partition; has to know who restores from it."""

    def __init__(self, log: Partition) -> None:
        self._log = log
        self._count = 0  # of cleanings
        self._seen: dict[int, int] = {}  # deletions, and in which cleaning they came first
        self._restoring: dict[Restorer, int] = {}  # who, and after how many cleanings it began

    def restore_begins(self, restorer: Restorer) -> None:
        """Note that somebody reads from the start."""
        self._restoring[restorer] = self._count

    def restore_ends(self, restorer: Restorer) -> None:
        """Note that somebody has read to the end."""
        self._restoring.pop(restorer, None)

    def clean(self, *, newest_kept: int = 0, may_forget: bool = False) -> Cleaned:
        """Clean once.

        Args:
            newest_kept: offsets at the end that are in the newest segment.
            may_forget: whether deletions may go that were there the last time.
        """
        self._count += 1
        log = self._log
        until = min(log.stable_end, log.end - newest_kept)
        looked_at = [record for record in log.records if record.offset < until]
        newest = {record.key: record.offset for record in looked_at if record.is_committed}
        superseded = [
            one.offset for one in looked_at if not one.is_committed or one.offset < newest[one.key]
        ]
        deletions = [
            one.offset
            for one in looked_at
            if one.value is None and self._may_go(one, may_forget=may_forget)
        ]
        gone = {*superseded, *deletions}
        log.records = [record for record in log.records if record.offset not in gone]
        return Cleaned(superseded, deletions)

    def _may_go(self, deletion: Stored, *, may_forget: bool) -> bool:
        since = self._seen.setdefault(deletion.offset, self._count)
        return (
            may_forget
            and since < self._count
            and all(began >= since for who, began in self._restoring.items() if who.is_alive)
        )
