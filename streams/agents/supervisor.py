"""Every agent in a process of its own, started again when it ends, and when it stops moving.

faust is imported in those processes alone: it would make every command a second slower.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import multiprocessing.process
import os
import signal
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess

from schemas.errors import StoplossError, UnavailableError
from streams.agents import figures
from streams.agents.delivery.keeping import keep_delivering
from streams.agents.delivery.sinks import Sink
from streams.agents.lag import Standings, opened
from streams.agents.metrics import AgentFigures, AgentsMetrics, unseen
from streams.agents.registry import AGENTS
from streams.agents.restarts import RestartsLog
from streams.agents.stages import Agent
from streams.agents.topics import source_partitions, wait_for_topics
from streams.agents.waiting import waiting
from streams.agents.watchdog import STALL_S, Signs, Watchdog, next_stall_s
from streams.kafka.processes import Backoff, end, ended, pause
from streams.kafka.settings import Settings

log = logging.getLogger("stoploss.agents")

LOOK_EVERY_S = 2.0
KILL_AFTER_S = 5.0  # beyond the worker's own deadline
# Said once when it grows beyond this, and once when it is gone.
BEHIND_FROM = 10_000


@dataclass(frozen=True)
class Patience:
    """How often is looked, and how long a worker may stand still."""

    stall_s: float = STALL_S
    look_every_s: float = LOOK_EVERY_S


async def supervise(
    settings: Settings,
    names: Sequence[str],
    stop: asyncio.Event,
    metrics: AgentsMetrics | None = None,
    patience: Patience | None = None,
    sinks: Sequence[Sink] = (),
) -> None:
    """Keep agents running until `stop`; then they end within a bounded time.

    Args:
        settings: where, and under which prefix.
        names: of `registry.AGENTS`.
        stop: set it to end.
        metrics: where the figures go; nowhere where left out.
        patience: with a worker that stands still.
        sinks: where notices go, beside the agents; nowhere where none is given.

    Raises:
        TopicCreationError: a topic does not fit, or the broker refuses it.
    """
    metrics = metrics or unseen()
    async with asyncio.TaskGroup() as group:
        if sinks:
            group.create_task(keep_delivering(settings, sinks, stop, metrics))
        for name in names:
            keeper = _Keeper(settings, AGENTS[name], metrics, patience or Patience())
            group.create_task(keeper.keep(stop))


class _Keeper:
    """Keeps one agent running."""

    _why: str | None = None
    _got_going = False

    def __init__(
        self, settings: Settings, agent: Agent, metrics: AgentsMetrics, patience: Patience
    ) -> None:
        self._settings, self._agent, self._patience = settings, agent, patience
        self._metrics = metrics
        self._seen: AgentFigures = metrics.agent(agent.name)
        self._sources: list[tuple[str, int]] = []
        self._is_behind = False

    def __repr__(self) -> str:
        return f"<_Keeper {self._agent.name}>"

    async def keep(self, stop: asyncio.Event) -> None:
        """Run one worker after the other, until `stop`."""
        name, settings = self._agent.name, self._settings
        clock = asyncio.get_running_loop().time
        stages = await wait_for_topics(self._agent, settings, stop)
        if stages is None:
            return
        self._sources = source_partitions(self._agent, stages)
        restarts = RestartsLog(settings, name)
        await restarts.begin()
        backoff = Backoff()
        stall_s = usual_s = self._patience.stall_s
        while not stop.is_set():
            started_s = clock()
            process, seen = self._spawn()
            try:
                why = await self._watched(process, seen, stop, stall_s)
            finally:
                self._seen.running = False
                patience_s = settings.stop_deadline_ms / 1000 + KILL_AFTER_S
                # One that hangs does not hear; the partitions wait for it to be gone.
                await end(process, patience_s if stop.is_set() else KILL_AFTER_S)
            if stop.is_set():
                return
            ran_s = clock() - started_s
            pause_s = backoff.after(ran_s)
            got_going = self._got_going or not why
            stall_s = next_stall_s(stall_s, usual_s, got_going=got_going)
            self._metrics.restarted(name, "stalled" if why else "ended")
            why = why or f"ended with {process.exitcode}"
            log.error("agents: %s: worker %s; again in %g s", name, why, pause_s)
            await asyncio.gather(pause(stop, pause_s), restarts.add(f"worker {why}"))

    def _spawn(self) -> tuple[SpawnProcess, figures.Figures]:
        values, seen = figures.shared(self._sources)
        process = multiprocessing.get_context("spawn").Process(
            target=_worker,
            args=(
                self._settings,
                self._agent.name,
                values,
                self._sources,
                # It says as much as this process does: nothing of the sort beside a demo.
                logging.getLogger("stoploss").getEffectiveLevel(),
            ),
            name=f"agents-{self._agent.name}",
        )
        process.start()
        self._seen.begins(seen)
        self._seen.running = True
        return process, seen

    async def _watched(
        self, process: SpawnProcess, seen: figures.Figures, stop: asyncio.Event, stall_s: float
    ) -> str | None:
        """Wait until the worker has ended, or has to be; return why, where it stopped moving."""
        self._why, self._got_going = None, False
        stalled = asyncio.Event()
        loop = asyncio.get_running_loop()
        watching = loop.create_task(self._watch(seen, stalled, stall_s))
        try:
            await ended(process, stop, stalled)
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        return self._why if stalled.is_set() else None

    async def _watch(self, seen: figures.Figures, stalled: asyncio.Event, stall_s: float) -> None:
        """Look at the worker again and again; ends when it stands still."""
        clock = asyncio.get_running_loop().time
        watchdog = Watchdog(clock(), stall_s)
        while self._why is None:
            try:
                async with opened(self._settings) as standings:
                    self._why = await self._look(watchdog, seen, standings)
            except UnavailableError:
                self._why = watchdog.look(clock(), _signs(seen), None)
            except Exception:  # here the room ends: a worker that is not watched still works
                log.exception("agents: %s: cannot be watched", self._agent.name)
            if self._why is None:
                await asyncio.sleep(self._patience.look_every_s)
        stalled.set()

    async def _look(self, watchdog: Watchdog, seen: figures.Figures, standings: Standings) -> str:
        """Return why the worker has to be replaced, once it has to.

        Raises:
            UnavailableError: Kafka does not answer.
        """
        clock = asyncio.get_running_loop().time
        while True:
            now = await standings.of(self._agent.group, self._sources)
            self._seen.lag = waiting(self._agent, now)
            self._say_how_far_behind(sum(self._seen.lag.values()))
            why = watchdog.look(clock(), _signs(seen), now)
            self._got_going = watchdog.got_going
            if why is not None:
                return why
            await asyncio.sleep(self._patience.look_every_s)

    def _say_how_far_behind(self, lag: int) -> None:
        if not self._is_behind and lag > BEHIND_FROM:
            self._is_behind = True
            log.warning("agents: %s: %s records behind", self._agent.name, lag)
        elif self._is_behind and lag == 0:
            self._is_behind = False
            log.info("agents: %s: has caught up", self._agent.name)


def _signs(seen: figures.Figures) -> Signs:
    return Signs(seen[figures.BEAT], seen[figures.RESTORED], frozenset(seen.owned()))


def _worker(
    settings: Settings,
    name: str,
    values: MutableSequence[int],
    sources: list[tuple[str, int]],
    level: int,
) -> None:
    """Run in the new process; it ends with its parent, however that ends."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("stoploss").setLevel(level)
    parent = multiprocessing.process.parent_process()
    assert parent is not None
    code = 1
    try:
        asyncio.run(_until_told(settings, name, figures.Figures(values, sources), parent.sentinel))
        code = 0
    except StoplossError as error:
        log.error("agents: %s", error)  # noqa: TRY400 - one line
    except Exception:
        log.exception("agents: %s: a defect", name)
    finally:
        # A consumer's thread that hangs would be waited for, and the next worker with it.
        logging.shutdown()
        os._exit(code)


async def _until_told(settings: Settings, name: str, seen: figures.Figures, parent_fd: int) -> None:
    from streams.agents.worker import run_agent  # noqa: PLC0415 - faust, which takes a second

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_reader(parent_fd, stop.set)
    await run_agent(AGENTS[name], settings, stop=stop, figures=seen)
