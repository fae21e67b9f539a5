"""A log that a real ledger has made, with all that it can write, kept to be copied with damage."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import aiokafka
import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.structs import TopicPartition

from schemas.envelope import rfc3339
from schemas.topics import Topic
from streams.budget.policy import policy_from_toml, policy_json
from streams.kafka.settings import Settings, load_settings
from streams.verify.reading import READ
from tests.integration.kafka_world import World, eventually, make_world

PARTITIONS = 2
# Tasks are forgotten soon after their end, so that there are deletions too; and checkpoints.
POLICY = policy_from_toml(
    'version = "test"\n[clock]\nretention_ms = 200\ncheckpoint_every_ms = 50\n', "test"
)


@dataclass(frozen=True)
class Raw:
    """A record as it stands in a topic."""

    topic: Topic
    partition: int
    key: bytes | None
    value: bytes | None
    timestamp: int

    @property
    def envelope(self) -> dict[str, Any]:
        assert self.value is not None
        envelope: dict[str, Any] = msgspec.json.decode(self.value)
        return envelope

    @property
    def kind(self) -> str:
        """What it is, as `phase.usage`; nothing for a deletion, or what is no event."""
        try:
            return str(self.envelope["type"]).removeprefix("stoploss.") if self.value else ""
        except msgspec.DecodeError:
            return ""

    def with_data(self, **data: object) -> "Raw":
        """Return the record with some of its data replaced."""
        envelope = self.envelope
        envelope["data"] |= data
        return replace(self, value=msgspec.json.encode(envelope))


@dataclass(frozen=True)
class Log:
    """All records of a prefix, by topic and partition in their order."""

    prefix: str
    records: list[Raw]

    def of(self, topic: Topic) -> list[Raw]:
        """Return the records of a topic."""
        return [record for record in self.records if record.topic is topic]


def settings_of(bootstrap_servers: str, prefix: str) -> Settings:
    """Where a log of this prefix stands."""
    return load_settings(
        {}, bootstrap_servers=bootstrap_servers, topic_prefix=prefix, partitions=PARTITIONS
    )


async def record_log(bootstrap_servers: str, prefix: str) -> Log:
    """Run a ledger over a bit of everything, restarted twice; return what stands in the topics."""
    world = await make_world(bootstrap_servers, prefix, PARTITIONS)
    async with world.ledger() as ledger:
        await _for_all(world, "mode.set", mode="enforce", by="ada", reason="test")
        await _work(world, "A")
        await eventually(lambda: _has_ended(world, "A"))
        await ledger.crash()
    async with world.ledger():
        await _for_all(world, "policy.set", **_policy())
        await _work(world, "B")
        await eventually(lambda: _is_forgotten(world, "B"))
    async with world.ledger():
        await world.send([_late_usage(world, partition) for partition in range(PARTITIONS)])
        await _work(world, "C")
        await eventually(lambda: _has_ended(world, "C"))
    return Log(prefix, await _read_all(world.settings))


async def copy_log(
    settings: Settings, log: Log, change: Callable[[list[Raw]], Iterable[Raw]]
) -> None:
    """Write a log, changed, to a prefix of its own; append times are kept."""
    admin = AIOKafkaAdminClient(**settings.admin_kwargs())
    await admin.start()
    try:
        kept = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}
        names = [settings.topic(topic) for topic in READ]
        await admin.create_topics(
            [NewTopic(name, PARTITIONS, 1, topic_configs=kept) for name in names]
        )
        await eventually(lambda: _all_led(admin, names))
    finally:
        await admin.close()
    async with aiokafka.AIOKafkaProducer(**settings.producer_kwargs()) as producer:
        for record in change(log.records):
            value = record.value
            if value is not None and record.topic is Topic.DEAD_LETTERS:
                value = value.replace(log.prefix.encode(), settings.topic_prefix.encode())
            await producer.send(
                settings.topic(record.topic), value, record.key, record.partition, record.timestamp
            )
        await producer.flush()


async def remove_first_events(settings: Settings, before: dict[int, int]) -> None:
    """Remove, as retention does, the events before an offset of each partition."""
    admin = AIOKafkaAdminClient(**settings.admin_kwargs())
    await admin.start()
    try:
        topic = settings.topic(Topic.EVENTS)
        await admin.delete_records(
            {
                TopicPartition(topic, partition): RecordsToDelete(offset)
                for partition, offset in before.items()
            }
        )
    finally:
        await admin.close()


async def _work(world: World, name: str) -> None:
    for partition in range(PARTITIONS):
        parent = world.task_in(partition, f"{name}-PARENT")
        child, grown = f"{name}-CHILD-{partition}", f"{name}-GROWN-{partition}"
        now = rfc3339(time.time_ns() // 1_000_000)

        def event(kind: str, task: str, **data: object) -> tuple[str, bytes]:
            value = world.event(kind, task, **data)
            return parent, value.replace(b"2026-11-22T21:00:00.123Z", now.encode())  # noqa: B023

        await world.send(
            [
                event("task.started", parent, planned_phases=["THINK", "PR"], owner="ada"),
                event("phase.started", parent, phase="THINK"),
                event("task.started", child, parent_task_id=parent, labels={"a": "b"}),
                event("phase.usage", child, phase="THINK", input_tokens=9_000, cost_usd=0.125),
                event(
                    "phase.usage", parent, phase="THINK", input_tokens=4_000, output_tokens=1_500
                ),
                event("phase.usage", parent, phase="SLEEP", input_tokens=1),
                event("phase.usage", grown, phase="PLAN", input_tokens=60_000),
                event("task.explained", grown, by="ada", text="it had to be"),
                event("task.granted", grown, by="ada", reason="needed", multiplier=3),
                event("phase.ended", parent, phase="THINK", duration_ms=1_234),
                event("phase.usage", child, phase="THINK", input_tokens=50_000),
                (parent, b"no json"),
                event("phase.usage", grown, phase="PLAN", usage_known=False),
                event("task.ended", child),
                event("task.ended", grown, outcome="failed"),
                event("phase.usage", grown, phase="PLAN", input_tokens=5),
                event("phase.usage", f"{name}-OPEN-{partition}", phase="PLAN", input_tokens=50),
                event("task.ended", parent),
            ]
        )


def _late_usage(world: World, partition: int) -> tuple[str, bytes]:
    """Return usage of a task that has long ended, and was not forgotten."""
    usage = world.event("phase.usage", f"A-GROWN-{partition}", phase="PLAN", input_tokens=7)
    return world.task_in(partition, "A-PARENT"), usage


async def _for_all(world: World, kind: str, **data: object) -> None:
    """As `World.for_all`, but without a transaction: its markers take offsets, and no copy has them."""
    topic = world.settings.topic(Topic.EVENTS)
    async with aiokafka.AIOKafkaProducer(**world.settings.producer_kwargs()) as producer:
        for partition in range(PARTITIONS):
            subject = f"partition/{partition}"
            value = world.event(kind, subject, **data)
            await producer.send_and_wait(topic, value, subject.encode(), partition)


def _policy() -> dict[str, object]:
    document = msgspec.json.decode(policy_json(POLICY))
    return {"policy": document, "version": POLICY.version, "hash": POLICY.hash, "by": "ada"}


async def _has_ended(world: World, name: str) -> bool:
    ended = {
        seen.key for seen in await world.read(Topic.LIFECYCLE) if seen.data["change"] == "ended"
    }
    return {world.task_in(one, f"{name}-PARENT") for one in range(PARTITIONS)} <= ended


async def _is_forgotten(world: World, name: str) -> bool:
    deleted = {seen.key for seen in await world.read(Topic.DECISIONS) if seen.envelope is None}
    return {world.task_in(one, f"{name}-PARENT") for one in range(PARTITIONS)} <= deleted


async def _read_all(settings: Settings) -> list[Raw]:
    found: list[Raw] = []
    async with aiokafka.AIOKafkaConsumer(**settings.consumer_kwargs()) as consumer:
        topics = {settings.topic(topic): topic for topic in READ}
        tps = [TopicPartition(name, one) for name in topics for one in range(PARTITIONS)]
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                topic = topics[tp.topic]
                found += [
                    Raw(topic, tp.partition, one.key, one.value, one.timestamp) for one in records
                ]
    return found


async def _all_led(admin: Any, names: list[str]) -> bool:  # noqa: ANN401 - aiokafka has no types
    led = {
        topic["topic"]
        for topic in await admin.describe_topics()
        if topic["partitions"] and all(part["leader"] >= 0 for part in topic["partitions"])
    }
    return set(names) <= led
