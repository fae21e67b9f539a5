"""Between the enforcer's threads and the emitter's: a bounded deque without a lock to wait for."""

import logging
import threading
import time
from collections import deque

from streams.client.encoding import Said

log = logging.getLogger(__name__)

# What a tuple, its dict, its names and numbers take: without texts nothing is measured on the
# caller's time.
SAID_BYTES = 600
EPISODE_S = 10.0  # without a drop; the next one after it is logged again
COMPLAINTS_MAX = 100  # different ones that are logged; then they are only counted


class SaidQueue:
    """What was said and not yet encoded. `put` is for any thread, the rest for the emitter's.

    Order is the deque's: the sequence is given by whoever takes from it, so two threads cannot
    take numbers in one order and be sent in the other.
    """

    def __init__(self, *, count_max: int, bytes_max: int) -> None:
        self.dropped_count = 0
        self.invalid_count = 0
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._said: deque[Said] = deque()
        self._room_count = count_max  # as of the last tick of the emitter's thread
        self._room_bytes = bytes_max
        self._closed = False
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
        if len(self._said) < self._room_count:
            self._said.append(said)
        else:
            self.drop()

    def put_text(self, said: Said, text_bytes: int) -> None:
        """Take what holds more than names and numbers.

        The bound on bytes is kept to what is said within a tick: that much is not measured exactly.
        """
        if text_bytes <= self._room_bytes:
            self._room_bytes -= text_bytes
            self.put(said)
        else:
            self.drop()

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
        self._room_count -= count  # they go on waiting, behind this queue
        return [self._said.popleft() for _ in range(count)]

    def set_behind(self, count: int, size_bytes: int) -> None:
        """Say what waits in memory behind this queue: the bounds are for both."""
        room_bytes = self._bytes_max - size_bytes
        room_count = min(self._count_max - count, room_bytes // SAID_BYTES)
        self._room_count = 0 if self._closed else room_count
        self._room_bytes = room_bytes

    def close(self) -> None:
        """Take no more; what comes is counted as dropped."""
        self._closed = True
        self._room_count = 0

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
