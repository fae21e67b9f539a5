"""Worker processes of ours, as the ledger's and the agents' supervisors have them."""

import asyncio
import logging
from multiprocessing.context import SpawnProcess

log = logging.getLogger("stoploss.processes")

BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 30.0
STEADY_AFTER_S = 60.0  # whoever has run for so long has not failed at its start


class Backoff:
    """How long to wait before the next worker: the longer, the more of them have failed in a row."""

    def __init__(self) -> None:
        self._failures = 0

    def after(self, ran_s: float) -> float:
        """Return the seconds to wait after a worker that has run for `ran_s`."""
        self._failures = 1 if ran_s > STEADY_AFTER_S else self._failures + 1
        return min(BACKOFF_FIRST_S * 2.0 ** min(self._failures - 1, 10), BACKOFF_MAX_S)


async def ended(process: SpawnProcess, *events: asyncio.Event) -> None:
    """Wait until the process has ended, or one of `events`."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(process.sentinel, done.set)
    tasks = [loop.create_task(each.wait()) for each in (done, *events)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(process.sentinel)
        for task in tasks:
            task.cancel()
    if done.is_set():
        process.join()


async def end(process: SpawnProcess, within_s: float) -> None:
    """Ask the process to end; kill it when it does not."""
    if process.is_alive():
        process.terminate()
    try:
        async with asyncio.timeout(within_s):
            await ended(process)
    except TimeoutError:
        log.error("%s does not end: killed", process.name)  # noqa: TRY400 - one line
        process.kill()
    process.join()


async def pause(stop: asyncio.Event, for_s: float) -> None:
    """Wait, or until `stop`."""
    try:
        async with asyncio.timeout(for_s):
            await stop.wait()
    except TimeoutError:
        return
