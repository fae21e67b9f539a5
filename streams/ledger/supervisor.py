"""Several ledgers on one machine: processes of one group, started again when one dies."""

import asyncio
import logging
import multiprocessing
import multiprocessing.process
import signal
from multiprocessing.context import SpawnContext, SpawnProcess

from schemas.errors import InvalidFieldError, StoplossError
from streams.kafka.drivers import connect_by
from streams.kafka.settings import Settings
from streams.ledger.run import LET_GO_WITHIN_S, run_process

log = logging.getLogger("stoploss.ledger")

WORKERS_MAX = 64
BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 30.0
STEADY_AFTER_S = 60.0  # whoever has run for so long has not failed at its start
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
    failures = 0
    while not stop.is_set():
        started_s = clock()
        process = _spawn(context, settings, worker)
        await _ended(process, stop)
        if stop.is_set():
            await _end(process, settings.stop_deadline_ms / 1000 + KILL_AFTER_S)
            return
        failures = 1 if clock() - started_s > STEADY_AFTER_S else failures + 1
        pause_s = min(BACKOFF_FIRST_S * 2 ** (failures - 1), BACKOFF_MAX_S)
        log.error(
            "ledger: worker %s ended with %s; again in %s s", worker, process.exitcode, pause_s
        )
        try:
            async with asyncio.timeout(pause_s):
                await stop.wait()
        except TimeoutError:
            continue


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


async def _ended(process: SpawnProcess, stop: asyncio.Event) -> None:
    """Wait until the process has ended, or `stop`."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(process.sentinel, ended.set)
    tasks = [loop.create_task(ended.wait()), loop.create_task(stop.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(process.sentinel)
        for task in tasks:
            task.cancel()
    if ended.is_set():
        process.join()


async def _end(process: SpawnProcess, within_s: float) -> None:
    """Ask the process to end; kill it when it does not."""
    if process.is_alive():
        process.terminate()
    never = asyncio.Event()
    try:
        async with asyncio.timeout(within_s):
            await _ended(process, never)
    except TimeoutError:
        log.error("ledger: %s does not end: killed", process.name)  # noqa: TRY400 - one line
        process.kill()
    process.join()
