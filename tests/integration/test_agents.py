"""An agent on the real broker: what faust is known to do wrong is not seen in what comes out."""

import signal
import time
import uuid
from collections.abc import AsyncIterator

import aiokafka
import msgspec
import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from schemas.topics import Topic
from streams.agents.baselines import AGENT
from streams.kafka import failpoints
from tests.integration.agents_world import (
    PARTITIONS,
    WITHIN_S,
    WORKER,
    AgentsWorld,
    Worker,
    execution,
    make_agents_world,
    settings_for,
    some_executions,
)
from tests.integration.kafka_world import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

EXECUTIONS = some_executions(400)


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> AsyncIterator[AgentsWorld]:
    world = await make_agents_world(bootstrap_servers, topic_prefix, AGENT)
    yield world
    for worker in world.workers:
        if worker.process.returncode is None:
            worker.process.kill()
            await worker.ended()


class Undisturbed:
    """What one worker makes of `EXECUTIONS` when nothing happens to it; made once."""

    made: tuple[dict[str, object], dict[str, object]] | None = None


async def undisturbed(bootstrap_servers: str) -> tuple[dict[str, object], dict[str, object]]:
    """Return the baselines and the classes of tasks."""
    if Undisturbed.made is None:
        prefix = f"t-{uuid.uuid4().hex[:8]}."
        world = await make_agents_world(bootstrap_servers, prefix, AGENT)
        await world.send(EXECUTIONS)
        async with world.worker():
            await world.until_done()
        Undisturbed.made = await outcome(world)
    return Undisturbed.made


async def outcome(world: AgentsWorld) -> tuple[dict[str, object], dict[str, object]]:
    return dict(await world.baselines()), await world.classes()


async def test_executions_of_all_partitions_become_baselines(world: AgentsWorld) -> None:
    await world.send(EXECUTIONS)
    async with world.worker() as worker:
        await world.until_done()
        published = await world.records(Topic.BASELINES)
        await world.send([execution("ONE-MORE")])
        await world.until_done()
    assert await worker.ended() == 0
    assert [line for line in worker.said.splitlines() if "agents: baselines:" not in line] == []
    baselines = await world.baselines()
    assert sum(one.executions for one in baselines.values()) == 401
    assert baselines["THINK/medium/low"].executions > 1
    assert len(published) < len(EXECUTIONS) / 2, "not once for each execution"
    assert len(await world.records(Topic.BASELINES)) == len(published) + 1


@pytest.mark.parametrize("point", failpoints.AGENT_POINTS)
async def test_a_crash_anywhere_is_not_seen_in_what_comes_out(
    world: AgentsWorld, bootstrap_servers: str, point: str
) -> None:
    expected = await undisturbed(bootstrap_servers)
    await world.send(EXECUTIONS[:300])
    first = await world.begin()
    await world.until_done()
    await first.end()
    await world.send(EXECUTIONS[300:])
    killed = await world.begin(STOPLOSS_FAILPOINT=f"{point}:{1 if 'restore' in point else 2}")
    assert await killed.ended() == -9
    assert f"failpoint: {point}: killed" in killed.said
    assert await world.lag() > 0 or point == "agent_after_commit", "it left something to be done"
    async with world.worker():
        await world.until_done()
    assert await outcome(world) == expected


async def test_a_worker_that_was_stopped_in_a_batch_writes_nothing_more(
    world: AgentsWorld, bootstrap_servers: str
) -> None:
    expected = await undisturbed(bootstrap_servers)
    await world.send(EXECUTIONS)
    stopped = await world.begin(STOPLOSS_FAILPOINT="agent_after_outputs:3:stop")
    process = psutil.Process(stopped.process.pid)
    await eventually(lambda: is_stopped(process), WITHIN_S)
    async with world.worker():
        await world.until_done()
        before = await world.classes()
        process.send_signal(signal.SIGCONT)
        assert await stopped.ended() == 1
        assert "in a batch" in stopped.said or "a batch took" in stopped.said
        await world.until_done()
    assert await world.classes() == before
    assert await outcome(world) == expected


async def is_stopped(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_STOPPED)


async def test_partitions_go_to_a_second_worker_and_come_back(
    world: AgentsWorld, bootstrap_servers: str
) -> None:
    expected = await undisturbed(bootstrap_servers)
    chunks = [EXECUTIONS[at : at + 60] for at in range(0, len(EXECUTIONS), 60)]
    async with world.worker() as first:
        await world.send(chunks[0])
        await world.until_done()
        second = await world.begin()
        for chunk in chunks[1:4]:
            await world.send(chunk)
        await eventually(lambda: world.is_shared_by(2), WITHIN_S)
        await second.runs()
        await world.send(chunks[4])
        await world.until_done()
        await second.end()
        for chunk in chunks[5:]:
            await world.send(chunk)
        await world.until_done()
        assert first.process.returncode is None
    assert await outcome(world) == expected


# faust has fetched again from where it looked up first while it looks the others up.
SLOWLY = """
import aiokafka
look_up = aiokafka.AIOKafkaConsumer.committed
async def slowly(consumer, partition):
    await asyncio.sleep(0.3)
    return await look_up(consumer, partition)
aiokafka.AIOKafkaConsumer.committed = slowly
asyncio.run(main())
"""


async def test_nothing_is_passed_over_where_offsets_are_looked_up_slowly(
    world: AgentsWorld, bootstrap_servers: str
) -> None:
    expected = await undisturbed(bootstrap_servers)
    await world.send(EXECUTIONS[:300])
    async with world.worker():
        await world.until_done()
    await world.send(EXECUTIONS[300:])
    async with world.worker(WORKER.removesuffix("asyncio.run(main())\n") + SLOWLY):
        await world.until_done()
    assert await outcome(world) == expected


async def test_what_is_read_again_changes_nothing(
    world: AgentsWorld, bootstrap_servers: str
) -> None:
    expected = await undisturbed(bootstrap_servers)
    await world.send(EXECUTIONS)
    async with world.worker():
        await world.until_done()
    before = await world.standings()
    await set_back(world, 0)
    assert await world.lag() == sum(one.end_offset for one in before.values()) > 0
    async with world.worker():
        await world.until_done()
    assert await outcome(world) == expected


async def set_back(world: AgentsWorld, offset: int) -> None:
    """Have the group begin again at an offset of every partition; nobody is in it."""
    consumer = aiokafka.AIOKafkaConsumer(
        **world.settings.consumer_kwargs(), group_id=world.settings.group_id(AGENT.group)
    )
    tps = [
        TopicPartition(f"{world.settings.topic_prefix}{topic}", partition)
        for topic, partition in await world.standings()
    ]
    async with consumer:
        consumer.assign(tps)
        await consumer.commit({tp: OffsetAndMetadata(offset, "") for tp in tps})


async def test_a_bad_record_becomes_a_letter_and_the_agent_goes_on(world: AgentsWorld) -> None:
    bad = [("BAD", b"no json"), ("BAD", execution("BAD")[1].replace(b"1000", b'"x"'))]
    await world.send([*EXECUTIONS[:10], *bad, *EXECUTIONS[10:20]])
    async with world.worker():
        await world.until_done()
    baselines = await world.baselines()
    assert sum(one.executions for one in baselines.values()) == 20
    letters = await world.records(Topic.DEAD_LETTERS, PARTITIONS)
    assert [letter.value.count(b'"reason":"not_json"') for letter in letters] == [1, 0]
    assert [letter.value.count(b'"reason":"invalid_field"') for letter in letters] == [0, 1]
    topic = world.settings.topic(Topic.EXECUTIONS).encode()
    assert all(topic in letter.value for letter in letters)


async def test_what_a_transaction_has_not_committed_is_not_read(world: AgentsWorld) -> None:
    topic = world.settings.topic(Topic.EXECUTIONS)
    producer = aiokafka.AIOKafkaProducer(
        **world.settings.producer_kwargs(), transactional_id=f"{topic}-open"
    )
    async with producer, world.worker():
        await producer.begin_transaction()
        await producer.send_and_wait(topic, execution("NEVER")[1], b"NEVER", 0)
        await world.send([execution("T-1"), execution("T-2")], waits=False)
        await producer.abort_transaction()
        await world.until_done()
    (baseline,) = (await world.baselines()).values()
    assert baseline.executions == 2


async def test_its_own_topics_are_made_as_they_should_be(world: AgentsWorld) -> None:
    async with world.worker() as worker:
        await worker.runs()
        admin = AIOKafkaAdminClient(**world.settings.admin_kwargs())
        await admin.start()
        try:
            described = await admin.describe_topics()
        finally:
            await admin.close()
    own = {
        topic["topic"].removeprefix(world.settings.topic_prefix): len(topic["partitions"])
        for topic in described
        if topic["topic"].startswith(f"{world.settings.topic_prefix}agents-")
    }
    assert own == {"agents-baselines-measures": 1, "agents-baselines-count-changelog": 1}


async def test_it_waits_for_topics_that_are_not_there_yet_and_ends_when_told(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    world = AgentsWorld(settings_for(bootstrap_servers, topic_prefix), AGENT)
    async with world.worker() as worker:
        await eventually(lambda: says(worker, "waits for Kafka: there is no topic"), WITHIN_S)
    assert await worker.ended() == 0
    assert worker.said.count("waits for Kafka") == 1


async def says(worker: Worker, what: str) -> bool:
    return what in worker.said


TICKING = """
import asyncio, logging, signal
import msgspec
from schemas.topics import Topic
from streams.agents.stages import Agent, InternalTopic, Outbound, Source, Stage, Ticks
from streams.agents.worker import run_agent
from streams.kafka.settings import load_settings
logging.basicConfig(level=logging.INFO, format="%(message)s")
TOPIC = "agents-ticking-ticks"
def count(entries, record):
    entries["ticks"] = entries.get("ticks", 0) + 1
    said = {"count": entries["ticks"], "wall_ms": record.data}
    return [Outbound(Topic.ALERTS, b"ticks", msgspec.json.encode(said))]
AGENT = Agent(
    name="ticking",
    stages=(
        Stage(name="count", sources=(Source(TOPIC, msgspec.json.Decoder(int)),), fold=count, entry=int),
    ),
    internal=(InternalTopic(TOPIC),),
    writes=(Topic.ALERTS,),
    ticks=(Ticks(TOPIC, 0.2, msgspec.json.encode),),
)
async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run_agent(AGENT, load_settings(), stop=stop)
asyncio.run(main())
"""


async def test_that_time_passes_is_a_record_of_one_owner(world: AgentsWorld) -> None:
    async def ticks() -> list[int]:
        found = [msgspec.json.decode(one.value) for one in await world.records(Topic.ALERTS)]
        assert [one["count"] for one in found] == list(range(1, len(found) + 1))
        return [one["wall_ms"] for one in found]

    async def has(count: int) -> bool:
        return len(await ticks()) >= count

    before_ms = time.time_ns() // 1_000_000
    async with world.worker(TICKING), world.worker(TICKING):
        await eventually(lambda: has(5), WITHIN_S)
    told = await ticks()
    async with world.worker(TICKING):
        await eventually(lambda: has(len(told) + 3), WITHIN_S)
    walls = await ticks()
    assert walls == sorted(walls)
    assert walls[0] >= before_ms
