"""Our topics on a broker: create what is missing, name what differs, change nothing that exists.

`events` never grows: the partition of a task family follows from the number of partitions, so a
task would be in two places. Whoever needs more makes a new prefix and moves.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

import aiokafka.errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.partitioner import murmur2
from msgspec import Struct

from schemas.errors import InvalidFieldError, StoplossError, UnavailableError
from schemas.topics import TOPICS, topic_config
from streams.kafka.settings import Settings

# A new topic is known to the controller first; a client that asks too early is told "no such topic".
KNOWN_WITHIN_S = 10.0
KNOWN_POLL_S = 0.05


class TopicDifference(Struct, frozen=True):
    """A setting of an existing topic that is not as it should be; `topic` has its prefix."""

    topic: str
    setting: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.setting}: is {self.found}, should be {self.expected}"


class TopicsReport(Struct, frozen=True):
    """What `create_or_check_topics` did and found; names have their prefix."""

    created: list[str]
    existing: list[str]
    missing: list[str]
    differences: list[TopicDifference]

    @property
    def fine(self) -> bool:
        """Whether everything is there as it should be."""
        return not self.missing and not self.differences


class WantedTopic(Struct, frozen=True):
    """A topic that a part of ours keeps for itself; `name` with its prefix."""

    name: str
    partitions: int
    config: dict[str, str]


class TopicFound(Struct, frozen=True):
    """A topic as the broker describes it."""

    partitions: int
    config: dict[str, str]


class TopicCreationError(StoplossError):
    """The broker refuses to create a topic."""

    def __init__(self, topic: str, why: str) -> None:
        super().__init__(f"{topic}: the broker does not create it: {why}")
        self.topic = topic


async def create_or_check_topics(
    settings: Settings,
    partitions: int | None = None,
    replication: int | None = None,
    *,
    create: bool = True,
) -> TopicsReport:
    """Create the topics that are missing; compare the others with `schemas/topics.py`.

    Args:
        settings: where, and how many where `partitions` and `replication` are left out.
        partitions: of `events` and of what the ledger writes beside it.
        replication: -1 is the broker's default.
        create: False only reports what is missing.

    Raises:
        UnavailableError: the broker does not answer.
        TopicCreationError: the broker refuses one, and says why.
    """
    count = settings.partitions if partitions is None else partitions
    factor = settings.replication if replication is None else replication
    if count < 1:
        raise InvalidFieldError("partitions", count, "1 or more")
    async with _admin(settings) as admin:
        found = await _describe(admin, [settings.topic(spec.topic) for spec in TOPICS])
        missing = [spec for spec in TOPICS if settings.topic(spec.topic) not in found]
        if create and missing:
            wanted = [
                WantedTopic(
                    settings.topic(spec.topic), spec.partitions or count, topic_config(spec.topic)
                )
                for spec in missing
            ]
            await _create(admin, wanted, factor)
    names = [settings.topic(spec.topic) for spec in missing]
    return TopicsReport(
        created=names if create else [],
        existing=sorted(found),
        missing=[] if create else names,
        differences=topic_differences(found, settings, count),
    )


async def partition_counts(settings: Settings, names: Collection[str]) -> dict[str, int]:
    """Return how many partitions each topic has; those that do not exist are left out.

    Raises:
        UnavailableError: the broker does not answer.
    """
    async with _admin(settings) as admin:
        return await _counts(admin, names)


async def create_wanted_topics(settings: Settings, wanted: Sequence[WantedTopic]) -> list[str]:
    """Create those that are missing, and return their names; others stay as they are.

    Raises:
        UnavailableError: the broker does not answer.
        TopicCreationError: the broker refuses one, or one exists with another number of partitions.
    """
    async with _admin(settings) as admin:
        counts = await _counts(admin, [topic.name for topic in wanted])
        for topic in wanted:
            if (count := counts.get(topic.name, topic.partitions)) != topic.partitions:
                why = f"it exists with {count} partitions, and needs {topic.partitions}"
                raise TopicCreationError(topic.name, why)
        missing = [topic for topic in wanted if topic.name not in counts]
        if missing:
            await _create(admin, missing, settings.replication)
    return [topic.name for topic in missing]


@contextlib.asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[Any]:
    admin = AIOKafkaAdminClient(**settings.admin_kwargs())
    try:
        await admin.start()
        yield admin
    except (aiokafka.errors.KafkaError, OSError, TimeoutError) as error:
        raise UnavailableError(f"Kafka at {settings.bootstrap_servers}: {error!r}") from error
    finally:
        await admin.close()


def topic_differences(
    found: Mapping[str, TopicFound], settings: Settings, partitions: int
) -> list[TopicDifference]:
    """Return what differs in the topics that exist, in the order of `schemas/topics.py`."""
    differences = []
    for spec in TOPICS:
        name = settings.topic(spec.topic)
        if name not in found:
            continue
        topic = found[name]
        expected_count = spec.partitions or partitions
        if topic.partitions != expected_count:
            differences.append(
                TopicDifference(name, "partitions", str(topic.partitions), str(expected_count))
            )
        differences += [
            TopicDifference(name, setting, topic.config.get(setting, "absent"), expected)
            for setting, expected in topic_config(spec.topic).items()
            if not _equal(topic.config.get(setting, "absent"), expected)
        ]
    return differences


def partition_for(key: bytes, partitions: int) -> int:
    """Return the partition of `key` as Java and aiokafka choose it; librdkafka's own is another."""
    hashed: int = murmur2(key)
    return (hashed & 0x7FFF_FFFF) % partitions


def _equal(found: str, expected: str) -> bool:
    """Compare lists such as `compact,delete` whatever their order, and numbers as numbers."""
    if found == expected:
        return True
    try:
        return float(found) == float(expected)
    except ValueError:
        return sorted(found.split(",")) == sorted(expected.split(","))


async def _describe(admin: Any, names: Sequence[str]) -> dict[str, TopicFound]:  # noqa: ANN401 - aiokafka has no types
    counts = await _counts(admin, names)
    if not counts:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in counts]
    found = {}
    for response in await admin.describe_configs(resources):
        for resource in response.to_object()["resources"]:
            name = resource["resource_name"]
            config = {
                entry["config_names"]: entry["config_value"] or ""
                for entry in resource["config_entries"]
            }
            found[name] = TopicFound(counts[name], config)
    return found


async def _counts(admin: Any, names: Collection[str]) -> dict[str, int]:  # noqa: ANN401 - aiokafka has no types
    # Asking for all topics: a broker may create a topic that it is asked for by name.
    return {
        topic["topic"]: len(topic["partitions"])
        for topic in await admin.describe_topics()
        if topic["topic"] in names and topic["error_code"] == 0
    }


async def _create(
    admin: Any,  # noqa: ANN401 - aiokafka has no types
    wanted: Sequence[WantedTopic],
    replication: int,
) -> None:
    if replication == -1:
        replication = await _default_replication(admin)
    new = [
        NewTopic(
            topic.name,
            num_partitions=topic.partitions,
            replication_factor=replication,
            topic_configs=topic.config,
        )
        for topic in wanted
    ]
    response = await admin.create_topics(new)
    for name, code, *message in response.topic_errors:
        kind = aiokafka.errors.for_code(code)
        if kind not in (aiokafka.errors.NoError, aiokafka.errors.TopicAlreadyExistsError):
            raise TopicCreationError(name, (message and message[0]) or kind.__name__)
    names = {topic.name for topic in wanted}
    async with asyncio.timeout(KNOWN_WITHIN_S):
        while True:
            if names <= await _with_leaders(admin):
                return
            await asyncio.sleep(KNOWN_POLL_S)


async def _with_leaders(admin: Any) -> set[str]:  # noqa: ANN401 - aiokafka has no types
    return {
        topic["topic"]
        for topic in await admin.describe_topics()
        if topic["partitions"] and all(part["leader"] >= 0 for part in topic["partitions"])
    }


async def _default_replication(admin: Any) -> int:  # noqa: ANN401 - aiokafka has no types
    """Return the broker's default: the request that aiokafka sends cannot leave it to the broker."""
    cluster = await admin.describe_cluster()
    node = cluster["brokers"][0]["node_id"]
    asked = ConfigResource(
        ConfigResourceType.BROKER, str(node), {"default.replication.factor": None}
    )
    for response in await admin.describe_configs([asked]):
        for resource in response.to_object()["resources"]:
            for entry in resource["config_entries"]:
                return int(entry["config_value"])
    return 1
