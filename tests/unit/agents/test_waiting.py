"""What waits for an agent is work: that time passes is none."""

import pytest

from streams.agents.registry import AGENTS
from streams.agents.stages import Agent
from streams.agents.waiting import waiting
from streams.agents.watchdog import Standing

TICKING = [agent for agent in AGENTS.values() if agent.ticks]


def test_what_waits_is_told_by_topic() -> None:
    agent = AGENTS["baselines"]
    assert waiting(
        agent,
        {("in", 0): Standing(1, 4), ("in", 1): Standing(0, 5), ("signals", 0): Standing(2, 2)},
    ) == {"in": 8, "signals": 0}


@pytest.mark.parametrize("agent", TICKING, ids=lambda agent: agent.name)
def test_a_tick_that_is_on_its_way_is_not_behind(agent: Agent) -> None:
    (ticks,) = agent.ticks
    idle = {("lifecycle", 0): Standing(7, 7), (ticks.topic, 0): Standing(41, 42)}
    assert waiting(agent, idle) == {"lifecycle": 0, ticks.topic: 0}


@pytest.mark.parametrize("agent", TICKING, ids=lambda agent: agent.name)
def test_many_that_nobody_reads_are(agent: Agent) -> None:
    (ticks,) = agent.ticks
    assert waiting(agent, {(ticks.topic, 0): Standing(0, 1_000)})[ticks.topic] > 990
