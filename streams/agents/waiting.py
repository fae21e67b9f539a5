"""How much work waits for an agent: ticks that are on their way are none. Pure.

A tick is written every second or so, and its offset is committed within another one: on a system where
nothing happens the last of them is always there and not done.
"""

from collections.abc import Mapping
from math import ceil

from streams.agents.stages import Agent
from streams.agents.watchdog import Place, Standing

# From its writing on: until it is read, its batch is done, and its offset is committed.
TICK_WITHIN_S = 3.0


def waiting(agent: Agent, standings: Mapping[Place, Standing]) -> dict[str, int]:
    """Return how many records wait, by topic; of ticks, those beyond the ones on their way."""
    found: dict[str, int] = {}
    for (topic, _), standing in standings.items():
        found[topic] = found.get(topic, 0) + standing.lag
    for ticks in agent.ticks:
        on_their_way = ceil(TICK_WITHIN_S / ticks.every_s)
        found[ticks.topic] = max(found.get(ticks.topic, 0) - on_their_way, 0)
    return found
