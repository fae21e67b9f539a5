"""Agents that have far more to do than they can fall behind visibly, and hold nobody back."""

import asyncio
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from schemas.topics import Topic
from streams.agents.alerts import AGENT
from streams.local.ports import free_ports
from streams.local.redis import RedisServer
from tests.integration.agents_world import WITHIN_S, AgentsWorld, Worker, make_agents_world
from tests.integration.kafka_world import World, eventually
from tests.integration.shell import Ran, environ, stoploss
from tests.integration.view_world import running_view, shown

pytestmark = [pytest.mark.integration, pytest.mark.timeout(500)]

# `stoploss agents alerts` that takes what it reads, and is done with none of it while a file is there:
# how far behind it falls does not depend on the machine then. It lives meanwhile, as one does that is
# only too slow. The module is run in the worker's process as well.
HELD_UP = """
import asyncio, contextlib, logging, pathlib, signal, sys
from streams.agents import metrics, shell, supervisor
from streams.kafka.settings import load_settings
logging.basicConfig(level=logging.INFO, format="%(message)s")
gate = pathlib.Path(sys.argv[1])
take = shell.StageRunner._take
async def held_up(self, queue):
    events = await take(self, queue)
    while gate.exists():
        await asyncio.sleep(0.05)
    return events
shell.StageRunner._take = held_up
async def main():
    stop, settings = asyncio.Event(), load_settings()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    patience = supervisor.Patience(stall_s=300)
    with contextlib.closing(metrics.start_metrics(settings)) as export:
        await supervisor.supervise(settings, ["alerts"], stop, export.metrics, patience)
if __name__ == "__main__":
    asyncio.run(main())
"""
CROWD = 6_000
OVER_TOKENS = 100_000  # block, and all levels below it, with one event
NAMES = ("budget_breach", "task_blocked")
LAG = re.compile(r'^stoploss_agents_lag\{agent="alerts",.*topic="([\w-]+)"\} (\d+)', re.MULTILINE)


class Held:
    """Agents in a process, held up while the gate is shut."""

    def __init__(self, worker: Worker, gate: Path, port: int) -> None:
        self.worker, self.gate, self._port = worker, gate, port

    async def lag(self) -> dict[str, int]:
        """Return how many records wait, by topic, as a scraper of metrics sees it."""
        assert self.worker.process.returncode is None, self.worker.said
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self._port}/metrics") as answer,
        ):
            found = LAG.findall(await answer.text())
        return {topic: int(count) for topic, count in found}

    async def lags_by(self, least: int) -> bool:
        """Whether so many decisions wait."""
        return (await self.lag()).get(Topic.DECISIONS, 0) >= least

    async def has_caught_up(self) -> bool:
        lag = await self.lag()
        return bool(lag) and sum(lag.values()) == 0


@asynccontextmanager
async def held_up(world: World, folder: Path) -> AsyncIterator[Held]:
    """Run the agents until the end of the block."""
    program, gate, (port,) = folder / "held_up.py", folder / "gate", free_ports(1)
    program.write_text(HELD_UP)
    env = environ(
        world.settings,
        PYTHONPATH=os.pathsep.join([str(Path.cwd()), *sys.path]),
        STOPLOSS_PROMETHEUS_PORT=str(port),
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, gate, env=env, stderr=asyncio.subprocess.PIPE
    )
    worker = Worker(process)
    try:
        await worker.runs()
        yield Held(worker, gate, port)
    finally:
        gate.unlink(missing_ok=True)
        await worker.end()


async def test_agents_that_are_far_behind_show_it_hold_nobody_back_and_catch_up(
    bootstrap_servers: str, topic_prefix: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    agents: AgentsWorld = await make_agents_world(bootstrap_servers, topic_prefix, AGENT)
    world, url = World(agents.settings), redis_server.url

    async def doctor() -> Ran:
        env = environ(world.settings, STOPLOSS_REDIS_URL=url)
        return await stoploss("doctor", "--json", "--from", "view", env=env)

    async with (
        world.ledger(),
        shown(world, url) as view,
        running_view(world, url),
        held_up(world, tmp_path) as held,
    ):
        before = [f"BEFORE-{number}" for number in range(30)]
        await world.send([world.usage(task, OVER_TOKENS) for task in before])
        await eventually(partial(has_told, world, before), WITHIN_S)
        held.gate.touch()
        crowd = [f"CROWD-{number}" for number in range(CROWD)]
        await world.send([world.usage(task, OVER_TOKENS) for task in crowd])
        await eventually(partial(has_decided, world, [*before, *crowd]), WITHIN_S)
        await eventually(lambda: held.lags_by(CROWD), WITHIN_S)

        # The ledger has decided about all of them, and goes on; so does the view.
        await world.send([world.usage("LATER", OVER_TOKENS)])
        await eventually(partial(has_decided, world, [*before, *crowd, "LATER"]), WITHIN_S)
        await view.until_all_is_shown()
        ran = await doctor()
        assert (ran.code, ran.answer["open_tasks"]) == (1, len(before) + CROWD + 1)
        found = {each["about"]: each["problem"] for each in ran.answer["findings"]}
        assert re.fullmatch(r"it is \d\d,\d{3} records behind", found["agent alerts"])
        assert not await has_told(world, ["LATER"])
        assert await held.lags_by(CROWD + 1), "nothing was done meanwhile"

        held.gate.unlink()
        await eventually(held.has_caught_up, within_s=300)
        await view.until_all_is_shown()
        ran = await doctor()
        assert "agent alerts" not in {each["about"] for each in ran.answer["findings"]}
    assert held.worker.process.returncode == 0, held.worker.said
    assert "worker" not in held.worker.said, "it was too slow, and none was to be replaced for that"
    edges = Counter(
        (seen.key, seen.data["state"], seen.data["number"])
        for seen in await world.read(Topic.ALERTS)
    )
    tasks = [*before, *crowd, "LATER"]
    fired = {(f"{name}/{task}", "firing", 1): 1 for name in NAMES for task in tasks}
    assert edges == fired | {("stop_loss_rate/all", "firing", 1): 1}
    await world.assert_verified()


async def has_decided(world: World, tasks: list[str]) -> bool:
    return {seen.key for seen in await world.read(Topic.DECISIONS)} == set(tasks)


async def has_told(world: World, tasks: list[str]) -> bool:
    told = {seen.key for seen in await world.read(Topic.ALERTS)}
    return {f"{name}/{task}" for name in NAMES for task in tasks} <= told
