"""Delivery in a process of its own: whatever a sink does, no agent waits for it.

What it tells are a few numbers of each sink, in memory that both share.
"""

import asyncio
import contextlib
import ctypes
import logging
import multiprocessing
import multiprocessing.process
import os
import signal
from collections.abc import MutableSequence, Sequence
from multiprocessing.context import SpawnProcess
from typing import cast

from streams.agents.delivery.sinks import Sink
from streams.agents.metrics import AgentsMetrics, SinkFigures
from streams.kafka.processes import Backoff, end, ended, pause
from streams.kafka.settings import Settings

log = logging.getLogger("stoploss.agents")

NAME = "delivery"
LAG, SENT, REFUSED, FAILURES, FIXED = range(5)
TELL_EVERY_S = 0.5
KILL_AFTER_S = 5.0


async def keep_delivering(
    settings: Settings, sinks: Sequence[Sink], stop: asyncio.Event, metrics: AgentsMetrics
) -> None:
    """Run one process after the other that delivers to all sinks, until `stop`."""
    clock = asyncio.get_running_loop().time
    backoff = Backoff()
    seen = [metrics.sink(sink.name) for sink in sinks]
    while not stop.is_set():
        started_s = clock()
        process, values = _spawn(settings, sinks)
        for index, figures in enumerate(seen):
            figures.begins(_told(values, index))
        watching = asyncio.get_running_loop().create_task(_watch(values, seen))
        try:
            await ended(process, stop)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            patience_s = settings.stop_deadline_ms / 1000 + KILL_AFTER_S
            await end(process, patience_s if stop.is_set() else KILL_AFTER_S)
        if stop.is_set():
            return
        pause_s = backoff.after(clock() - started_s)
        metrics.restarted(NAME, "ended")
        log.error("agents: %s: ended with %s; again in %g s", NAME, process.exitcode, pause_s)
        await pause(stop, pause_s)


async def _watch(values: MutableSequence[int], seen: Sequence[SinkFigures]) -> None:
    while True:
        for index, figures in enumerate(seen):
            figures.now = _told(values, index)
        await asyncio.sleep(TELL_EVERY_S)


def _told(values: Sequence[int], index: int) -> tuple[int, int, int, int]:
    at = index * FIXED
    return values[at + LAG], values[at + SENT], values[at + REFUSED], values[at + FAILURES]


def _spawn(settings: Settings, sinks: Sequence[Sink]) -> tuple[SpawnProcess, MutableSequence[int]]:
    context = multiprocessing.get_context("spawn")
    values = cast("MutableSequence[int]", context.RawArray(ctypes.c_longlong, FIXED * len(sinks)))
    process = context.Process(
        target=_worker, args=(settings, sinks, values), name="agents-delivery"
    )
    process.start()
    return process, values


def _worker(settings: Settings, sinks: Sequence[Sink], values: MutableSequence[int]) -> None:
    """Run in the new process; it ends with its parent, however that ends."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("stoploss").setLevel(logging.INFO)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    parent = multiprocessing.process.parent_process()
    assert parent is not None
    code = 1
    try:
        asyncio.run(_until_told(settings, sinks, values, parent.sentinel))
        code = 0
    finally:
        logging.shutdown()
        os._exit(code)


async def _until_told(
    settings: Settings, sinks: Sequence[Sink], values: MutableSequence[int], parent_fd: int
) -> None:
    from streams.agents.delivery.deliver import Deliverer, deliver  # noqa: PLC0415 - aiohttp, which takes a third of a second

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_reader(parent_fd, stop.set)

    def tell(deliverers: Sequence[Deliverer]) -> None:
        for index, each in enumerate(deliverers):
            outcomes = each.courier.outcomes
            told = (each.lag, outcomes.sent, outcomes.refused, outcomes.failures)
            values[index * FIXED : (index + 1) * FIXED] = told

    delivering = loop.create_task(deliver(settings, sinks, tell))
    stopping = loop.create_task(stop.wait())
    await asyncio.wait((delivering, stopping), return_when=asyncio.FIRST_COMPLETED)
    for task in (delivering, stopping):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await delivering
