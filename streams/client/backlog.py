"""Everything that Kafka does not have yet, in one order: left-over spools, own spool, memory.

Whatever is on disk is earlier than whatever is in memory, so that "first in, first out" holds over
both, and no event overtakes an earlier one. Moving memory to disk changes nothing in that order.
"""

import itertools
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path

from streams.client.spool import SPOOL_BYTES_MAX, About, Item, Spool, left_over, prepare_spool_dir

log = logging.getLogger(__name__)

SLICE_COUNT = 256  # events written at once
DISK_RETRY_S = 5.0  # after a disk has refused: memory takes what comes meanwhile


class Backlog:
    """One queue, whose first part may be on disk. For the emitter's thread only.

    Args:
        name: of the spool's folder; sorts by the time of its emitter's start.
        monotonic_s: a clock that never runs backwards.
    """

    def __init__(
        self,
        spool_dir: Path | None,
        name: str,
        about: About,
        *,
        monotonic_s: Callable[[], float],
        spool_bytes_max: int = SPOOL_BYTES_MAX,
    ) -> None:
        self._spool_dir = spool_dir
        self._name = name
        self._about = about
        self._monotonic_s = monotonic_s
        self._spool_bytes_max = spool_bytes_max
        self._earlier: deque[Spool] = deque()
        self._own: Spool | None = None
        self._memory: deque[tuple[float, Item]] = deque()  # with the time it came
        self._disk_refused_s: float | None = None
        self._spilling = False  # said once, until all is drained
        self.memory_bytes = 0
        self.appended_count = 0  # ever; adopted ones too
        self.done_count = 0  # ever
        self.left_count = 0  # on disk, at the end
        self.damaged_count = 0  # lines of spools that could not be read again

    @property
    def memory_count(self) -> int:
        """Events in memory."""
        return len(self._memory)

    @property
    def spooled_count(self) -> int:
        """Events on disk."""
        return sum(spool.count for spool in self._spools())

    @property
    def is_empty(self) -> bool:
        """Whether Kafka has everything."""
        return not (self._memory or self.spooled_count)

    def adopt(self) -> int:
        """Take over what emitters that are no more have left, as what is first; return how many.

        Not between `peek` and `drop`: what was taken would no longer be first.
        """
        if self._spool_dir is None:
            return 0
        adopted = 0
        try:
            prepare_spool_dir(self._spool_dir)
            for spool in left_over(self._spool_dir, self._about.topic):
                self._earlier.append(spool)
                self.appended_count += spool.count
                adopted += spool.count
                log.warning(
                    "%d events of %s were left: sent first", spool.count, spool.about.source
                )
        except OSError as error:
            self._refused(error)
        return adopted

    def append(self, item: Item) -> None:
        """Put an event at the end."""
        self._memory.append((self._monotonic_s(), item))
        self.memory_bytes += item.size_bytes
        self.appended_count += 1

    def spill(self, *, older_than_s: float) -> bool:
        """Move a slice of memory to disk: if its first event waits too long, or others on disk.

        What the disk does not take stays in memory, in order. Returns whether there is more to move.
        """
        if not self._memory or self._spool_dir is None:
            return False
        late = self._monotonic_s() - self._memory[0][0] > older_than_s
        if not (late or self.spooled_count) or self._disk_is_resting():
            return False
        if late and not self._spilling:
            self._spilling = True
            log.warning("Kafka does not take events in time: they wait in %s", self._spool_dir)
        try:
            self._write_memory(SLICE_COUNT)
        except OSError as error:
            self._refused(error)
            return False
        return bool(self._memory)

    def peek(self, count_max: int, bytes_max: int) -> list[Item]:
        """Return the first events without removing them; none only where there are none."""
        for spool in self._spools():
            before = spool.count
            try:
                items = spool.peek(count_max, bytes_max)
            except OSError as error:
                self._refused(error)
                return []
            self.done_count += before - spool.count  # damaged lines: nobody need wait for them
            self._count_damage(spool)
            if items:
                return items
        items = []
        for _, item in self._memory:
            bytes_max -= item.size_bytes
            if len(items) == count_max or (items and bytes_max < 0):
                break
            items.append(item)
        return items

    def drop(self, count: int) -> None:
        """Remove the first `count` events, which `peek` has returned: they are dealt with."""
        self.done_count += count
        for spool in self._spools():
            if count and spool.count:
                # `peek` never reaches over the end of a spool; but what it took from memory may
                # have been moved to disk since, whole or in part.
                here = min(count, spool.count)
                spool.drop(here)
                count -= here
        for _ in range(count):
            self.memory_bytes -= self._memory.popleft()[1].size_bytes
        while self._earlier and not self._earlier[0].count:
            self._close(self._earlier.popleft())
        if self._spilling and not self.spooled_count:
            self._spilling = False
            log.warning("Kafka has all the events that waited in %s", self._spool_dir)

    def close(self) -> None:
        """Move everything to disk and give the spools up."""
        if self._memory and self._spool_dir is not None:
            try:
                self._write_memory(len(self._memory))
            except OSError as error:
                self._refused(error)
        self.left_count = self.spooled_count
        for spool in self._spools():
            self._close(spool)
        self._earlier.clear()
        self._own = None

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's."""
        for spool in self._spools():
            spool.abandon()

    def _spools(self) -> list[Spool]:
        return [*self._earlier, *([self._own] if self._own else [])]

    def _disk_is_resting(self) -> bool:
        refused_s = self._disk_refused_s
        return refused_s is not None and self._monotonic_s() - refused_s < DISK_RETRY_S

    def _write_memory(self, count_max: int) -> None:
        assert self._spool_dir is not None
        if self._own is None:
            self._own = Spool.create(self._spool_dir, self._name, self._about)
        room_bytes = self._spool_bytes_max - sum(spool.size_bytes for spool in self._spools())
        before = self._own.count
        items = [item for _, item in itertools.islice(self._memory, count_max)]
        try:
            self._own.append(items, room_bytes)
        finally:
            written = self._own.count - before
            for _ in range(written):
                self.memory_bytes -= self._memory.popleft()[1].size_bytes
        if written < len(items):
            raise OSError(f"the spool's quota of {self._spool_bytes_max} bytes is used up")
        if self._disk_refused_s is not None:
            self._disk_refused_s = None
            log.warning("the spool takes events again")

    def _refused(self, error: OSError) -> None:
        if self._disk_refused_s is None:
            log.error("the spool takes no events, memory does while it lasts: %s", error)
        self._disk_refused_s = self._monotonic_s()

    def _count_damage(self, spool: Spool) -> None:
        if spool.damaged_count:
            log.error("%s: %d damaged lines were passed over", spool, spool.damaged_count)
            self.damaged_count += spool.damaged_count
            spool.damaged_count = 0

    def _close(self, spool: Spool) -> None:
        try:
            spool.close()
        except OSError as error:
            log.warning("%s cannot be tidied up: %s", spool, error)
