"""Several ledgers on one machine: processes of one group, started again when one dies."""

import asyncio
import logging
import multiprocessing
import multiprocessing.process
import signal
from multiprocessing.context import SpawnContext, SpawnProcess

from schemas.errors import InvalidFieldError, StoplossError
from streams.kafka.drivers import connect_by
from streams.kafka.processes import Backoff, end, ended, pause
from streams.kafka.settings import Settings
from streams.ledger.run import LET_GO_WITHIN_S, run_process

log = logging.getLogger("stoploss.ledger")

WORKERS_MAX = 64
KILL_AFTER_S = LET_GO_WITHIN_S + 2.0  # beyond the worker's own deadline: it would have said why
REFUSED_EXIT = 2  # a setting is wrong, a port is taken: as the command line's own


def main(settings: Settings, workers: int = 1) -> None:
    """Run the ledger until SIGTERM or SIGINT: in this process, or in `workers` of them.

    Raises:
        InvalidFieldError: `workers`, the driver, or the metrics port.
    """
    if not 1 <= workers <= WORKERS_MAX:
        raise InvalidFieldError("workers", workers, f"1 to {WORKERS_MAX}")
    connect_by(settings)  # what is not installed is said once, not by each worker again and again
    if workers == 1:
        run_process(settings)
    else:
        asyncio.run(_supervise(settings, workers))


async def _supervise(settings: Settings, workers: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        for worker in range(workers):
            group.create_task(_keep(settings, worker, stop))


async def _keep(settings: Settings, worker: int, stop: asyncio.Event) -> None:
    """Run one worker, and the next one when it dies, until `stop`."""
    context = multiprocessing.get_context("spawn")
    clock = asyncio.get_running_loop().time
    backoff = Backoff()
    while not stop.is_set():
        started_s = clock()
        process = _spawn(context, settings, worker)
        await ended(process, stop)
        if stop.is_set():
            await end(process, settings.stop_deadline_ms / 1000 + KILL_AFTER_S)
            return
        pause_s = backoff.after(clock() - started_s)
        log.error(
            "ledger: worker %s ended with %s; again in %s s", worker, process.exitcode, pause_s
        )
        await pause(stop, pause_s)


def _spawn(context: SpawnContext, settings: Settings, worker: int) -> SpawnProcess:
    process = context.Process(target=_worker, args=(settings, worker), name=f"ledger-{worker}")
    process.start()
    return process


def _worker(settings: Settings, worker: int) -> None:
    """Run in the new process; it ends with its parent, however that ends."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parent = multiprocessing.process.parent_process()
    assert parent is not None
    try:
        run_process(settings, worker, stop_fd=parent.sentinel)
    except StoplossError as error:
        log.error("ledger: worker %s: %s", worker, error)  # noqa: TRY400 - one line
        raise SystemExit(REFUSED_EXIT) from None
