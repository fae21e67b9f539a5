"""The agents there are, by name."""

from streams.agents import baselines, reports
from streams.agents.stages import Agent

AGENTS: dict[str, Agent] = {agent.name: agent for agent in (baselines.AGENT, reports.AGENT)}
