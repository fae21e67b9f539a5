"""The topics that agents keep for themselves: what they write to themselves, and their changelogs."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from schemas.errors import UnavailableError
from schemas.topics import DAY_MS, MESSAGE_BYTES_MAX, Topic
from streams.agents.stages import Agent, Stage
from streams.kafka.settings import Settings
from streams.kafka.topics import (
    TopicCreationError,
    WantedTopic,
    create_wanted_topics,
    partition_counts,
)

log = logging.getLogger("stoploss.agents")

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 10.0

_LARGEST = {"max.message.bytes": str(MESSAGE_BYTES_MAX)}
# Deletions have to be there as long as a worker may take to read a changelog from its start.
CHANGELOG = _LARGEST | {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.1",
    "delete.retention.ms": str(DAY_MS),
}


async def create_topics(agent: Agent, settings: Settings) -> dict[str, int]:
    """Create what the agent keeps for itself; return the partitions of each stage, by its name.

    Raises:
        UnavailableError: no broker answers, or a topic that others create is not there yet.
        TopicCreationError: one exists that does not fit, or the broker refuses it.
    """
    internal = {one.topic: one for one in agent.internal}
    public = [
        source.topic
        for stage in agent.stages
        for source in stage.sources
        if source.topic not in internal
    ] + [topic.value for topic in (*agent.writes, Topic.DEAD_LETTERS)]
    names = {name: f"{settings.topic_prefix}{name}" for name in dict.fromkeys(public)}
    found = await partition_counts(settings, names.values())
    missing = [name for name in names.values() if name not in found]
    if missing:
        raise UnavailableError(f"there is no topic {missing[0]}; `stoploss topics create`")
    counts = {name: found[full] for name, full in names.items()} | dict.fromkeys(internal, 1)
    stages = {stage.name: _partitions(stage, counts) for stage in agent.stages}
    await create_wanted_topics(
        settings,
        [
            WantedTopic(
                f"{settings.topic_prefix}{one.topic}",
                1,
                _LARGEST | {"cleanup.policy": "delete", "retention.ms": str(one.kept_ms)},
            )
            for one in agent.internal
        ]
        + [
            WantedTopic(
                f"{settings.topic_prefix}{agent.table(stage)}", stages[stage.name], CHANGELOG
            )
            for stage in agent.stages
            if stage.entry is not None
        ],
    )
    return stages


def _partitions(stage: Stage, counts: Mapping[str, int]) -> int:
    """Return how many partitions the sources of a stage have: all the same, or nothing fits.

    Raises:
        TopicCreationError: they differ.
    """
    first = stage.sources[0].topic
    for source in stage.sources:
        if counts[source.topic] != counts[first]:
            why = f"has {counts[source.topic]} partitions, and {first} has {counts[first]}"
            raise TopicCreationError(source.topic, f"{why}: they have to have as many")
    return counts[first]


async def wait_for_topics(
    agent: Agent, settings: Settings, stop: asyncio.Event
) -> dict[str, int] | None:
    """Return the partitions of each stage once all topics are there; None where `stop` came first.

    Raises:
        TopicCreationError: a topic does not fit, or the broker refuses it.
    """
    pause_s, said = BACKOFF_FIRST_S, ""
    while not stop.is_set():
        try:
            return await create_topics(agent, settings)
        except UnavailableError as error:
            if str(error) != said:
                said = str(error)
                log.warning("agents: %s: waits for Kafka: %s", agent.name, error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await stop.wait()
        pause_s = min(pause_s * 2, BACKOFF_MAX_S)
    return None


def source_partitions(agent: Agent, stages: dict[str, int]) -> list[tuple[str, int]]:
    """Return every topic that an agent reads, and how many partitions it has."""
    return list(
        {
            source.topic: (source.topic, stages[stage.name])
            for stage in agent.stages
            for source in stage.sources
        }.values()
    )
