"""Agents are kept running: whoever ends is started again, and whoever stands still as well."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from schemas.topics import Topic
from streams.agents.baselines import AGENT
from streams.agents.metrics import export_to
from streams.agents.supervisor import Patience, supervise
from streams.cli.beside import agents_facts
from tests.integration.agents_world import (
    WITHIN_S,
    AgentsWorld,
    make_agents_world,
    settings_for,
    some_executions,
)
from tests.integration.kafka_world import eventually
from tests.integration.shell import environ, start

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

# A worker whose consumer stops after the first batch without failing, once, as faust's does. The
# module is run in the worker's process as well.
STALLING = """
import asyncio, logging, pathlib, signal, sys
from streams.agents import shell, supervisor
from streams.kafka.settings import load_settings
logging.basicConfig(level=logging.INFO, format="%(message)s")
mark = pathlib.Path(sys.argv[1])
batch = shell.StageRunner._batch
async def stalling(self, messages):
    await batch(self, messages)
    if not mark.exists():
        mark.touch()
        self._app.consumer.stop_flow()
shell.StageRunner._batch = stalling
async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    patience = supervisor.Patience(stall_s=8, look_every_s=0.5)
    await supervisor.supervise(load_settings(), ["baselines"], stop, patience=patience)
if __name__ == "__main__":
    asyncio.run(main())
"""
EXECUTIONS = some_executions(200)


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> AgentsWorld:
    return await make_agents_world(bootstrap_servers, topic_prefix, AGENT)


class Agents:
    """`stoploss agents`, or a program like it, with what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.said += line.decode()

    async def says(self, what: str) -> None:
        """Wait until it says so."""

        async def said() -> bool:
            assert self.process.returncode is None, self.said
            return what in self.said

        await eventually(said, WITHIN_S)

    def worker(self) -> psutil.Process:
        """Return the one worker."""
        children = psutil.Process(self.process.pid).children()
        (worker,) = [one for one in children if "spawn_main" in " ".join(one.cmdline())]
        return worker

    async def ended(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; return how it ended."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(40):
            code = await self.process.wait()
            await self._reading
        return code


@pytest.fixture
async def started() -> AsyncIterator[list[Agents]]:
    agents: list[Agents] = []
    yield agents
    for one in agents:
        await one.ended(signal.SIGKILL)


async def begin(world: AgentsWorld, started: list[Agents], **more: str) -> Agents:
    env = environ(world.settings, **more)
    agents = Agents(await start("agents", "baselines", env=env, stdout=asyncio.subprocess.DEVNULL))
    started.append(agents)
    return agents


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_agents_run_until_they_are_told_to_stop(
    world: AgentsWorld, started: list[Agents], number: signal.Signals, code: int
) -> None:
    agents = await begin(world, started)
    await world.send(EXECUTIONS)
    await agents.says("agents: baselines: runs")
    await world.until_done()
    assert await agents.ended(number) == code
    assert "Traceback" not in agents.said
    assert sum(one.executions for one in (await world.baselines()).values()) == 200
    assert await world.lag() == 0


async def test_one_that_is_killed_is_started_again(
    world: AgentsWorld, started: list[Agents]
) -> None:
    agents = await begin(world, started)
    await agents.says("agents: baselines: runs")
    agents.worker().kill()
    await agents.says("agents: baselines: worker ended with -9; again in 1 s")
    await world.send(EXECUTIONS)
    await world.until_done()
    said = {each.name: each for each in await agents_facts(world.settings, 2)}[AGENT.name]
    assert (said.restarts, said.restarted_because) == (1, "worker ended with -9")
    assert await agents.ended() == 0
    assert sum(one.executions for one in (await world.baselines()).values()) == 200


async def test_workers_end_with_their_supervisor_however_it_ends(
    world: AgentsWorld, started: list[Agents]
) -> None:
    agents = await begin(world, started)
    await agents.says("agents: baselines: runs")
    worker = agents.worker()
    agents.process.kill()

    async def gone() -> bool:
        return not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE

    await eventually(gone, WITHIN_S)
    assert await agents.ended() == -signal.SIGKILL


async def test_one_that_stands_still_is_replaced_and_that_is_said(
    world: AgentsWorld, started: list[Agents], tmp_path: Path
) -> None:
    program = tmp_path / "stalling.py"
    program.write_text(STALLING)
    own = environ(world.settings, PYTHONPATH=os.pathsep.join([str(Path.cwd()), *sys.path]))
    agents = Agents(
        await asyncio.create_subprocess_exec(
            sys.executable,
            program,
            tmp_path / "mark",
            env=own,
            stderr=asyncio.subprocess.PIPE,
        )
    )
    started.append(agents)
    await agents.says("agents: baselines: runs")
    await world.send(EXECUTIONS, each=10)
    await agents.says("agents: baselines: worker does not move: ")
    await world.until_done()
    assert await agents.ended() == 0
    assert (tmp_path / "mark").exists()
    assert sum(one.executions for one in (await world.baselines()).values()) == 200


async def test_one_that_does_not_answer_is_replaced(
    world: AgentsWorld, started: list[Agents], tmp_path: Path
) -> None:
    program = tmp_path / "stalling.py"
    program.write_text(STALLING)
    (tmp_path / "mark").touch()
    own = environ(world.settings, PYTHONPATH=os.pathsep.join([str(Path.cwd()), *sys.path]))
    agents = Agents(
        await asyncio.create_subprocess_exec(
            sys.executable, program, tmp_path / "mark", env=own, stderr=asyncio.subprocess.PIPE
        )
    )
    started.append(agents)
    await agents.says("agents: baselines: runs")
    os.kill(agents.worker().pid, signal.SIGSTOP)
    await agents.says("agents: baselines: worker does not answer for 8 s; again in 1 s")
    await world.send(EXECUTIONS)
    await world.until_done()
    assert await agents.ended() == 0


async def test_agents_wait_for_kafka_and_say_so_once(
    topic_prefix: str, started: list[Agents]
) -> None:
    nowhere = AgentsWorld(settings_for("127.0.0.1:9", topic_prefix), AGENT)
    agents = await begin(nowhere, started)
    await agents.says("agents: baselines: waits for Kafka: Kafka at 127.0.0.1:9: ")
    assert await agents.ended() == 0
    assert agents.said.count("\n") == agents.said.count("agents: ")


async def test_what_waits_is_seen_from_outside(world: AgentsWorld) -> None:
    export = export_to()
    seen = export.metrics.agent(AGENT.name)
    await world.send(some_executions(3_000), each=500)
    stop = asyncio.Event()
    behind: list[int] = []
    async with asyncio.TaskGroup() as group:
        running = supervise(
            world.settings, [AGENT.name], stop, export.metrics, Patience(look_every_s=0.1)
        )
        group.create_task(running)

        async def has_caught_up() -> bool:
            lag = seen.lag.get(Topic.EXECUTIONS)
            if lag is not None:
                behind.append(lag)
            return bool(behind) and sum(seen.lag.values()) == 0

        await eventually(has_caught_up, WITHIN_S)
        stop.set()
    assert behind[0] >= 4_000
    assert behind[-1] == 0
