"""That time passes, said once everything that was there before has been read.

A tick of the wall clock would overtake what waits: after an outage the windows would be at now, and all
that had come meanwhile would count as late. So a tick says when the ends of all sources were noted, as
soon as all of that is done: what it caused stands before the tick, in the same partition.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence

from faust.types import TP

from schemas.errors import UnavailableError
from streams.agents.app import FaustApp
from streams.agents.lag import opened
from streams.agents.stages import Agent, Ticks
from streams.agents.watchdog import Place, Standing

AGAIN_AFTER_S = 1.0  # where Kafka does not answer


class Overtaken:
    """Tells up to which time everything has been read; pure."""

    def __init__(self) -> None:
        self._at_ms = 0
        self._ends: dict[Place, int] | None = None

    def __repr__(self) -> str:
        return f"<Overtaken {self._at_ms} {self._ends}>"

    def look(self, asked_ms: int, standings: Mapping[Place, Standing]) -> int | None:
        """Return the time before which nothing is left to read; None where that has not moved.

        Args:
            asked_ms: the wall clock before the broker was asked.
            standings: what it said.
        """
        ends = self._ends
        if ends is not None and any(
            standing.next_offset < ends.get(place, 0) for place, standing in standings.items()
        ):
            return None
        reached_ms = None if ends is None else self._at_ms
        self._at_ms = asked_ms
        self._ends = {place: standing.end_offset for place, standing in standings.items()}
        return reached_ms


async def tick(app: FaustApp, ticks: Ticks, sources: Sequence[tuple[str, int]]) -> None:
    """Write that time passes, as long as the partition is ours; a failure ends the worker.

    Args:
        app: whose group it is.
        ticks: where to, how often and what.
        sources: all that the agent reads, with their numbers of partitions.
    """
    before = [source for source in sources if source[0] != ticks.topic]
    overtaken = Overtaken()
    try:
        while True:
            try:
                await _tick_while_it_answers(app, ticks, before, overtaken)
            except UnavailableError:
                await asyncio.sleep(AGAIN_AFTER_S)
    except Exception as error:  # noqa: BLE001 - as where a stage fails
        app.fail(error)


async def _tick_while_it_answers(
    app: FaustApp, ticks: Ticks, before: Sequence[tuple[str, int]], overtaken: Overtaken
) -> None:
    agent: Agent = app.agent_of
    topic = f"{app.settings.topic_prefix}{ticks.topic}"
    await _owned(app, topic, ticks.every_s)
    async with opened(app.settings, f"{app.role}-ticks") as standings:
        while _is_ours(app, topic):
            asked_ms = time.time_ns() // 1_000_000
            found = await standings.of(agent.group, before) if before else {}
            reached_ms = overtaken.look(asked_ms, found)
            if reached_ms is not None and _is_ours(app, topic):
                value = ticks.make(reached_ms)
                await (await app.sender.send(topic, None, value, 0, None, None))
            await asyncio.sleep(ticks.every_s)


async def _owned(app: FaustApp, topic: str, every_s: float) -> None:
    """Wait until the partition is ours."""
    while not _is_ours(app, topic):  # noqa: ASYNC110 - faust tells nobody
        await asyncio.sleep(every_s)


def _is_ours(app: FaustApp, topic: str) -> bool:
    return app.is_reading and TP(topic, 0) in app.owned()
