"""Reports of what a real ledger has written: each whole, whatever happens to the agents meanwhile."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiokafka
import msgspec
import pytest

from schemas.envelope import Envelope, rfc3339
from schemas.feedback import Feedback
from schemas.reports import Report
from schemas.topics import Topic
from streams.agents.reports import AGENT
from streams.insight.notices import notice_of_completion
from tests.integration.agents_world import (
    PARTITIONS,
    WITHIN_S,
    AgentsWorld,
    make_agents_world,
)
from tests.integration.kafka_world import World, eventually, make_world
from tests.unit.insight.test_reports import baseline

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

TASKS = 24
OF_THE_LEDGER = (Topic.LIFECYCLE, Topic.EXECUTIONS, Topic.BREACHES, Topic.DECISIONS)
_REPORT = msgspec.json.Decoder(Envelope[Report])
_ENCODE = msgspec.json.Encoder(decimal_format="number").encode


def task_events(world: World, number: int) -> list[tuple[str, bytes]]:
    """One task from its start to its end; each third one has a child that ends after it."""
    task, child = f"TASK-{number}", f"CHILD-{number}"
    events = [
        world.event("task.started", task, planned_phases=["THINK", "PLAN"], owner="ann"),
        world.event("phase.started", task, phase="THINK"),
        world.event("phase.usage", task, phase="THINK", input_tokens=1_000 * number, files_read=9),
        world.event("phase.ended", task, phase="THINK", outcome="completed", duration_ms=9_000),
        world.event("phase.usage", task, phase="PLAN", input_tokens=700),
    ]
    if number % 3 == 0:
        events += [
            world.event("task.started", child, parent_task_id=task),
            world.event("phase.usage", child, phase="THINK", input_tokens=5_000),
        ]
    events.append(world.event("task.ended", task, outcome="completed"))
    if number % 3 == 0:
        events += [
            world.event("phase.usage", child, phase="THINK", input_tokens=50),
            world.event("task.ended", child, outcome="failed"),
        ]
    return [(task, event) for event in events]


class Written:
    """What a real ledger has made of the events; made once."""

    records: dict[Topic, list[Any]] | None = None


async def written(bootstrap_servers: str) -> dict[Topic, list[Any]]:
    """Return the records of each topic."""
    if Written.records is None:
        prefix = f"t-{uuid.uuid4().hex[:8]}."
        world = await make_world(bootstrap_servers, prefix, PARTITIONS)
        reader = AgentsWorld(world.settings, AGENT)
        async with world.ledger():
            for number in range(TASKS):
                await world.send(task_events(world, number))

            async def all_ended() -> bool:
                seen = await world.read(Topic.LIFECYCLE)
                ended = {each.key for each in seen if each.data["change"] == "ended"}
                return len(ended) == TASKS + TASKS // 3

            await eventually(all_ended, WITHIN_S)
        Written.records = {
            topic: await reader.records(topic, PARTITIONS) for topic in OF_THE_LEDGER
        }
    return Written.records


async def copy(world: AgentsWorld, topic: str, records: list[Any]) -> None:
    """Write records again, each to the partition that it was in."""
    name = f"{world.settings.topic_prefix}{topic}"
    async with aiokafka.AIOKafkaProducer(**world.settings.producer_kwargs()) as producer:
        for each in records:
            await producer.send(name, each.value, each.key, each.partition)


async def fix_baselines(world: AgentsWorld) -> None:
    """What similar tasks used, and not by the tasks that are reported on."""
    known = baseline("THINK", *[3_500] * 5)
    record = Envelope(
        id="b", source="", type="stoploss.baseline", subject="", time=rfc3339(0), data=known
    )
    name = world.settings.topic(Topic.BASELINES)
    async with aiokafka.AIOKafkaProducer(**world.settings.producer_kwargs()) as producer:
        await producer.send_and_wait(name, _ENCODE(record), b"THINK/medium/medium")


async def reports(world: AgentsWorld) -> list[Envelope[Report]]:
    return [_REPORT.decode(each.value) for each in await world.records(Topic.REPORTS)]


async def last(world: AgentsWorld) -> dict[str, Report]:
    """The last report of each task, whichever revision it is."""
    return {
        each.subject: msgspec.structs.replace(each.data, revision=1)
        for each in await reports(world)
    }


async def until_reported(world: AgentsWorld) -> None:
    async def all_reported() -> bool:
        return len(await last(world)) == TASKS + TASKS // 3

    await eventually(all_reported, WITHIN_S)


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> AsyncIterator[AgentsWorld]:
    world = await make_agents_world(bootstrap_servers, topic_prefix, AGENT)
    await fix_baselines(world)
    yield world
    for worker in world.workers:
        if worker.process.returncode is None:
            worker.process.kill()
            await worker.ended()


async def test_the_end_of_a_task_is_followed_by_its_report_and_an_answer_by_the_next(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    ledger = await make_world(bootstrap_servers, topic_prefix, PARTITIONS)
    world = AgentsWorld(ledger.settings, AGENT)
    await fix_baselines(world)
    link = "https://budget.example/{task_id}"
    worker = await world.begin(STOPLOSS_REPORT_URL=link)
    async with ledger.ledger():
        await ledger.send(task_events(ledger, 21))

        async def has(task: str, revision: int) -> bool:
            seen = await reports(world)
            return (task, revision) in {(each.subject, each.data.revision) for each in seen}

        await eventually(lambda: has("TASK-21", 1), WITHIN_S)
        await eventually(lambda: has("CHILD-21", 1), WITHIN_S)
        first = next(each for each in await reports(world) if each.subject == "TASK-21")
        notice = notice_of_completion(first)
        assert notice is not None
        assert notice.link == "https://budget.example/TASK-21"
        assert first.data.summary[0].startswith("Over budget: ")
        assert first.data.phases[0].metrics["tokens"].similar is not None  # type: ignore[index]
        decision_id = first.data.blocks[0].decision_id
        answer = Feedback(task_id="TASK-21", decision_id=decision_id, false_positive=True, by="ann")
        record = Envelope(
            id="f", source="web", type="stoploss.feedback", subject="TASK-21", time=rfc3339(0),
            data=answer,
        )  # fmt: skip
        async with aiokafka.AIOKafkaProducer(**world.settings.producer_kwargs()) as producer:
            topic = world.settings.topic(Topic.FEEDBACK)
            await producer.send_and_wait(topic, _ENCODE(record), b"TASK-21")
        revision = (await reports(world))[-1].data.revision

        async def is_answered() -> bool:
            return (await last(world))["TASK-21"].blocks[0].false_positive is True

        await eventually(is_answered, WITHIN_S)
        assert (await reports(world))[-1].data.revision == revision + 1
    await worker.end()
    assert await worker.ended() == 0


async def test_a_topic_that_is_long_makes_no_report_that_lacks_it(
    world: AgentsWorld, bootstrap_servers: str
) -> None:
    """The executions of all tasks stand behind those of ten thousand others."""
    records = await written(bootstrap_servers)
    (other,) = [each for each in records[Topic.EXECUTIONS] if each.key == b"TASK-1"][:1]
    await copy(world, Topic.EXECUTIONS, [other] * 10_000 + records[Topic.EXECUTIONS])
    for topic in OF_THE_LEDGER:
        if topic is not Topic.EXECUTIONS:
            await copy(world, topic, records[topic])
    async with world.worker():
        await until_reported(world)
        seen = await reports(world)
    assert {each.data.revision for each in seen} == {1}
    assert all(each.data.phases for each in seen)


async def test_reports_of_agents_that_were_killed_are_those_of_a_calm_run(
    world: AgentsWorld, bootstrap_servers: str
) -> None:
    records = await written(bootstrap_servers)
    calm = await make_agents_world(bootstrap_servers, f"t-{uuid.uuid4().hex[:8]}.", AGENT)
    await fix_baselines(calm)
    for topic in OF_THE_LEDGER:
        await copy(calm, topic, records[topic])
    async with calm.worker():
        await until_reported(calm)
    points = ("agent_after_outputs:2", "agent_in_table:2", "agent_before_commit:2")
    for part, point in enumerate(points):
        killed = await world.begin(STOPLOSS_FAILPOINT=point)
        for topic in OF_THE_LEDGER:
            size = -(-len(records[topic]) // len(points))
            await copy(world, topic, records[topic][part * size : (part + 1) * size])
        while await killed.ended() != -9:  # a batch was late: the supervisor begins another one
            killed = await world.begin(STOPLOSS_FAILPOINT=point)
        assert f"failpoint: {point.partition(':')[0]}: killed" in killed.said
    async with world.worker():
        await until_reported(world)
        expected = await last(calm)

        async def is_as_expected() -> bool:
            return await last(world) == expected

        await eventually(is_as_expected, WITHIN_S)
    assert await world.records(Topic.DEAD_LETTERS, PARTITIONS) == []
    notices = [each.id for each in await reports(world) if each.data.revision == 1]
    assert len(set(notices)) == TASKS + TASKS // 3
