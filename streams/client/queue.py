"""Between the enforcer's threads and the emitter's: a bounded deque without a lock to wait for."""

import logging
import threading
import time
from collections import deque

from streams.client.encoding import Said

log = logging.getLogger(__name__)

# What a tuple, its dict and its numbers take besides their texts.
SAID_BYTES = 600
EPISODE_S = 10.0  # without a drop; the next one after it is logged again
COMPLAINTS_MAX = 100  # different ones that are logged; then they are only counted


class SaidQueue:
    """What was said and not yet encoded. `put` is for any thread, the rest for the emitter's.

    Order is the deque's: the sequence is given by whoever takes from it, so two threads cannot
    take numbers in one order and be sent in the other.
    """

    def __init__(self, *, count_max: int, bytes_max: int) -> None:
        self.closed = False
        self.dropped_count = 0
        self.invalid_count = 0
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._said: deque[Said] = deque()
        self._bytes = 0
        self._count_behind = self._bytes_behind = 0
        # Only for what went wrong. Reentrant: a finalizer that the collector runs may come in again.
        self._counting = threading.RLock()
        self._complaints: deque[str] = deque()
        self._complained: set[str] = set()
        self._dropped_logged = 0
        self._dropped_last_s = float("-inf")

    def __len__(self) -> int:
        return len(self._said)

    def put(self, said: Said) -> None:
        """Take what was said; where there is no room it is dropped, being the newest."""
        size_bytes = SAID_BYTES
        for value in said[3].values():
            if type(value) is str:
                size_bytes += len(value)
        if (
            len(self._said) + self._count_behind >= self._count_max
            or self._bytes + self._bytes_behind + size_bytes > self._bytes_max
            or self.closed
        ):
            self.drop()
            return
        # Two threads may lose an update of this sum; `take` begins it anew.
        self._bytes += size_bytes
        self._said.append(said)

    def drop(self) -> None:
        """Count an event that is lost."""
        with self._counting:
            self.dropped_count += 1

    def complain(self, complaint: str) -> None:
        """Count an event that is none, and keep why."""
        with self._counting:
            self.invalid_count += 1
            if len(self._complaints) < COMPLAINTS_MAX:
                self._complaints.append(complaint[:500])

    def take(self, count_max: int) -> list[Said]:
        """Return what was said first, at most `count_max`."""
        count = min(count_max, len(self._said))
        taken = [self._said.popleft() for _ in range(count)]
        if not self._said:
            self._bytes = 0
        return taken

    def set_behind(self, count: int, size_bytes: int) -> None:
        """Say what waits in memory behind this queue: the bounds are for both."""
        self._count_behind, self._bytes_behind = count, size_bytes

    def log_troubles(self) -> None:
        """Log each complaint once, and the begin of each episode of drops; not on the callers' time."""
        while self._complaints:
            complaint = self._complaints.popleft()
            if complaint not in self._complained and len(self._complained) < COMPLAINTS_MAX:
                self._complained.add(complaint)
                log.error("not an event, dropped (such a one is logged once): %s", complaint)
        dropped, now_s = self.dropped_count, time.monotonic()
        if dropped > self._dropped_logged:
            if now_s - self._dropped_last_s > EPISODE_S:
                log.error("no room in memory and spool: the newest events are dropped")
            self._dropped_last_s, self._dropped_logged = now_s, dropped
