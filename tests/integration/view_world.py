"""What the view's tests share: views that run, what is in Redis, and records that agents would write."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import aiokafka
import msgspec

from schemas.alerts import Alert, AlertState, Severity
from schemas.audit import Action, Audit
from schemas.baselines import Baseline, MetricBaseline
from schemas.envelope import Envelope, rfc3339
from schemas.feedback import Feedback
from schemas.fields import Complexity, Importance, Metric, Verdict
from schemas.health import EmitterHealth, Health, LedgerHealth
from schemas.reports import MetricReport, Report
from schemas.sketches import Histogram
from schemas.topics import SPECS, Topic
from streams.kafka.reader import KafkaReader, start_client
from streams.view.answers import Freshness
from streams.view.digest import TOPICS
from streams.view.keys import Keys
from streams.view.meta import State
from streams.view.metrics import ViewMetrics
from streams.view.queries import Queries
from streams.view.run import run_view
from streams.view.store import redis_client
from tests.integration.kafka_world import WITHIN_S, World, eventually
from tests.integration.recorded_log import Log

# What differs between two views that show the same: when they looked, and why they began anew.
OWN = {"meta", "progress"}
ASKED_AT_ONCE = 500
ENCODER = msgspec.json.Encoder(decimal_format="number")

TASK_NAME = re.compile(rb'(^|")([ABC]-(?:PARENT|CHILD|GROWN|OPEN)-)')

Said = tuple[Topic, str, msgspec.Struct | None]
"""A topic, a key, and what its record says; None deletes the key."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@contextlib.asynccontextmanager
async def running_view(
    world: World, redis_url: str, *, rebuild: bool = False, metrics: ViewMetrics | None = None
) -> AsyncIterator[None]:
    """Run a view until the end of the block."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(
            run_view(world.settings, redis_url, stop, rebuild=rebuild, metrics=metrics)
        )
        try:
            yield
        finally:
            stop.set()


@dataclass
class Shown:
    """One system's keys in one Redis, and the questions that people ask of them."""

    world: World
    url: str
    queries: Queries
    redis: Any

    @property
    def keys(self) -> Keys:
        return Keys(self.world.settings.topic_prefix)

    async def freshness(self) -> Freshness | None:
        return await self.queries.freshness()

    async def until_all_is_shown(self, within_s: float = WITHIN_S) -> None:
        """Wait until the view is where the topics end now."""
        ends = await ends_of(self.world)

        async def is_there() -> bool:
            found = await self.freshness()
            if found is None or found.state is not State.FOLLOWING:
                return False
            at = {f"{each.topic}/{each.partition}": each.next_offset for each in found.partitions}
            return all(at.get(place, -1) >= end for place, end in ends.items())

        await eventually(is_there, within_s)

    async def names(self) -> list[str]:
        """Return the names of all keys, without what they begin with."""
        root = self.keys.root
        found = [key async for key in self.redis.scan_iter(match=f"{root}*", count=1_000)]
        return sorted(key.decode().removeprefix(root) for key in found)

    async def dump(self) -> dict[str, Any]:
        """Return what all keys hold."""
        names = [name for name in await self.names() if name not in OWN]
        found: dict[str, Any] = {}
        for first in range(0, len(names), ASKED_AT_ONCE):
            some = names[first : first + ASKED_AT_ONCE]
            ask = self.redis.pipeline(transaction=False)
            for name in some:
                ask.type(f"{self.keys.root}{name}")
            kinds = [kind.decode() for kind in await ask.execute()]
            for name, kind in zip(some, kinds, strict=True):
                _ask_content(ask, f"{self.keys.root}{name}", kind)
            contents = await ask.execute()
            for name, kind, content in zip(some, kinds, contents, strict=True):
                found[name] = sorted(content) if kind == "set" else content
        return found


def _ask_content(ask: Any, key: str, kind: str) -> None:  # noqa: ANN401 - redis has no types
    match kind:
        case "hash":
            ask.hgetall(key)
        case "zset":
            ask.zrange(key, 0, -1, withscores=True)
        case "set":
            ask.smembers(key)
        case "list":
            ask.lrange(key, 0, -1)
        case _:
            ask.get(key)


def differing(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return the names of keys that hold something else, or are there only once."""
    names = sorted(expected.keys() | found.keys())
    return [name for name in names if expected.get(name) != found.get(name)]


@contextlib.asynccontextmanager
async def shown(world: World, url: str) -> AsyncIterator[Shown]:
    """Give what a Redis has of a system."""
    queries = Queries(url, world.settings.topic_prefix, now_ms)
    client = redis_client(url)
    try:
        yield Shown(world, url, queries, client)
    finally:
        await queries.close()
        await client.aclose()


class Traffic:
    """What a ledger has written once, again and again under other names of tasks.

    Two partitions as the log has them; `events` stays empty, as the view does not read it.
    """

    def __init__(self, world: World, log: Log) -> None:
        self._world = world
        self._records = [record for record in log.records if record.topic is not Topic.EVENTS]
        self.copies = 0

    async def write(self, copies: int) -> None:
        """Write so many more."""
        settings = self._world.settings
        async with aiokafka.AIOKafkaProducer(**settings.producer_kwargs("traffic")) as producer:
            for _ in range(copies):
                self.copies += 1
                for each in self._records:
                    key, value = (self._renamed(part) for part in (each.key, each.value))
                    await producer.send(settings.topic(each.topic), value, key, each.partition)
                await producer.flush()

    def _renamed(self, part: bytes | None) -> bytes | None:
        """Return a key or value whose tasks, A-… to C-…, are this copy's own."""
        return part and TASK_NAME.sub(rb"\g<1>%d-\g<2>" % self.copies, part)


async def ends_of(world: World) -> dict[str, int]:
    """Return where the committed records of each partition end, by topic/partition."""
    names = [world.settings.topic(topic) for topic in TOPICS]
    client = await start_client(world.settings, names, "ends")
    ends: dict[str, int] = {}

    async def all_are_known() -> bool:
        for topic in TOPICS:
            for partition in range(SPECS[topic].partitions or world.settings.partitions):
                reader = KafkaReader(client, world.settings.topic(topic), partition)
                ends[f"{topic}/{partition}"] = await reader.end_offset()
        return True

    try:
        await eventually(all_are_known)  # a new topic has no leader for a moment
    finally:
        await client.close()
    return ends


async def say(world: World, said: Sequence[Said], step_ms: int = 0) -> None:
    """Write records as an agent or enforcer would, the last one now, each so long after the other."""
    first_ms = now_ms() - step_ms * (len(said) - 1)
    async with aiokafka.AIOKafkaProducer(**world.settings.producer_kwargs("agents")) as producer:
        for number, (topic, key, data) in enumerate(said):
            time_of = rfc3339(first_ms + number * step_ms)
            value = None if data is None else encoded(topic, key, data, time_of, number)
            await producer.send_and_wait(world.settings.topic(topic), value, key.encode())


def encoded(topic: Topic, key: str, data: msgspec.Struct, time_of: str, number: int = 0) -> bytes:
    """Return the record of an agent; `number` tells it from others of the same time."""
    return ENCODER.encode(
        Envelope(
            id=f"{topic}-{number}-{time_of}",
            source="test",
            type="stoploss.test",
            subject=key,
            time=time_of,
            data=data,
        )
    )


def alert(
    number: int, scope: str = "all", name: str = "queue_depth", task_id: str | None = None
) -> Said:
    """Return an edge; odd numbers fire, even ones resolve."""
    fires = number % 2 == 1
    data = Alert(
        name=name,
        scope=scope,
        state=AlertState.FIRING if fires else AlertState.RESOLVED,
        value=31.0,
        threshold=30.0,
        message="31 tasks wait",
        severity=Severity.WARNING,
        number=number,
        since="2026-11-22T21:00:00.000Z",
        task_id=task_id,
    )
    return Topic.ALERTS, f"{name}/{scope}", data


def health(source: str, queue_depth: int | None = None, **buckets: dict[int, int]) -> Said:
    """Return how an enforcer is (`transition_ms` buckets), or a ledger (`commit_ms` buckets)."""
    transitions, commits = buckets.get("transition_ms"), buckets.get("commit_ms")
    data = Health(
        source=source,
        queue_depth=queue_depth,
        transition_ms=None if transitions is None else Histogram(buckets=transitions),
        emitter=None if queue_depth is None else EmitterHealth(queued=1, spooled=0, dropped=0),
        ledger=None
        if commits is None
        else LedgerHealth(batches=1, batch_failures=0, commit_ms=Histogram(buckets=commits)),
    )
    return Topic.HEALTH, source, data


def report(task_id: str, revision: int) -> Said:
    data = Report(
        task_id=task_id,
        revision=revision,
        final=False,
        status="open",
        verdict=Verdict.WARN,
        complexity=Complexity.MEDIUM,
        importance=Importance.MEDIUM,
        summary=["Over budget.", "THINK took most of it.", "Look at THINK."],
        metrics={Metric.TOKENS: MetricReport(used=Decimal("1.5"), limit=1)},
        phases=[],
    )
    return Topic.REPORTS, task_id, data


def baseline(executions: int) -> Said:
    metric = MetricBaseline(
        count=executions, sum=1.0, p50=1.0, p75=1.0, p90=1.0, p99=1.0, sketch=Histogram()
    )
    data = Baseline(
        phase="THINK",
        complexity=Complexity.MEDIUM,
        importance=Importance.MEDIUM,
        executions=executions,
        metrics={Metric.TOKENS: metric},
    )
    return Topic.BASELINES, "THINK/medium/medium", data


def audit(task_id: str | None, by: str) -> Said:
    action = Action.MODE_SET if task_id is None else Action.TASK_GRANTED
    subject = "mode" if task_id is None else task_id
    return Topic.AUDIT, subject, Audit(subject=subject, action=action, by=by, task_id=task_id)


def feedback(task_id: str, *, false_positive: bool) -> Said:
    data = Feedback(task_id=task_id, decision_id="0-1-0", false_positive=false_positive, by="ada")
    return Topic.FEEDBACK, task_id, data


def of_all_agents(task_id: str) -> list[Said]:
    """Return something of every topic that agents, enforcers and people write."""
    return [
        alert(1),
        alert(1, "partition/0"),
        alert(2),
        health("enforcer-1/a", 12, transition_ms={0: 3, 350: 1}),
        health("ledger/a", commit_ms={100: 9}),
        baseline(20),
        report(task_id, 1),
        audit(task_id, "ada"),
        audit(None, "ada"),
        feedback(task_id, false_positive=True),
    ]
