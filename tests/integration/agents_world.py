"""What the tests of the agents share: executions to read, workers as processes, and what came out."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiokafka
import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from schemas.baselines import Baseline
from schemas.envelope import Envelope, rfc3339
from schemas.errors import UnavailableError
from schemas.fields import Complexity, ExecutionOutcome, Importance
from schemas.outputs import ExecutionRecord
from schemas.topics import BY_PARTITION, Topic
from streams.agents.lag import opened
from streams.agents.stages import Agent
from streams.agents.together import KEY_PREFIX
from streams.agents.topics import source_partitions
from streams.agents.watchdog import Place, Standing
from streams.insight.baselines import ClassOfTasks, Entry
from streams.kafka.settings import Settings, load_settings
from streams.kafka.topics import create_or_check_topics, partition_counts, partition_for
from tests.integration.kafka_world import eventually

PARTITIONS = 3
AT_MS = 1_795_000_000_000
WITHIN_S = 100.0  # beside other work on the machine

WORKER = """
import asyncio, logging, signal, sys
from streams.agents.registry import AGENTS
from streams.agents.worker import run_agent
from streams.kafka.settings import load_settings
logging.basicConfig(level=logging.INFO, format="%(message)s")
async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run_agent(AGENTS[sys.argv[1]], load_settings(), stop=stop)
asyncio.run(main())
"""

_BASELINE = msgspec.json.Decoder(Envelope[Baseline])
_ENTRY: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)
_ENCODER = msgspec.json.Encoder(decimal_format="number")


def settings_for(bootstrap_servers: str, topic_prefix: str) -> Settings:
    return load_settings(
        {},
        bootstrap_servers=bootstrap_servers,
        topic_prefix=topic_prefix,
        partitions=PARTITIONS,
    )


def execution(task: str, revision: int = 1, **more: Any) -> tuple[str, bytes]:  # noqa: ANN401 - any field
    """Return key and value of a finished execution."""
    fields: dict[str, Any] = {
        "phase": "THINK",
        "attempt": 1,
        "outcome": ExecutionOutcome.COMPLETED,
        "latency_ms": 1_000,
        "metered_tokens": 100,
        "counters": {"cost_usd": 0},
        "limits": {},
        "complexity": Complexity.MEDIUM,
        "importance": Importance.LOW,
    }
    data = ExecutionRecord(task_id=task, revision=revision, **(fields | more))
    envelope = Envelope(
        id=f"{task}-{revision}",
        source="stoploss/ledger",
        type="stoploss.execution",
        subject=task,
        time=rfc3339(AT_MS + revision),
        data=data,
    )
    return task, _ENCODER.encode(envelope)


def some_executions(count: int, name: str = "T") -> list[tuple[str, bytes]]:
    """Return executions of several classes, a third of them in a second revision later on."""
    importances = list(Importance)
    first = [
        execution(
            f"{name}-{n}",
            metered_tokens=10 + n,
            latency_ms=1 + n * 7,
            importance=importances[n % 4],
            phase=("THINK", "PLAN", "VERIFY")[n % 3],
        )
        for n in range(count)
    ]
    second = [
        execution(
            f"{name}-{n}",
            2,
            metered_tokens=1_000 + n,
            importance=importances[n % 4 if n % 2 else 0],
            phase=("THINK", "PLAN", "VERIFY")[n % 3],
        )
        for n in range(0, count, 3)
    ]
    return first + second


@dataclass
class AgentsWorld:
    """One prefix on the broker."""

    settings: Settings
    agent: Agent
    workers: list["Worker"] = field(default_factory=list)

    async def send(
        self, executions: Sequence[tuple[str, bytes]], each: int = 50, *, waits: bool = True
    ) -> None:
        """Append executions as the ledger does: in transactions, each to its task's partition.

        It waits until all of them are visible, unless somebody's transaction is meant to stay open.
        """
        topic = self.settings.topic(Topic.EXECUTIONS)
        producer = aiokafka.AIOKafkaProducer(
            **self.settings.producer_kwargs(), transactional_id=f"{self.settings.topic_prefix}led"
        )
        async with producer:
            for at in range(0, len(executions), each):
                async with producer.transaction():
                    deliveries = [
                        await producer.send(
                            topic, value, key.encode(), partition_for(key.encode(), PARTITIONS)
                        )
                        for key, value in executions[at : at + each]
                    ]
                    await asyncio.gather(*deliveries)
        if waits:
            await eventually(self._all_is_visible, WITHIN_S)

    async def _all_is_visible(self) -> bool:
        """Whether no transaction is open: the broker writes its markers after it has answered."""
        name = self.settings.topic(Topic.EXECUTIONS)
        tps = [TopicPartition(name, partition) for partition in range(PARTITIONS)]
        kwargs = self.settings.consumer_kwargs()
        async with (
            aiokafka.AIOKafkaConsumer(**kwargs) as committed,
            aiokafka.AIOKafkaConsumer(**kwargs | {"isolation_level": "read_uncommitted"}) as all_,
        ):
            visible: dict[TopicPartition, int] = await committed.end_offsets(tps)
            return bool(visible == await all_.end_offsets(tps))

    async def standings(self) -> dict[Place, Standing]:
        stages = {
            stage.name: PARTITIONS if stage.sources[0].topic in BY_PARTITION else 1
            for stage in self.agent.stages
        }
        sources = source_partitions(self.agent, stages)
        names = [f"{self.settings.topic_prefix}{topic}" for topic, _ in sources]
        if len(await partition_counts(self.settings, names)) < len(names):
            raise UnavailableError("the worker has not made its topics yet")
        async with opened(self.settings) as standings:
            return await standings.of(self.agent.group, sources)

    async def lag(self) -> int:
        return sum(standing.lag for standing in (await self.standings()).values())

    async def until_done(self) -> None:
        """Wait until everything that was sent is done, and committed."""
        try:
            await eventually(self._is_done, WITHIN_S)
        except TimeoutError as error:
            workers = [(worker.process.returncode, worker.said) for worker in self.workers]
            raise AssertionError(f"{await self.standings()}, {workers}") from error

    async def _is_done(self) -> bool:
        # Ends are asked for before offsets: what the first stage has sent meanwhile waits for the
        # second one, and is seen when it is asked again.
        return await self.lag() == 0 and await self.lag() == 0

    async def is_shared_by(self, count: int) -> bool:
        """Whether the group has so many members, and has given each of them partitions."""
        admin = AIOKafkaAdminClient(**self.settings.admin_kwargs())
        await admin.start()
        try:
            group_id = self.settings.group_id(self.agent.group)
            described = await admin.describe_consumer_groups([group_id])
            (group,) = described[0].to_object()["groups"]
            assigned = [one for one in group["members"] if len(one["member_assignment"])]
            return len(assigned) == count and group["state"] == "Stable"
        finally:
            await admin.close()

    async def records(self, name: str, partitions: int = 1) -> list[Any]:
        """Return every committed record of a topic, its name without the prefix."""
        consumer = aiokafka.AIOKafkaConsumer(**self.settings.consumer_kwargs())
        found: list[Any] = []
        async with consumer:
            full = f"{self.settings.topic_prefix}{name}"
            tps = [TopicPartition(full, partition) for partition in range(partitions)]
            consumer.assign(tps)
            ends = await consumer.end_offsets(tps)
            while any([await consumer.position(tp) < ends[tp] for tp in tps]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += records
        return found

    async def baselines(self) -> dict[str, Baseline]:
        """Return the last record of each key."""
        return {
            record.key.decode(): _BASELINE.decode(record.value).data
            for record in await self.records(Topic.BASELINES)
        }

    async def classes(self) -> dict[str, Any]:
        """Return what the changelog says of each class in the end, its origins left out.

        Offsets depend on how many transactions there were.
        """
        last: dict[str, bytes] = {}
        for record in await self.records(self.agent.table(self.agent.stages[1])):
            if not record.key.startswith(KEY_PREFIX):
                last[record.key.decode()] = record.value
        found = {}
        for key, value in last.items():
            entry = _ENTRY.decode(value)
            if isinstance(entry, ClassOfTasks):
                found[key] = msgspec.to_builtins(entry)
                del found[key]["origins"]
        return found

    @contextlib.asynccontextmanager
    async def worker(self, program: str = WORKER) -> AsyncIterator["Worker"]:
        """Run one worker as a process until the end of the block, then end it as SIGTERM does."""
        worker = await self.begin(program)
        try:
            yield worker
        finally:
            await worker.end()

    async def begin(self, program: str = WORKER, **environ: str) -> "Worker":
        """Begin a worker."""
        path = Path.cwd()
        own = {name: value for name, value in os.environ.items() if not name.startswith("STOPLOSS")}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            self.agent.name,
            env=own
            | {
                "STOPLOSS_BOOTSTRAP_SERVERS": self.settings.bootstrap_servers,
                "STOPLOSS_TOPIC_PREFIX": self.settings.topic_prefix,
                "PYTHONPATH": os.pathsep.join([str(path), *sys.path]),
            }
            | environ,
            stderr=asyncio.subprocess.PIPE,
        )
        worker = Worker(process)
        self.workers.append(worker)
        return worker


class Worker:
    """A worker in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.said += line.decode()

    async def ended(self) -> int:
        """Wait for its end; return how it ended."""
        async with asyncio.timeout(WITHIN_S):
            code = await self.process.wait()
            await self._reading
        return code

    async def end(self) -> None:
        """End it in order, if it has not ended."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            await self.ended()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise

    async def runs(self) -> None:
        """Wait until it says that it runs."""
        await eventually(self._says_so, WITHIN_S)

    async def _says_so(self) -> bool:
        assert self.process.returncode is None, self.said
        return ": runs\n" in self.said


async def make_agents_world(bootstrap_servers: str, topic_prefix: str, agent: Agent) -> AgentsWorld:
    settings = settings_for(bootstrap_servers, topic_prefix)
    await create_or_check_topics(settings)
    return AgentsWorld(settings, agent)
