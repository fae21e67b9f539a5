"""The agents there are, by name."""

from streams.agents import alerts, baselines, governance, reports
from streams.agents.stages import Agent

AGENTS: dict[str, Agent] = {
    agent.name: agent for agent in (alerts.AGENT, governance.AGENT, baselines.AGENT, reports.AGENT)
}
