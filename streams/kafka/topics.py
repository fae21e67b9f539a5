"""Our topics on a broker: create what is missing, name what differs, change nothing that exists.

`events` never grows: the partition of a task family follows from the number of partitions, so a
task would be in two places. Whoever needs more makes a new prefix and moves.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import aiokafka.errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.partitioner import murmur2
from msgspec import Struct

from schemas.errors import InvalidFieldError, StoplossError, UnavailableError
from schemas.topics import TOPICS, TopicSpec, topic_config
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
    admin = AIOKafkaAdminClient(**settings.admin_kwargs())
    try:
        await admin.start()
        found = await _describe(admin, [settings.topic(spec.topic) for spec in TOPICS])
        missing = [spec for spec in TOPICS if settings.topic(spec.topic) not in found]
        if create and missing:
            await _create(admin, settings, missing, count, factor)
    except (aiokafka.errors.KafkaError, OSError, TimeoutError) as error:
        raise UnavailableError(f"Kafka at {settings.bootstrap_servers}: {error!r}") from error
    finally:
        await admin.close()
    names = [settings.topic(spec.topic) for spec in missing]
    return TopicsReport(
        created=names if create else [],
        existing=sorted(found),
        missing=[] if create else names,
        differences=topic_differences(found, settings, count),
    )


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
    # Asking for all topics: a broker may create a topic that it is asked for by name.
    counts = {
        topic["topic"]: len(topic["partitions"])
        for topic in await admin.describe_topics()
        if topic["topic"] in names and topic["error_code"] == 0
    }
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


async def _create(
    admin: Any,  # noqa: ANN401 - aiokafka has no types
    settings: Settings,
    specs: Sequence[TopicSpec],
    partitions: int,
    replication: int,
) -> None:
    if replication == -1:
        replication = await _default_replication(admin)
    new = [
        NewTopic(
            settings.topic(spec.topic),
            num_partitions=spec.partitions or partitions,
            replication_factor=replication,
            topic_configs=topic_config(spec.topic),
        )
        for spec in specs
    ]
    response = await admin.create_topics(new)
    for name, code, *message in response.topic_errors:
        kind = aiokafka.errors.for_code(code)
        if kind not in (aiokafka.errors.NoError, aiokafka.errors.TopicAlreadyExistsError):
            raise TopicCreationError(name, (message and message[0]) or kind.__name__)
    names = {settings.topic(spec.topic) for spec in specs}
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
