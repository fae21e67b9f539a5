"""Is the ledger of each partition still heard of? Judged by when its heartbeats arrive here.

Nobody's wall clock is asked: a heartbeat counts from the moment it arrives, on a clock of this
machine that never runs backwards.
"""

from collections.abc import Callable

from schemas.fields import Fail, Mode
from schemas.outputs import Heartbeat

STALE_AFTER_S = 30.0


class Freshness:
    """Partitions, the arrival of their last heartbeat, and what the last one of all said."""

    def __init__(
        self, monotonic_s: Callable[[], float], fail: Fail, stale_after_s: float = STALE_AFTER_S
    ) -> None:
        self.fail = fail  # the constructor's, until a heartbeat says what the policy wants
        self.mode: Mode | None = None
        self._monotonic_s = monotonic_s
        self._stale_after_s = stale_after_s
        self._began_s = monotonic_s()
        self._arrived_s: dict[int, float] = {}

    def expect(self, partitions: range) -> None:
        """Say which partitions there are: one never heard of counts from the start."""
        for partition in partitions:
            self._arrived_s.setdefault(partition, self._began_s)

    def arrived(self, partition: int, heartbeat: Heartbeat) -> None:
        """Note a heartbeat, now; one of a partition that does not exist says nothing."""
        if partition not in self._arrived_s:
            return
        self._arrived_s[partition] = self._monotonic_s()
        self.fail, self.mode = heartbeat.fail, heartbeat.mode

    def stale_partitions(self) -> frozenset[int] | None:
        """Return the partitions that are not heard of; None where not even their number is known."""
        now_s = self._monotonic_s()
        if not self._arrived_s:
            return None if now_s - self._began_s > self._stale_after_s else frozenset()
        return frozenset(
            partition
            for partition, arrived_s in self._arrived_s.items()
            if now_s - arrived_s > self._stale_after_s
        )
