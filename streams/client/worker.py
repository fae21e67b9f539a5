"""The emitter's thread: numbers and encodes what was said, keeps it, sends it.

It works in slices of about a millisecond and gives up the interpreter between them, because a
caller that wants it back waits until then.
"""

import asyncio
import contextlib
import logging
import re
import secrets
import threading
import time
from collections import deque
from pathlib import Path

import msgspec

from schemas.decode import Refusal
from schemas.envelope import Envelope, rfc3339
from schemas.errors import StoplossError
from schemas.fields import NAME_LENGTH_MAX
from schemas.health import EmitterHealth, Health
from schemas.topics import DEFAULT_PREFIX, Topic, topic_name
from streams.client.backlog import Backlog
from streams.client.delivery import SLICE_COUNT, Counts, Delivery
from streams.client.encoding import encode
from streams.client.queue import SaidQueue
from streams.client.quiet import THREAD_PREFIX, quieten_aiokafka
from streams.client.spool import About
from streams.kafka.settings import Settings, load_settings

log = logging.getLogger(__name__)

# What was accepted is, this much later, on Kafka or on disk, and survives `kill -9`.
FLUSH_INTERVAL_S = 1.0
# Nobody wakes this thread: a wake-up is a system call, in which the caller gives up the
# interpreter, and it may get it back only 5 ms later. So it looks by itself, more often while there
# is something to do.
TICK_BUSY_S, TICK_IDLE_S = 0.005, 0.020
BUSY_FOR_S = 0.5
HEALTH_INTERVAL_S = 10.0
# One that shares our folder may end, or be killed, after we began: in a rolling restart it does.
ADOPT_INTERVAL_S = 30.0
RESTART_S = 5.0


class Limits(msgspec.Struct, frozen=True):
    """What an emitter may take."""

    queue_count: int
    queue_bytes: int
    spool_bytes: int


class Worker:
    """One source's life. `queue`, `flush`, `close` and the counts are for any thread."""

    def __init__(
        self, settings: Settings | None, name: str, spool_dir: Path | None, limits: Limits
    ) -> None:
        run = secrets.token_hex(6)
        self.source = f"{name[: NAME_LENGTH_MAX // 2]}/{run}"
        self.queue = SaidQueue(count_max=limits.queue_count, bytes_max=limits.queue_bytes)
        self.counts = Counts()
        prefix = settings.topic_prefix if settings else _prefix_of_environment()
        readable = re.sub(r"[^A-Za-z0-9_-]", "-", name)[:40]
        self._backlog = Backlog(
            spool_dir,
            f"{time.time_ns():020d}-{readable}-{run}",
            About(source=self.source, topic=topic_name(Topic.EVENTS, prefix)),
            monotonic_s=time.monotonic,
            spool_bytes_max=limits.spool_bytes,
        )
        self._settings = settings
        self._sequence = 0
        self._flushes: deque[threading.Event] = deque()
        self._waiting: deque[tuple[int, threading.Event]] = deque()
        self._closing = threading.Event()
        self._deadline_s = float("inf")
        self._spooled = 0
        name = f"{THREAD_PREFIX}emitter"
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    @property
    def queued_count(self) -> int:
        """Events in memory."""
        return len(self.queue) + self._backlog.memory_count

    @property
    def spooled_count(self) -> int:
        """Events on disk, as of the last look."""
        return self._spooled

    @property
    def damaged_count(self) -> int:
        """Events that a disk did not give back."""
        return self._backlog.damaged_count

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Wait until Kafka has what was said before; whether it has."""
        if not self._thread.is_alive() or self._thread is threading.current_thread():
            return not (self.queued_count or self.spooled_count)
        done = threading.Event()
        self._flushes.append(done)
        return done.wait(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Send for at most `timeout_s`, put the rest on disk; whether Kafka has all of it."""
        self.begin_to_close(timeout_s)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s + 5.0)
        return not (self.queued_count or self.spooled_count)

    def begin_to_close(self, timeout_s: float) -> None:
        """As `close`, without waiting for it."""
        self._deadline_s = min(self._deadline_s, time.monotonic() + timeout_s)
        self.queue.close()
        self._closing.set()

    def abandon(self) -> None:
        """In a forked child: all of this is the parent's."""
        self._backlog.abandon()

    def _main(self) -> None:
        quieten_aiokafka()
        while time.monotonic() < self._deadline_s:
            try:
                asyncio.run(self._run())
                break
            except Exception:  # a defect of ours, which the enforcer must not notice
                log.exception("the emitter failed and starts again")
                if self._closing.wait(RESTART_S):
                    break
        while self._encode():
            pass
        self._backlog.close()
        self._spooled = self._backlog.left_count
        self.queue.log_troubles()
        if left := self._backlog.memory_count:
            # Without a spool, or with one that took no more: said at least once.
            log.error("the emitter ends, and %s events are neither on Kafka nor on disk", left)

    async def _run(self) -> None:
        self._backlog.adopt()
        delivery = Delivery(self._backlog, self._settings, self.counts, on_done=self._answer)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(delivery.run()),
                group.create_task(self._publish_health(delivery)),
            ]
            await self._pump(delivery)
            for task in tasks:
                task.cancel()

    async def _pump(self, delivery: Delivery) -> None:
        """Look at the queue again and again, until it is time to end."""
        busy_until_s = 0.0
        adopt_at_s = time.monotonic() + ADOPT_INTERVAL_S
        while not self._is_over():
            # Flushes first: what was said before them is in the queue by now.
            flushes = [self._flushes.popleft() for _ in range(len(self._flushes))]
            while encoded := self._encode():
                busy_until_s = time.monotonic() + BUSY_FOR_S
                if encoded < SLICE_COUNT:
                    break
                await asyncio.sleep(0)
            self._waiting.extend((self._backlog.appended_count, done) for done in flushes)
            await self._spill()
            if not self._backlog.is_empty:
                delivery.wake()
            elif time.monotonic() >= adopt_at_s:
                # Only now: what is adopted later must not come between what is under way.
                self._backlog.adopt()
                adopt_at_s = time.monotonic() + ADOPT_INTERVAL_S
            self._answer()
            self.queue.set_behind(self._backlog.memory_count, self._backlog.memory_bytes)
            self.queue.log_troubles()
            busy = time.monotonic() < busy_until_s
            await asyncio.sleep(TICK_BUSY_S if busy else TICK_IDLE_S)

    async def _spill(self) -> None:
        while self._backlog.spill(older_than_s=FLUSH_INTERVAL_S):  # noqa: ASYNC110 - not a wait
            await asyncio.sleep(0)

    def _is_over(self) -> bool:
        if not self._closing.is_set():
            return False
        if time.monotonic() >= self._deadline_s:
            return True
        return not (self.queued_count or self._backlog.spooled_count)

    def _encode(self) -> int:
        """Move a slice of the queue to the backlog; return how many that were."""
        taken = self.queue.take(SLICE_COUNT)
        for said in taken:
            item = encode(said, self.source, self._sequence + 1)
            if isinstance(item, Refusal):
                detail = item.detail
                shown = f"{said[0]}: {detail.field}: {detail.value}; use {detail.allowed}"
                self.queue.complain(shown)
                continue
            self._sequence += 1
            self._backlog.append(item)
        return len(taken)

    def _answer(self) -> None:
        """Tell those who wait in `flush`, and show what is on disk now."""
        self._spooled = self._backlog.spooled_count
        while self._waiting and self._waiting[0][0] <= self._backlog.done_count:
            self._waiting.popleft()[1].set()

    async def _publish_health(self, delivery: Delivery) -> None:
        number = 0
        while True:
            await asyncio.sleep(HEALTH_INTERVAL_S)
            number += 1
            emitter = EmitterHealth(
                queued=self.queued_count,
                spooled=self._spooled,
                dropped=self.queue.dropped_count + self.counts.refused + self.damaged_count,
            )
            envelope = Envelope(
                id=f"{self.source}-{number}",
                source=self.source,
                type="stoploss.health",
                subject=self.source,
                time=rfc3339(time.time_ns() // 1_000_000),
                data=Health(source=self.source, emitter=emitter),
            )
            with contextlib.suppress(TimeoutError):
                key = self.source.encode()
                await delivery.send_aside(Topic.HEALTH, key, msgspec.json.encode(envelope))


def _prefix_of_environment() -> str:
    """Return the prefix that the settings will have when they are loaded; delivery says what is wrong."""
    try:
        return load_settings().topic_prefix
    except StoplossError:
        return DEFAULT_PREFIX
