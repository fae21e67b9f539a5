"""The ledger as a coroutine, and as a process: it waits for Kafka, and ends when it is told to."""

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Coroutine
from typing import Any

import aiokafka.errors

from schemas.errors import UnavailableError
from streams.budget.policy import builtin_policy
from streams.budget.sleep import Patience
from streams.kafka.appender import Appender
from streams.kafka.drivers import connect_by
from streams.kafka.loop import loop_factory
from streams.kafka.settings import Settings
from streams.kafka.tracing import open_tracing
from streams.ledger.account import keep_saying
from streams.ledger.assignment import Assignment, MakeConsumer, group_consumer
from streams.ledger.ending import listening
from streams.ledger.health import LedgerHealth
from streams.ledger.metrics import LedgerMetrics, start_metrics, unseen
from streams.ledger.partition import BACKOFF_FIRST_S, BACKOFF_MAX_S, Shared

log = logging.getLogger("stoploss.ledger")

# Collecting cost 15 % at full load: nothing of ours has cycles that matter before this many.
GC_THRESHOLDS = (50_000, 20, 50)
# Beyond `stop_deadline_ms`, for a Kafka that does not answer: aborting and closing what a partition
# has takes 7 s at most, leaving the group 3 of the same, closing the appender 2, sending the last spans
# half a second. Whatever does not keep to its bounds is ended by force.
LET_GO_WITHIN_S = 15.0
AWAY = (aiokafka.errors.KafkaError, UnavailableError, OSError)


async def run_ledger(
    settings: Settings,
    *,
    stop: asyncio.Event | None = None,
    metrics: LedgerMetrics | None = None,
    health: LedgerHealth | None = None,
    own_process: bool = False,
) -> None:
    """Fold `events` until `stop` is set; waits for Kafka where it is away, at the start and later.

    Args:
        settings: where, and under which prefix.
        stop: set it to end: open batches are finished or aborted within `stop_deadline_ms`.
        metrics: where the figures go; nowhere where left out.
        health: tells how it is.
        own_process: whether the garbage collector may be tuned for this alone.
    """
    stop = asyncio.Event() if stop is None else stop
    metrics = unseen() if metrics is None else metrics
    health = LedgerHealth() if health is None else health
    watched = health
    metrics.watch_health(lambda: watched.state)
    if own_process:
        gc.set_threshold(*GC_THRESHOLDS)
    tracing = open_tracing(settings, "ledger")
    shared = Shared(
        settings=settings,
        default_policy=builtin_policy(),
        connect=connect_by(settings),
        appender=Appender(settings, "ledger-appender"),
        wall_ms=_wall_ms,
        metrics=metrics,
        health=health,
        patience=Patience(),
        freeze=own_process,
        tracing=tracing,
    )
    saying = asyncio.get_running_loop().create_task(_say(settings, stop, metrics))
    try:
        await serve(shared, stop, lambda held: group_consumer(settings, held))
    finally:
        saying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await saying
        if tracing is not None:
            await asyncio.to_thread(tracing.close)


async def _say(settings: Settings, stop: asyncio.Event, metrics: LedgerMetrics) -> None:
    """Say how the process is, until `stop`; then let go at the same time as all others do."""
    # Of its own: what it may not write, say, must not take the connection away from ticks.
    appender = Appender(settings, "ledger-health")
    try:
        await _unless(stop, keep_saying(appender, settings, metrics.account, _wall_ms))
    finally:
        await appender.close()


async def serve(shared: Shared, stop: asyncio.Event, make_consumer: MakeConsumer) -> None:
    """Be a member of the group until `stop`, again and again where that fails.

    Args:
        shared: what the partitions are given.
        stop: set it to end.
        make_consumer: each consumer is good for one membership.
    """
    failures = 0
    try:
        while not stop.is_set():
            try:
                await _take_part(shared, stop, make_consumer)
            except AWAY as error:
                shared.health.away("group", _said(error))
                await _wait(stop, min(BACKOFF_FIRST_S * 2.0**failures, BACKOFF_MAX_S))
                failures = min(failures + 1, 10)
            else:
                failures = 0
    finally:
        shared.health.stopping()
        await shared.appender.close()


async def _take_part(shared: Shared, stop: asyncio.Event, make_consumer: MakeConsumer) -> None:
    """Be a member of the group until `stop`, or until something is wrong with the group.

    Raises:
        KafkaError: of the group.
        UnavailableError: no broker answers, or there is no topic.
    """
    # A consumer that asks for a topic which does not exist may create it, with wrong settings.
    await _unless(stop, _look(shared))
    if stop.is_set():
        return
    failed = None
    async with asyncio.TaskGroup() as group:
        assignment = Assignment(shared, group, make_consumer)
        try:
            await _unless(stop, _attend(shared, assignment))
        except AWAY as error:
            failed = error  # raised below: out of a group of tasks, errors come as a group
        finally:
            if stop.is_set():
                shared.health.stopping()
            await assignment.close(shared.settings.stop_deadline_ms / 1000)
    if failed is not None:
        raise failed


async def _look(shared: Shared) -> None:
    await (await shared.connect(0)).close()


async def _attend(shared: Shared, assignment: Assignment) -> None:
    await assignment.start()
    shared.health.back("group")
    await assignment.watch()


async def _unless(stop: asyncio.Event, doing: Coroutine[Any, Any, None]) -> None:
    """Do it to its end, or until `stop`; what it raises is raised."""
    loop = asyncio.get_running_loop()
    stopped, task = loop.create_task(stop.wait()), loop.create_task(doing)
    try:
        await asyncio.wait([stopped, task], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        stopped.cancel()
        task.cancel()
        await asyncio.gather(stopped, task, return_exceptions=True)


async def _wait(stop: asyncio.Event, wait_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await stop.wait()


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def run_process(settings: Settings, worker: int = 0, stop_fd: int | None = None) -> None:
    """Run a ledger in this process until SIGTERM or SIGINT, or until `stop_fd` becomes readable.

    Then the process ends within `stop_deadline_ms` and `LET_GO_WITHIN_S`, whatever holds it: by
    force and with `ending.FORCED_EXIT`, if it must be. Nothing is lost by that: it is as if it had
    crashed.

    Args:
        settings: of the ledger.
        worker: which of several on this machine, for its metrics port.
        stop_fd: readable when the parent process has ended.

    Raises:
        InvalidFieldError: the metrics port that was asked for is taken.
    """
    # Its own lines about an absent broker, several a second; ours are one per change.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    export = start_metrics(settings, worker)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_until_told(settings, export.metrics, stop_fd))
    finally:
        export.close()


async def _until_told(settings: Settings, metrics: LedgerMetrics, stop_fd: int | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    within_s = settings.stop_deadline_ms / 1000 + LET_GO_WITHIN_S
    with listening(lambda: loop.call_soon_threadsafe(stop.set), within_s, stop_fd):
        await run_ledger(settings, stop=stop, metrics=metrics, own_process=True)
