"""Topics: their names, keys, partitions and settings, in one place."""

import enum

from msgspec import Struct

DEFAULT_PREFIX = "stoploss."
PARTITIONS_PRODUCTION = 12
PARTITIONS_LOCAL = 4

DAY_MS = 24 * 3_600_000
EVENT_BYTES_MAX = 1024 * 1024  # one record of `events`
# Base64 of the largest event, in its envelope, must pass: otherwise one bad record aborts its
# transaction for ever.
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
assert EVENT_BYTES_MAX * 4 // 3 + 64 * 1024 < MESSAGE_BYTES_MAX


class Topic(enum.StrEnum):
    """A topic's name without the prefix."""

    EVENTS = "events"
    TASKS = "tasks"
    DECISIONS = "decisions"
    HEARTBEATS = "heartbeats"
    LIFECYCLE = "lifecycle"
    BREACHES = "breaches"
    EXECUTIONS = "executions"
    DEAD_LETTERS = "dead-letters"
    HEALTH = "health"
    FEEDBACK = "feedback"
    ALERTS = "alerts"
    BASELINES = "baselines"
    REPORTS = "reports"
    AUDIT = "audit"


class TopicSpec(Struct, frozen=True):
    """How a topic is created. `partitions`: None means as many as `events` has."""

    topic: Topic
    key: str
    writers: str
    config: dict[str, str]
    partitions: int | None = None


def _kept_ms(days: float) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(int(days * DAY_MS))}


_COMPACTED = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"}
_COMPACTED_AND_KEPT = {"cleanup.policy": "compact,delete"}

TOPICS: tuple[TopicSpec, ...] = (
    TopicSpec(
        Topic.EVENTS,
        "root task id",
        "enforcers, importers, operators, the ledger's ticks",
        # With the producer's own time, last year's events would be deleted as they arrive.
        _kept_ms(30) | {"message.timestamp.type": "LogAppendTime"},
    ),
    TopicSpec(Topic.TASKS, "task id", "ledger", _COMPACTED),
    TopicSpec(
        Topic.DECISIONS, "task id", "ledger", _COMPACTED | {"min.compaction.lag.ms": str(DAY_MS)}
    ),
    TopicSpec(
        Topic.HEARTBEATS,
        "partition/N",
        "ledger",
        _COMPACTED_AND_KEPT | {"retention.ms": "3600000", "segment.ms": "600000"},
        partitions=1,
    ),
    TopicSpec(Topic.LIFECYCLE, "task id", "ledger", _kept_ms(90)),
    TopicSpec(Topic.BREACHES, "task id", "ledger", _kept_ms(30)),
    TopicSpec(Topic.EXECUTIONS, "task id", "ledger", _kept_ms(90)),
    TopicSpec(Topic.DEAD_LETTERS, "as the input's", "ledger", _kept_ms(30)),
    TopicSpec(
        Topic.HEALTH,
        "source",
        "enforcers, ledgers",
        # What enforcers say counts as of when it came: one wrong clock would empty every window.
        _kept_ms(7) | {"message.timestamp.type": "LogAppendTime"},
        partitions=1,
    ),
    TopicSpec(Topic.FEEDBACK, "task id", "people, enforcers", _kept_ms(365), partitions=1),
    TopicSpec(
        Topic.ALERTS,
        "alert name + scope",
        "agents",
        _COMPACTED_AND_KEPT | {"retention.ms": str(90 * DAY_MS)},
        partitions=1,
    ),
    TopicSpec(Topic.BASELINES, "phase/complexity/importance", "agents", _COMPACTED, partitions=1),
    TopicSpec(
        Topic.REPORTS,
        "task id",
        "agents",
        _COMPACTED_AND_KEPT | {"retention.ms": str(90 * DAY_MS)},
        partitions=1,
    ),
    TopicSpec(Topic.AUDIT, "subject", "agents, web, CLI", _kept_ms(365), partitions=1),
)
SPECS: dict[Topic, TopicSpec] = {spec.topic: spec for spec in TOPICS}
# What a partition of `events` caused stands in the same partition of these.
BY_PARTITION = frozenset(spec.topic for spec in TOPICS if spec.partitions is None)
# What the ledger writes beside `tasks`.
OUTPUTS = (
    Topic.DECISIONS,
    Topic.BREACHES,
    Topic.EXECUTIONS,
    Topic.LIFECYCLE,
    Topic.DEAD_LETTERS,
)
assert frozenset(OUTPUTS) == BY_PARTITION - {Topic.EVENTS, Topic.TASKS}


def topic_name(topic: Topic, prefix: str = DEFAULT_PREFIX) -> str:
    """Return the name on the broker."""
    return f"{prefix}{topic.value}"


def topic_config(topic: Topic) -> dict[str, str]:
    """Return the broker settings of a topic, the size of its largest record among them."""
    # A batch has a header of its own, hence the 64 KiB.
    largest = EVENT_BYTES_MAX + 64 * 1024 if topic is Topic.EVENTS else MESSAGE_BYTES_MAX
    return {"max.message.bytes": str(largest)} | SPECS[topic].config
