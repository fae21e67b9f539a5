"""One agent in one process: it waits for Kafka, runs until it is told to stop, and ends where it fails.

It does not mend itself: what it holds in memory may be wrong then, and faust begins an agent that
failed again a hundred times a second. The supervisor starts the next one.
"""

import asyncio
import contextlib
import logging

from schemas.errors import StoplossError
from streams.agents.app import FaustApp
from streams.agents.figures import Figures, plain
from streams.agents.shell import StageRunner
from streams.agents.stages import Agent
from streams.agents.ticking import tick
from streams.agents.topics import source_partitions, wait_for_topics
from streams.kafka import failpoints
from streams.kafka.settings import Settings
from streams.kafka.tracing import Tracing, open_tracing

log = logging.getLogger("stoploss.agents")

BEAT_EVERY_S = 0.25


class AgentFailedError(StoplossError):
    """A worker cannot go on; the next one restores and repeats what was not committed."""

    def __init__(self, name: str, why: BaseException) -> None:
        super().__init__(f"{name}: {type(why).__name__}: {why}")


async def run_agent(
    agent: Agent,
    settings: Settings,
    *,
    stop: asyncio.Event | None = None,
    figures: Figures | None = None,
) -> None:
    """Run an agent until `stop` is set; waits for Kafka and its topics at the start.

    Args:
        agent: which.
        settings: where, and under which prefix.
        stop: set it to end: an open batch is finished, its offsets are committed.
        figures: where it says how it is; nowhere where left out.

    Raises:
        AgentFailedError: it cannot go on.
        TopicCreationError: a topic does not fit, or the broker refuses it.
    """
    quiet()
    if agent.set_up is not None:
        agent = agent.set_up(settings)
    stop = asyncio.Event() if stop is None else stop
    beating = _Beating(settings.topic_prefix)
    tracing = open_tracing(settings, "agents")
    if figures is not None:
        beating.begin(figures)
    try:
        stages = await wait_for_topics(agent, settings, stop)
        if stages is not None:
            if figures is None:
                figures = plain(source_partitions(agent, stages))
                beating.begin(figures)
            await _run(agent, settings, stop, stages, figures, beating, tracing)
    finally:
        await beating.end()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)


async def _run(
    agent: Agent,
    settings: Settings,
    stop: asyncio.Event,
    stages: dict[str, int],
    figures: Figures,
    beating: "_Beating",
    tracing: Tracing | None,
) -> None:
    app = beating.app = FaustApp(agent, settings)
    runners = [StageRunner(app, stage, settings, figures, tracing) for stage in agent.stages]
    for runner in runners:
        app.add_stage(runner.stage, stages[runner.stage.name], runner.run)

    async def give_back(*_: object, **__: object) -> None:
        await _release(app, runners)

    async def restored(*_: object, **__: object) -> None:
        failpoints.hit("agent_after_restore")

    app.on_partitions_revoked.connect(give_back, weak=False)
    app.on_rebalance_complete.connect(restored, weak=False)
    loop = asyncio.get_running_loop()
    starting = loop.create_task(app.start())
    sources = source_partitions(agent, stages)
    ticking = [loop.create_task(tick(app, ticks, sources)) for ticks in agent.ticks]
    try:
        await _until(stop, app, starting)
    finally:
        await _end(app, runners, settings.stop_deadline_ms / 1000)
        for task in (starting, *ticking):
            task.cancel()
        await asyncio.gather(starting, *ticking, return_exceptions=True)
    if app.failure is not None:
        raise AgentFailedError(agent.name, app.failure)
    log.info("agents: %s: stopped", agent.name)


def quiet() -> None:
    """Let the libraries say nothing but what is a defect; ours are one line each."""
    # faust names loggers by the module of a class: those of our subclasses are the last one's.
    for name in ("faust", "mode", "aiokafka", "asyncio", "streams.agents"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


async def _until(stop: asyncio.Event, app: FaustApp, starting: asyncio.Task[None]) -> None:
    """Wait for `stop`, or until it cannot go on."""
    loop = asyncio.get_running_loop()
    waits = [loop.create_task(stop.wait()), loop.create_task(app.failed.wait())]
    try:
        pending: set[asyncio.Task[object]] = {starting, *waits}
        await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and starting.exception() is not None:
            app.fail(starting.exception() or RuntimeError("not started"))
        elif starting.done() and not stop.is_set() and not app.failed.is_set():
            log.info("agents: %s: runs", app.agent_of.name)
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def _release(app: FaustApp, runners: list[StageRunner]) -> None:
    """End what is open, commit what is done, and forget: the partitions are given anew."""
    for runner in runners:
        await runner.release()
    with contextlib.suppress(Exception):  # a group that is moving refuses; then it is done again
        await app.consumer.commit()
    app.positions.forget()


async def _end(app: FaustApp, runners: list[StageRunner], within_s: float) -> None:
    """Let go in order, within a bounded time."""
    app.is_ending = True
    try:
        async with asyncio.timeout(within_s):
            if app.failure is None and app.started:
                app.consumer.stop_flow()
                app.flow_control.suspend()
                app.flow_control.clear()
                await _release(app, runners)
            await app.stop()
    except TimeoutError:
        log.warning("agents: %s: did not stop in %s s", app.agent_of.name, within_s)
    except Exception as error:  # noqa: BLE001 - it ends either way; what failed before is the reason
        log.debug("agents: %s: while stopping: %r", app.agent_of.name, error)


class _Beating:
    """Says again and again that the loop turns, and what the worker owns."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._task: asyncio.Task[None] | None = None
        self.app: FaustApp | None = None

    def begin(self, figures: Figures) -> None:
        """Say it there."""
        self._task = asyncio.get_running_loop().create_task(self._beat(figures))

    async def end(self) -> None:
        """Say nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _beat(self, figures: Figures) -> None:
        while True:
            app = self.app
            if app is not None:
                app.turn(asyncio.get_running_loop().time())
            owned = set() if app is None else app.owned()
            figures.beat(
                {(tp.topic.removeprefix(self._prefix), tp.partition) for tp in owned},
                0 if app is None else app.restored,
            )
            await asyncio.sleep(BEAT_EVERY_S)
