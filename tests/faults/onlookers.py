"""`stoploss agents NAME` and `stoploss view` beside the ledgers, and the Redis of the view.

Each agent has a supervisor of its own, so that one can be killed at a point of its own. There is one of
each at a time, and whoever kills one starts the next. What they say goes to their logs, and is heard.
"""

import asyncio
import contextlib
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from streams.agents.registry import AGENTS
from streams.kafka import failpoints
from streams.local.redis import RedisServer

DIED = re.compile(r"failpoint: (\w+): killed$")
# What no fault of ours explains: a record that a fold fails at, a report that cannot be made.
MISTAKE = re.compile(r"agents: \w+: (fails at|the one of .* cannot be made)")
MISTAKES_MAX = 20
END_WITHIN_S = 60.0


class Onlooker:
    """One process. `said` counts what it has said, without the time and by its first words."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.died_at: Counter[str] = Counter()  # of its own processes as well
        self.mistakes: list[str] = []
        self._said: Counter[str] = Counter()
        self._told_to_end = False
        self._process: asyncio.subprocess.Process | None = None

    def __repr__(self) -> str:
        return f"<{self.name} alive={self.alive}>"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self, *command: str, env: Mapping[str, str], log: Path) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "streams.cli.main", *command),
            env=dict(env),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        self._log = log

    async def follow(self) -> None:
        """Read what it says until it ends."""
        assert self._process is not None
        assert self._process.stderr is not None
        with self._log.open("ab") as log:
            async for line in self._process.stderr:
                log.write(line)
                log.flush()
                self._hear(line.decode(errors="replace").rstrip())
        code = await self._process.wait()
        if not self._told_to_end:
            self.mistakes.append(f"{self.name} ended by itself with {code}")

    def said(self, what: str) -> int:
        """Return how many of its lines have something in them."""
        return sum(count for line, count in self._said.items() if what in line)

    def workers(self) -> list[psutil.Process]:
        """Return the processes that it has begun for agents."""
        assert self._process is not None
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "spawn_main" in " ".join(child.cmdline()):
                        found.append(child)
        return found

    async def kill(self) -> bool:
        """Kill it, and all that it has begun; whether it was alive until then."""
        was_alive, workers = self.alive, self.workers() if self.alive else []
        self._told_to_end = True
        self._signal(signal.SIGKILL)
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        return await self.ended() == -signal.SIGKILL and was_alive

    async def leave(self) -> int | None:
        """Have it end in order; return its exit code, None where it did not in time."""
        self._told_to_end = True
        self._signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int | None:
        """Return the exit code, or None if it has not ended in time."""
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_WITHIN_S):
                await self._process.wait()
        return self._process.returncode

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _hear(self, line: str) -> None:
        if died := DIED.search(line):
            self.died_at[died[1]] += 1
        if MISTAKE.search(line) and len(self.mistakes) < MISTAKES_MAX:
            self.mistakes.append(f"{self.name}: {line}")
        if (at := max(line.find("agents: "), line.find("view: "))) >= 0:
            self._said[line[at:]] += 1


class Onlookers:
    """The agents, the view and its Redis.

    `damaged`: its keys were, and nothing finds that out. `taken`: agents to which something is done just
    now.
    """

    def __init__(
        self,
        environ: Callable[[], Mapping[str, str]],
        redis: RedisServer,
        logs: Path,
        group: asyncio.TaskGroup,
    ) -> None:
        self._environ, self.redis, self._logs, self._group = environ, redis, logs, group
        self._all: list[Onlooker] = []
        self.agents: dict[str, Onlooker] = {}
        self.view = Onlooker("nobody")
        self.damaged = False
        self.taken: set[str] = set()

    @property
    def are_there(self) -> bool:
        """Whether they were started: a run of ledgers alone has none."""
        return bool(self.agents)

    async def start(self) -> None:
        """Start all."""
        await self.redis.start()
        for name in AGENTS:
            await self.start_agent(name)
        await self.start_view()

    async def start_agent(self, name: str, failpoint: str | None = None) -> Onlooker:
        """Start an agent; with a failpoint it dies there, as often as it begins."""
        more = {} if failpoint is None else {failpoints.VARIABLE: failpoint}
        self.agents[name] = await self._start("agents", more, name)
        return self.agents[name]

    async def start_view(self, *arguments: str) -> Onlooker:
        """Start the view."""
        more = {"STOPLOSS_REDIS_URL": self.redis.url}
        self.view = await self._start("view", more, *arguments)
        return self.view

    async def _start(self, what: str, more: Mapping[str, str], *arguments: str) -> Onlooker:
        onlooker = Onlooker(f"{what}-{len(self._all)}")
        log = self._logs / f"{onlooker.name}.log"
        await onlooker.start(what, *arguments, env={**self._environ(), **more}, log=log)
        self._all.append(onlooker)
        self._group.create_task(onlooker.follow())
        return onlooker

    def said(self, what: str) -> int:
        """Return how many lines of all of them, also of the dead, have something in them."""
        return sum(each.said(what) for each in self._all)

    @property
    def mistakes(self) -> list[str]:
        """What was wrong with any of them."""
        return [mistake for each in self._all for mistake in each.mistakes]

    async def leave(self, *onlookers: Onlooker) -> list[str]:
        """End some in order; return what was wrong with that."""
        codes = await asyncio.gather(*(each.leave() for each in onlookers))
        return [
            f"{each.name} ended with {code} after SIGTERM"
            for each, code in zip(onlookers, codes, strict=True)
            if code != 0
        ]

    async def close(self) -> None:
        """Leave none."""
        await asyncio.gather(*(each.kill() for each in self._all if each.alive))
        await self.redis.stop()
