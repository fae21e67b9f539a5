"""One partition of `events`, from assignment to release: fence, restore, then read, fold, commit.

Everything that goes wrong ends in the same place: the state and the producer are thrown away, and
the partition is taken over again, from the topic.
"""

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from msgspec import Struct

from schemas.errors import StoplossError, UnavailableError
from schemas.topics import OUTPUTS, Topic
from streams.budget.fold import open_task_count
from streams.budget.policy import Policy
from streams.budget.sleep import Patience, Sleep
from streams.budget.snapshot import each_change
from streams.budget.state import PartitionState
from streams.kafka import failpoints
from streams.kafka.errors import FencedError, OffsetGoneError, UnconfirmedBatchError
from streams.kafka.ports import (
    Chunk,
    Connect,
    Connection,
    PartitionReader,
    PartitionWriter,
    RecordAppender,
)
from streams.kafka.settings import Settings
from streams.kafka.tracing import Tracing
from streams.ledger.batch import OpenBatch
from streams.ledger.folding import fold_records
from streams.ledger.health import LedgerHealth
from streams.ledger.heartbeat import Standing, beat
from streams.ledger.inbox import Inbox
from streams.ledger.metrics import LedgerMetrics, PartitionFigures
from streams.ledger.publish import Publisher
from streams.ledger.restore import lost_state, restore_partition
from streams.ledger.ticks import policy_record, tick
from streams.ledger.traces import CommittedBatch, tell_spans

log = logging.getLogger("stoploss.ledger")

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
# With 1 ms a decision at 2,000 events/s came 1 ms earlier than with 3, for 4 % more CPU.
PACE_S = 0.001


class Shared(Struct, frozen=True):
    """What the partitions of one process have in common."""

    settings: Settings
    default_policy: Policy
    connect: Connect
    appender: RecordAppender
    wall_ms: Callable[[], int]
    metrics: LedgerMetrics
    health: LedgerHealth
    patience: Patience
    freeze: bool  # whether the process is ours, so that its garbage collector may be told things
    tracing: Tracing | None = None


class PartitionWorker:
    """Owns a partition until it is released."""

    def __init__(self, shared: Shared, partition: int) -> None:
        self._shared = shared
        self.partition = partition
        self.next_offset: int | None = None  # committed; None while there is no state
        self._released = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._inbox = Inbox()
        self._part = shared.health.part(f"partition {partition}")
        self._figures: PartitionFigures | None = None
        self._failures = 0
        self._taking_over: asyncio.Task[Any] | None = None
        self._fencing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<PartitionWorker {self.partition} next_offset={self.next_offset}>"

    def release(self) -> None:
        """Finish the open batch and let go; `run` returns soon."""
        self._released.set()
        self._settled.set()
        self._inbox.wake()
        if self._taking_over is not None:
            self._taking_over.cancel()  # there is no batch yet; restoring may take long

    def hold(self) -> None:
        """The group decides anew: go on while nobody fences us, but fence nobody until `keep`.

        A fence that is under way is called off: it may wait for a broker until the group has given
        the partition to somebody else. What has left for the broker has left before we join again;
        librdkafka, which is asked to stop between two slices of its call, may be a slice later.
        """
        self._settled.clear()
        if self._fencing is not None:
            self._fencing.cancel()  # at once: a time-out would leave it another turn of the loop
            self._fencing = None  # and once: how it lets go is not to be disturbed

    def keep(self) -> None:
        """The partition is ours as before."""
        self._settled.set()

    async def run(self) -> None:
        """Own the partition until `release`; whatever goes wrong is said, and tried again."""
        try:
            while not self._released.is_set():
                pause_s = await self._own_once()
                await self._pause(pause_s)
        except asyncio.CancelledError:
            if not self._released.is_set():
                raise
        finally:
            self._part.gone()
            if self._figures is not None:
                self._shared.metrics.released(self.partition, self._figures)

    async def _own_once(self) -> float:
        """Own the partition until something ends it; return how long to wait before the next time."""
        settings = self._shared.settings
        try:
            await self._own()
        except FencedError as error:
            if self._released.is_set():
                # The next owner was quicker than our last batch, which it folds again.
                log.info("ledger: %s before the last batch was committed", error)
                return 0.0
            log.warning("ledger: %s; its state is dropped", error)
            self._shared.metrics.failed(self.partition, "fenced")
            # Either the group has moved on and will tell us soon, or our own transaction ran out
            # of time. In both cases: not before we must have heard.
            return settings.heartbeat_interval_ms * 2 / 1000 if self._settled.is_set() else 0.0
        except UnconfirmedBatchError as error:
            log.warning("ledger: %s; the state is restored from the topic", error)
            self._shared.metrics.failed(self.partition, "unconfirmed")
        except UnavailableError as error:
            self._part.away(error)
        except StoplossError as error:
            log.error("ledger: partition %s stands still: %s", self.partition, error)  # noqa: TRY400 - one line
            self._shared.metrics.failed(self.partition, "stopped")
            self._part.still(error)
        except Exception as mistake:
            # A mistake of ours about one partition leaves the others alone; the state is suspect.
            log.exception("ledger: partition %s", self.partition)
            self._shared.metrics.failed(self.partition, "mistake")
            self._part.still(repr(mistake))
        self._failures += 1
        return min(BACKOFF_FIRST_S * 2.0 ** (self._failures - 1), BACKOFF_MAX_S)

    async def _pause(self, pause_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._released.wait()

    async def _own(self) -> None:
        settings = self._shared.settings
        events = settings.topic(Topic.EVENTS)
        self._taking_over = asyncio.current_task()
        kafka = await self._shared.connect(self.partition)
        writer = kafka.writer()
        try:
            # 1. the predecessor has ended, with its open transaction
            started_s = await self._fence(writer)
            failpoints.hit("after_init_transactions")
            state = await self._restore(kafka, writer)  # 2. what it committed
            failpoints.hit("after_restore")
            if self._shared.freeze:
                gc.freeze()  # what was restored lives long: not to be looked through again
            reader = kafka.reader(events, state.next_offset)  # 3.
            restore_ms = (time.monotonic() - started_s) * 1000
            self._figures = figures = self._shared.metrics.owned(self.partition, restore_ms)
            log.info(
                "ledger: partition %s: %s tasks restored in %.0f ms; goes on at offset %s",
                self.partition,
                len(state.tasks),
                restore_ms,
                state.next_offset,
            )
            self._part.back()
            self._inbox = Inbox()
            self._taking_over = None
            self.next_offset = state.next_offset
            run = _Run(self._shared, state, writer, self._inbox, figures, self._committed)
            await self._together(  # 4.
                run.process(self._released),
                self._pump(reader, run),
                self._append_policy(state),
                tick(
                    self._shared.appender,
                    settings,
                    state,
                    held=lambda: self._inbox.records > 0,
                    wall_ms=self._shared.wall_ms,
                ),
                beat(
                    self._shared.appender,
                    settings,
                    self.partition,
                    standing=lambda: run.standing,
                    wall_ms=self._shared.wall_ms,
                ),
            )
        finally:
            self._taking_over = self.next_offset = None
            await writer.close()
            await kafka.close()

    async def _fence(self, writer: PartitionWriter) -> float:
        """Fence, and not while the group decides: we might fence who it gives the partition to.

        Returns:
            When it was begun, in seconds of the monotonic clock.
        """
        while True:
            # Not once: between `keep` and our turn the group may have begun to decide anew.
            while not self._settled.is_set():
                log.info("ledger: partition %s: waits for the group to decide", self.partition)
                await self._settled.wait()
            begun_s = time.monotonic()
            try:
                async with asyncio.TaskGroup() as group:
                    fencing = self._fencing = group.create_task(writer.fence())
            except BaseExceptionGroup as errors:
                raise _first(errors) from None
            finally:
                self._fencing = None
            if not fencing.cancelled():  # else by `hold`
                return begun_s

    async def _restore(self, kafka: Connection, writer: PartitionWriter) -> PartitionState:
        """Return the state that `tasks` describes.

        Raises:
            TornStateError: a record of it is torn or foreign, or all of it is lost.
        """
        shared, topic = self._shared, self._shared.settings.topic
        arguments = self.partition, shared.default_policy
        tasks = partial(kafka.reader, topic(Topic.TASKS), is_compacted=True)
        state = await restore_partition(tasks(), *arguments)
        if state.next_offset:
            return state
        outputs = {one: kafka.reader(topic(one), is_compacted=True) for one in OUTPUTS}
        if (lost := await lost_state(self.partition, outputs)) is None:
            return state
        # Whoever has taken over from us may have written it since we have looked into `tasks`. To fence
        # once more ends that transaction as well: if it was committed, `tasks` has its part by now.
        await self._fence(writer)
        state = await restore_partition(tasks(), *arguments)
        if not state.next_offset:
            raise lost
        return state

    async def _together(
        self, main: Coroutine[Any, Any, None], *others: Coroutine[Any, Any, None]
    ) -> None:
        """Run `main` with the others beside it; the first error of any of them is the error."""
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(other) for other in others]
                await main
                for task in beside:
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise _first(errors) from None

    def _committed(self, next_offset: int) -> None:
        self.next_offset = next_offset
        self._failures = 0
        self._part.moving()

    async def _pump(self, reader: PartitionReader, run: "_Run") -> None:
        """Read ahead into the inbox, until cancelled."""
        failures = 0
        while True:
            try:
                chunks = await reader.read()
            except UnavailableError as error:
                self._part.away(error)
                await asyncio.sleep(min(BACKOFF_FIRST_S * 2.0**failures, BACKOFF_MAX_S))
                failures = min(failures + 1, 10)
                continue
            except OffsetGoneError as gone:
                if gone.offset > gone.end:
                    raise  # `events` is not the topic that the state is about
                # What is there again is read again; what is not is said in its place.
                first = max(gone.offset, gone.first)
                reader.seek(first)
                chunks = [Chunk([], gone.offset, first, gone.end, gone=first - gone.offset)]
            if failures:
                failures = 0
            self._part.back()
            for chunk in chunks:
                if chunk.gone:
                    self._lost(chunk)
                await self._inbox.put(chunk)
                run.is_behind(max(0, chunk.end_offset - chunk.next_offset))
            if not chunks or chunks[-1].next_offset >= chunks[-1].end_offset:
                # Caught up: what comes while a commit is on its way is read in one go after it, and
                # what comes in quick succession together. Read an event or two at a time, 2,000
                # events/s kept broker and ledger busy with nothing but fetching.
                await asyncio.sleep(PACE_S if chunks else 0)
                await self._inbox.wanted()

    def _lost(self, chunk: Chunk) -> None:
        """Say that events are gone, whoever has deleted or lost them."""
        log.error(
            "ledger: partition %s: %s events of offsets %s to %s were deleted before they were folded",
            self.partition,
            chunk.gone,
            chunk.offset,
            chunk.next_offset - 1,
        )
        self._shared.metrics.failed(self.partition, "events_lost")

    async def _append_policy(self, state: PartitionState) -> None:
        """Append the built-in policy where there is none yet; it counts when it comes back."""
        if state.policy is not None:
            return
        shared = self._shared
        record = policy_record(
            shared.settings, self.partition, shared.default_policy, shared.wall_ms()
        )
        while True:
            with contextlib.suppress(UnavailableError):
                await self._shared.appender.append(record)
                return
            await asyncio.sleep(BACKOFF_MAX_S)


class _Run:
    """The state of an owned partition, and what moves it on."""

    def __init__(
        self,
        shared: Shared,
        state: PartitionState,
        writer: PartitionWriter,
        inbox: Inbox,
        figures: PartitionFigures,
        committed: Callable[[int], None],
    ) -> None:
        self._shared, self._state, self._writer = shared, state, writer
        self._inbox, self._figures, self._on_committed = inbox, figures, committed
        self._publisher = Publisher(shared.settings, state.partition)
        self._sleep = Sleep(state, shared.patience)
        self._open: OpenBatch | None = None
        self._read_to = state.next_offset
        self._lag = 0
        self._unread = 0
        self._stand()

    @property
    def _waiting(self) -> int:
        """How many events could be folded at once."""
        return self._lag + self._inbox.records

    async def process(self, released: asyncio.Event) -> None:
        """Fold what comes in and commit it, until released; then commit what is open."""
        clock = asyncio.get_running_loop().time
        while not released.is_set():
            wait_s = None
            if self._open is not None:
                wait_s = max(0.0, self._open.due_in_s(clock(), lag=self._waiting))
            chunk = await self._inbox.get(wait_s)
            if chunk is not None:
                self._fold(chunk, clock())
                failpoints.hit("after_fold")
            if self._open is None:
                continue
            # What has already been read comes along: a commit costs what it costs.
            if self._open.due_in_s(clock(), lag=self._waiting) <= 0:
                await self._commit()
            elif chunk is not None:
                await asyncio.sleep(0)  # the other partitions' turn
        if self._open is not None:
            await self._commit()

    def _fold(self, chunk: Chunk, now_s: float) -> None:
        # The reader says what it has passed over. Whatever else is not there is our own mistake: the
        # state is thrown away, and what came since the last commit is read again.
        assert chunk.offset == self._read_to, f"read to {self._read_to}, then from {chunk.offset}"
        assert chunk.is_whole, f"records are missing from {chunk.offset} to {chunk.next_offset}"
        self._read_to = chunk.next_offset
        self._lag = max(0, chunk.end_offset - chunk.next_offset)
        if not chunk.records:
            return
        if self._open is None:
            self._open = OpenBatch(now_s)
        batch = self._open
        if batch.first_append_ms is None:
            batch.first_append_ms = chunk.records[0].timestamp
        is_tracing = self._shared.tracing is not None
        fold_records(chunk.records, self._state, self._publisher, batch, is_tracing=is_tracing)

    async def _commit(self) -> None:
        open_batch, self._open = self._open, None
        assert open_batch is not None
        state = self._state
        batch = self._writer.batch()
        for record in open_batch.records:
            batch.produce(record)
        changes = self._publisher.records(each_change(state), state.clock_ms)
        for record in changes:
            batch.produce(record)
        first_offset, next_offset = self.standing.next_offset, state.next_offset
        started_s = time.monotonic()
        await batch.commit()
        failpoints.hit("before_advance")
        assert state.next_offset == next_offset, "folded while committing"
        self._stand()
        self._sleep.step()
        self._on_committed(next_offset)
        failpoints.hit("after_memory")
        records = len(open_batch.records) + len(changes)
        self._shared.metrics.committed(
            state.partition,
            events=open_batch.events,
            records=records,
            commit_ms=(time.monotonic() - started_s) * 1000,
            latency_ms=_age_ms(open_batch.first_append_ms, self._shared.wall_ms()),
            dead_letters=open_batch.dead_letters,
        )
        if self._shared.tracing is not None and open_batch.traced.kept:
            self._trace(self._shared.tracing, open_batch, first_offset, records)

    def _trace(self, tracing: Tracing, batch: OpenBatch, first_offset: int, records: int) -> None:
        committed_ms = self._shared.wall_ms()
        took_s = asyncio.get_running_loop().time() - batch.started_s
        told = CommittedBatch(
            partition=self._state.partition,
            events=batch.events,
            records=records,
            first_offset=first_offset,
            last_offset=self._state.next_offset - 1,
            began_ms=committed_ms - round(took_s * 1000),
            committed_ms=committed_ms,
        )
        tell_spans(tracing, told, batch.traced)

    def _stand(self) -> None:
        """Note what is committed now."""
        state = self._state
        self.standing = Standing(
            state.mode, state.active_policy.fail, state.clock_ms, state.next_offset
        )
        self._figures.mode = state.mode
        self._figures.open_tasks = open_task_count(state)
        self._figures.next_offset = state.next_offset
        self.is_behind(self._unread)

    def is_behind(self, unread: int) -> None:
        """Note how many offsets the reader has before it; what is not committed yet lags as well.

        Not end - next offset: the marker of an operator's transaction is no event, and would stand
        there as a lag of one until something else comes.
        """
        self._unread = unread
        folded = 0 if self._open is None else self._open.events
        self._figures.lag = unread + self._inbox.records + folded


def _age_ms(append_ms: int | None, wall_ms: int) -> float | None:
    """Return how old an event is by the wall clock, which may be behind the broker's."""
    if append_ms is None:
        return None
    return max(0.0, wall_ms - append_ms)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what went wrong first and alone matters; a fence before everything else."""
    flat = [
        _first(error) if isinstance(error, BaseExceptionGroup) else error
        for error in errors.exceptions
    ]
    fenced = [error for error in flat if isinstance(error, FencedError)]
    return (fenced or flat)[0]
