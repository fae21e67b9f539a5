"""The ledger as processes: they end when they are told to, and with whoever started them."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from streams.kafka.settings import Driver
from streams.ledger.ending import FORCED_EXIT
from tests.integration.kafka_world import World, eventually, make_world

pytestmark = pytest.mark.integration

PROGRAM = """
import logging
import sys
import threading
from streams.kafka.settings import load_settings
from streams.ledger import run
from streams.ledger.supervisor import main
logging.basicConfig(level=logging.INFO)
{before}
if __name__ == "__main__":
    main(load_settings(), workers={workers})
"""

# The event loop says that a partition is restored, and comes back from that no more.
HELD = """
run.LET_GO_WITHIN_S = 0.5
def holds(record):
    if "tasks restored" in record.msg:
        print("held", file=sys.stderr, flush=True)
        threading.Event().wait()
    return True
logging.getLogger("stoploss.ledger").addFilter(holds)
"""
DEADLINES = {"STOPLOSS_BATCH_DEADLINE_MS": "500", "STOPLOSS_STOP_DEADLINE_MS": "1000"}


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> World:
    return await make_world(bootstrap_servers, topic_prefix)


class Ledger:
    """A ledger in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.workers: list[psutil.Process] = []

    async def ended(self) -> int:
        """Wait for the process and all its workers to end."""
        async with asyncio.timeout(40):
            code = await self.process.wait()
        await eventually(self._no_worker_lives)
        return code

    async def _no_worker_lives(self) -> bool:
        return not any(
            worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE
            for worker in self.workers
        )

    async def has_workers(self, count: int) -> bool:
        children = psutil.Process(self.process.pid).children()
        self.workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        return len(self.workers) == count


Start = Callable[..., Awaitable[Ledger]]


@pytest.fixture
async def start(world: World, tmp_path: Path) -> AsyncIterator[Start]:
    started: list[Ledger] = []

    async def begin(workers: int, before: str = "", **named: str) -> Ledger:
        path = tmp_path / "ledger_program.py"
        path.write_text(PROGRAM.format(workers=workers, before=before))
        environ = os.environ | {
            "STOPLOSS_BOOTSTRAP_SERVERS": world.settings.bootstrap_servers,
            "STOPLOSS_TOPIC_PREFIX": world.settings.topic_prefix,
            "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path]),
        }
        with (tmp_path / "ledger.log").open("wb") as log:
            ledger = Ledger(
                await asyncio.create_subprocess_exec(
                    sys.executable, path, env=environ | named, stderr=log
                )
            )
        started.append(ledger)
        return ledger

    yield begin
    for ledger in started:
        if ledger.process.returncode is None:
            ledger.process.kill()
            await ledger.ended()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_everything_committed(
    world: World, start: Start, number: signal.Signals, driver: Driver
) -> None:
    ledger: Ledger = await start(1, STOPLOSS_DRIVER=driver)
    await world.send([world.usage(f"TASK-{n % 7}", 100) for n in range(500)])
    await world.until_folded()
    ledger.process.send_signal(number)
    assert await ledger.ended() == 0
    assert await world.used_tokens() == world.tokens


async def test_whatever_holds_it_does_not_hold_it_for_ever(
    world: World, start: Start, tmp_path: Path
) -> None:
    stuck = "threading.Thread(target=threading.Event().wait, name='stuck').start()"
    ledger: Ledger = await start(1, stuck, **DEADLINES)
    await world.send([world.usage("TASK-1", 100)])
    await world.until_folded()
    ledger.process.send_signal(signal.SIGTERM)
    assert await ledger.ended() == FORCED_EXIT
    said = (tmp_path / "ledger.log").read_text()
    assert "ledger: does not end: ended by force" in said
    assert "threading.py" in said


async def test_a_loop_that_turns_no_more_does_not_hold_it_either(
    start: Start, tmp_path: Path
) -> None:
    ledger: Ledger = await start(1, HELD, **DEADLINES)
    await eventually(lambda: _is_held(tmp_path))
    ledger.process.send_signal(signal.SIGTERM)
    assert await ledger.ended() == FORCED_EXIT
    assert "ledger: does not end: ended by force" in (tmp_path / "ledger.log").read_text()


async def test_a_worker_whose_loop_turns_no_more_ends_with_its_parent(
    start: Start, tmp_path: Path
) -> None:
    ledger: Ledger = await start(2, HELD, **DEADLINES)
    await eventually(lambda: ledger.has_workers(2))
    await eventually(lambda: _is_held(tmp_path))
    ledger.process.kill()
    await ledger.ended()
    assert "ledger: does not end: ended by force" in (tmp_path / "ledger.log").read_text()


async def _is_held(folder: Path) -> bool:
    return "held" in (folder / "ledger.log").read_text()


async def test_a_worker_that_dies_is_started_again_and_all_end_together(
    world: World, start: Start
) -> None:
    ledger: Ledger = await start(2)
    await eventually(lambda: ledger.has_workers(2))
    await world.send([world.usage(f"TASK-{n % 7}", 100) for n in range(500)])
    await world.until_folded()
    ledger.workers[0].kill()
    await world.send([world.usage(f"TASK-{n % 7}", 100) for n in range(500)])
    await world.until_folded()
    await eventually(lambda: ledger.has_workers(2))
    ledger.process.send_signal(signal.SIGTERM)
    assert await ledger.ended() == 0


async def test_workers_end_with_their_parent_however_it_ends(world: World, start: Start) -> None:
    ledger: Ledger = await start(2)
    await eventually(lambda: ledger.has_workers(2))
    await world.send([world.usage("TASK-1", 100)])
    await world.until_folded()
    ledger.process.kill()
    await ledger.ended()


async def test_a_worker_whose_port_is_taken_says_so_in_a_line_and_is_started_again(
    start: Start, tmp_path: Path
) -> None:
    def said() -> str:
        return (tmp_path / "ledger.log").read_text()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ledger: Ledger = await start(2, STOPLOSS_PROMETHEUS_PORT=str(port))

        async def told_twice() -> bool:
            return said().count(f"worker 0: prometheus_port: {port} is not allowed; use a free") > 1

        await eventually(told_twice)
        assert "worker 0 ended with 2; again in 1.0 s" in said()
        assert "Traceback" not in said()
    ledger.process.send_signal(signal.SIGTERM)
    assert await ledger.ended() == 0
