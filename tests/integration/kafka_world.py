"""What the ledger's tests share: topics of their own, events to send, and what came out."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiokafka
from aiokafka.structs import TopicPartition

from schemas.errors import UnavailableError
from schemas.topics import SPECS, Topic
from streams.budget.policy import Policy, policy_json
from streams.kafka.settings import Driver, Settings, load_settings
from streams.kafka.topics import create_or_check_topics, partition_for
from streams.ledger.health import LedgerHealth
from streams.ledger.metrics import LedgerMetrics, unseen
from streams.ledger.run import run_ledger
from streams.verify.refold import verify

WITHIN_S = 100.0  # beside other tests on the machine


@dataclass(frozen=True)
class Seen:
    """A record as a reader of committed records sees it; `data` of its envelope."""

    partition: int
    offset: int
    key: str
    envelope: dict[str, Any] | None

    @property
    def data(self) -> dict[str, Any]:
        assert self.envelope is not None
        data: dict[str, Any] = self.envelope["data"]
        return data

    @property
    def id(self) -> str:
        assert self.envelope is not None
        return str(self.envelope["id"])


@dataclass
class World:
    """One prefix on the broker: its topics, its producer, its reader."""

    settings: Settings
    sent: int = 0
    _tokens: dict[str, int] = field(default_factory=dict)

    @property
    def tokens(self) -> dict[str, int]:
        """Input tokens sent, by task."""
        return dict(self._tokens)

    def partition(self, task: str) -> int:
        return partition_for(task.encode(), self.settings.partitions)

    def task_in(self, partition: int, name: str = "TASK") -> str:
        """Return the id of a task that lives in `partition`."""
        numbers = (f"{name}-{number}" for number in range(10_000))
        return next(task for task in numbers if self.partition(task) == partition)

    def event(self, kind: str, task: str, **data: object) -> bytes:
        """Return an event; its sequence goes on from the last one's."""
        self.sent += 1
        return json.dumps(
            {
                "specversion": "1.0",
                "id": f"event-{self.sent}",
                "source": "enforcer-1/test",
                "type": f"stoploss.{kind}",
                "subject": task,
                "time": "2026-11-22T21:00:00.123Z",
                "sequence": f"{self.sent:020d}",
                "data": data,
            }
        ).encode()

    def usage(self, task: str, tokens: int, phase: str = "THINK") -> tuple[str, bytes]:
        """Return key and value of a usage event, and remember what was used."""
        self._tokens[task] = self._tokens.get(task, 0) + tokens
        return task, self.event("phase.usage", task, phase=phase, input_tokens=tokens)

    async def send(self, events: Sequence[tuple[str, bytes]]) -> None:
        """Append events, each to its task's partition."""
        async with aiokafka.AIOKafkaProducer(**self.settings.producer_kwargs()) as producer:
            topic = self.settings.topic(Topic.EVENTS)
            deliveries = [await producer.send(topic, value, key.encode()) for key, value in events]
            await asyncio.gather(*deliveries)

    async def for_all(self, kind: str, **data: object) -> None:
        """Append an operator's event to every partition, as operators do: in one transaction."""
        producer = aiokafka.AIOKafkaProducer(
            **self.settings.producer_kwargs(), transactional_id=f"{self.settings.topic_prefix}ada"
        )
        async with producer, producer.transaction():
            for partition in range(self.settings.partitions):
                subject = f"partition/{partition}"
                value = self.event(kind, subject, **data)
                await producer.send(
                    self.settings.topic(Topic.EVENTS), value, subject.encode(), partition
                )

    async def set_policy(self, policy: Policy) -> None:
        """Have all partitions begin new tasks by a policy."""
        document = json.loads(policy_json(policy))
        await self.for_all(
            "policy.set", policy=document, version=policy.version, hash=policy.hash, by="ada"
        )

    async def set_mode(self, mode: str) -> None:
        """Change the mode of all partitions."""
        await self.for_all("mode.set", mode=mode, by="ada", reason="test")

    async def assert_verified(self) -> None:
        """Fold the events again: what the ledger wrote is what comes out, in every partition."""
        result = await verify(self.settings)
        differences = [str(report.difference) for report in result.partitions]
        assert differences == ["None"] * self.settings.partitions
        assert result.equal

    async def read(self, topic: Topic) -> list[Seen]:
        """Return every committed record of a topic."""
        consumer = aiokafka.AIOKafkaConsumer(**self.settings.consumer_kwargs())
        async with consumer:
            name = self.settings.topic(topic)
            count = SPECS[topic].partitions or self.settings.partitions
            tps = [TopicPartition(name, partition) for partition in range(count)]
            consumer.assign(tps)
            ends = await consumer.end_offsets(tps)
            found: list[Seen] = []
            while any([await consumer.position(tp) < ends[tp] for tp in tps]):
                for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                    found += [
                        Seen(
                            tp.partition,
                            record.offset,
                            (record.key or b"").decode(errors="replace"),
                            None if record.value is None else json.loads(record.value),
                        )
                        for record in records
                    ]
        return sorted(found, key=lambda seen: (seen.partition, seen.offset))

    async def last(self, topic: Topic) -> dict[str, dict[str, Any]]:
        """Return the data of the last record of each key; deleted ones are left out."""
        last: dict[str, dict[str, Any]] = {}
        for seen in await self.read(topic):
            if seen.envelope is None:
                last.pop(seen.key, None)
            else:
                last[seen.key] = seen.data
        return last

    async def used_tokens(self) -> dict[str, int]:
        """Return the input tokens that the state of each task has counted."""
        return {
            key: sum(
                int(phase["counters"].get("input_tokens", 0)) for phase in data["phases"].values()
            )
            for key, data in (await self.last(Topic.TASKS)).items()
            if "phases" in data
        }

    async def until_folded(self) -> None:
        """Wait until what was sent is in the state of the tasks, each event once."""
        await eventually(self._is_folded)

    async def _is_folded(self) -> bool:
        return await self.used_tokens() == self._tokens

    @contextlib.asynccontextmanager
    async def ledger(self, metrics: LedgerMetrics | None = None) -> AsyncIterator["RunningLedger"]:
        """Run a ledger until the end of the block, then stop it as SIGTERM would."""
        metrics = metrics or unseen()
        async with asyncio.TaskGroup() as group:
            stop, health = asyncio.Event(), LedgerHealth()
            task = group.create_task(
                run_ledger(self.settings, stop=stop, health=health, metrics=metrics)
            )
            try:
                yield RunningLedger(stop, health, metrics, task)
            finally:
                stop.set()


@dataclass
class RunningLedger:
    """A ledger of this process."""

    stop: asyncio.Event
    health: LedgerHealth
    metrics: LedgerMetrics
    task: asyncio.Task[None]

    async def leave(self) -> None:
        """Stop in order."""
        self.stop.set()
        await self.task

    async def crash(self) -> None:
        """End wherever it is, with nothing said to anybody."""
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


async def make_world(
    bootstrap_servers: str, topic_prefix: str, partitions: int = 2, driver: Driver = "aiokafka"
) -> World:
    settings = load_settings(
        {},
        driver=driver,
        bootstrap_servers=bootstrap_servers,
        topic_prefix=topic_prefix,
        partitions=partitions,
        heartbeat_interval_ms=500,
    )
    await create_or_check_topics(settings)
    return World(settings)


async def eventually(
    holds: Callable[[], Coroutine[Any, Any, bool]], within_s: float = WITHIN_S
) -> None:
    """Wait for a condition, however long the machine takes for it; fail after a deadline."""
    async with asyncio.timeout(within_s):
        while True:
            with contextlib.suppress(UnavailableError):
                if await holds():
                    return
            await asyncio.sleep(0.1)
