"""What `doctor` says of the parts beside the ledger: view, alerts, agents, latencies."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiokafka
import pytest
from aiokafka.structs import TopicPartition

from schemas.topics import Topic
from streams.agents.delivery.deliver import deliver
from streams.agents.delivery.sinks import Sink
from streams.agents.registry import AGENTS
from streams.agents.topics import create_topics
from streams.cli.beside import agents_facts, sinks_facts
from streams.local.redis import RedisServer
from tests.integration.kafka_world import World, eventually, make_world
from tests.integration.shell import Ran, environ, stoploss
from tests.integration.view_world import (
    Shown,
    alert,
    health,
    now_ms,
    running_view,
    say,
    shown,
)

pytestmark = pytest.mark.integration

NOBODY = "redis://127.0.0.1:1/0"


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> AsyncIterator[World]:
    made = await make_world(bootstrap_servers, topic_prefix)
    async with made.ledger():
        await made.send([made.usage(made.task_in(each), 100) for each in (0, 1)])
        await made.until_folded()
        yield made


@pytest.fixture
async def view(world: World, redis_server: RedisServer) -> AsyncIterator[Shown]:
    async with shown(world, redis_server.url) as found, running_view(world, redis_server.url):
        await found.until_all_is_shown()
        yield found


async def doctor(world: World, redis_url: str, *options: str) -> Ran:
    env = environ(world.settings, STOPLOSS_REDIS_URL=redis_url)
    return await stoploss("doctor", *options, env=env)


def findings(ran: Ran) -> list[tuple[str, str]]:
    return [(each["about"], each["remedy"]) for each in ran.answer["findings"]]


async def test_a_healthy_system_is_examined_by_its_view(view: Shown) -> None:
    await say(
        view.world,
        [
            alert(1, "T", "budget_breach", task_id="T"),
            health("ledger/a", commit_ms={100: 9}),
            health("enforcer-1/a", 3, transition_ms={350: 4}),
        ],
    )
    await view.until_all_is_shown()
    ran = await doctor(view.world, view.url, "--json")
    assert (ran.code, ran.err, ran.answer["findings"]) == (0, "", [])
    answer = ran.answer
    assert (answer["source"]["from"], answer["open_tasks"]) == ("view", 2)
    assert answer["view"]["why"] is None
    assert answer["view"]["age_ms"] < 10_000
    assert answer["alerts"] == {"warning": 1}
    assert [each["mode"] for each in answer["partitions"]] == ["observe", "observe"]
    assert {
        "name": "baselines",
        "lag": None,
        "why": None,
        "restarts": 0,
        "since": None,
        "restarted": None,
        "restarted_because": None,
    } in answer["agents"]
    assert answer["latencies"]["commit_ms"]["count"] >= 9
    assert answer["latencies"]["transition_ms"]["count"] == 4
    assert answer["latencies"]["transition_ms"]["p99"] == pytest.approx(1_097, rel=0.02)
    read = [
        " ".join(each.split()) for each in (await doctor(view.world, view.url)).out.splitlines()
    ]
    assert "nothing is wrong" in read
    assert any(each.startswith("transitions p50 1,") for each in read), read
    assert "agent baselines has never run here" in read
    assert read[-1].startswith("from the view, ")
    of_topics = await doctor(view.world, view.url, "--from", "topics", "--json")
    assert of_topics.code == 0
    assert (of_topics.answer["view"], of_topics.answer["latencies"]) == (None, None)
    assert of_topics.answer["alerts"] == {"warning": 1}


async def test_an_alert_about_the_system_is_a_finding(view: Shown) -> None:
    await say(view.world, [alert(1), alert(1, "partition/0", "breaker_open")])
    await view.until_all_is_shown()
    ran = await doctor(view.world, view.url, "--json")
    assert ran.code == 1
    assert findings(ran) == [("alerts", "stoploss alerts")]
    (found,) = ran.answer["findings"]
    assert found["problem"] == "firing: 2 warning (breaker_open, queue_depth)"


async def test_a_redis_that_was_named_and_is_away_is_a_finding_and_no_error(world: World) -> None:
    ran = await doctor(world, NOBODY, "--json")
    assert ran.code == 1
    assert ran.err == "doctor: 1 found\n"
    assert findings(ran) == [("view", "start Redis, or name the right one in STOPLOSS_REDIS_URL")]
    assert ran.answer["source"]["from"] == "topics"
    assert ran.answer["open_tasks"] == 2
    wanted = await doctor(world, NOBODY, "--from", "view")
    assert (wanted.code, wanted.out) == (3, "")


async def test_a_view_that_nobody_feeds_is_a_finding(
    world: World, redis_server: RedisServer
) -> None:
    url = redis_server.url
    none = await doctor(world, url, "--json")
    assert [each["problem"] for each in none.answer["findings"]] == [
        f"Redis at {url} has nothing of these topics"
    ]
    async with shown(world, url) as found:
        async with running_view(world, url):
            await found.until_all_is_shown()
        await found.redis.hset(found.keys.meta, "at_ms", now_ms() - 3_600_000)
        old = await doctor(world, url, "--json")
        wanted = await doctor(world, url, "--from", "view", "--json")
    for ran, part in ((old, "topics"), (wanted, "view")):
        assert ran.code == 1
        assert ("view", "stoploss view, where none runs; its log says what it waits for") in (
            findings(ran)
        )
        assert ran.answer["source"]["from"] == part
    assert wanted.answer["view"]["why"].startswith("the view is 1 h ")


async def test_a_ledger_with_nothing_to_do_is_not_taken_for_a_silent_one(
    world: World, redis_server: RedisServer
) -> None:
    async with shown(world, redis_server.url) as found:
        async with running_view(world, redis_server.url):
            await found.until_all_is_shown()
        beats = await found.redis.hgetall(found.keys.heartbeats)
        assert set(beats) == {b"0", b"1"}
        # The time in a heartbeat is that of the last event of its partition.
        old = {
            partition: re.sub(rb'"time":"[^"]+"', b'"time":"2026-01-01T00:00:00.000Z"', beat)
            for partition, beat in beats.items()
        }
        await found.redis.hset(found.keys.heartbeats, mapping=old)
        await found.redis.hset(found.keys.meta, "at_ms", now_ms() + 3_600_000)
        ran = await doctor(world, redis_server.url, "--json")
    assert ran.answer["source"]["from"] == "view"
    assert ran.answer["findings"] == []


async def test_what_the_view_could_not_read_is_a_finding_and_tasks_are_read_in_the_topics(
    view: Shown,
) -> None:
    world = view.world
    async with aiokafka.AIOKafkaProducer(**world.settings.producer_kwargs("test")) as producer:
        for topic in (Topic.TASKS, Topic.BASELINES):
            name = world.settings.topic(topic)
            await producer.send_and_wait(name, b"not json", b"TORN", partition=0)
    await view.until_all_is_shown()
    ran = await doctor(world, view.url, "--json")
    assert ran.code == 1
    problems = {each["about"]: each["problem"] for each in ran.answer["findings"]}
    assert problems["view"] == "records could not be read: 1 of baselines, 1 of tasks"
    assert "tasks, partition 0, key TORN" in problems
    assert ran.answer["source"]["why"] == "the view could not read records of tasks"


async def test_how_far_an_agent_is_behind_is_asked_of_kafka(world: World) -> None:
    agent, settings = AGENTS["baselines"], world.settings

    async def lags() -> dict[str, int | None]:
        return {each.name: each.lag for each in await agents_facts(settings, 2)}

    assert (await lags())[agent.name] is None
    await create_topics(agent, settings)
    async with aiokafka.AIOKafkaProducer(**settings.producer_kwargs("test")) as producer:
        name = settings.topic(Topic.EXECUTIONS)
        before = (await world.read(Topic.EXECUTIONS))[-1:]
        assert before == []
        for _ in range(7):
            await producer.send_and_wait(name, b"{}", b"T", partition=0)
    consumer = aiokafka.AIOKafkaConsumer(
        **settings.consumer_kwargs("test"), group_id=settings.group_id(agent.group)
    )
    async with consumer, asyncio.timeout(60):
        consumer.assign([TopicPartition(name, 0)])
        await consumer.commit({TopicPartition(name, 0): 2})
    assert (await lags())[agent.name] == 5


async def test_how_far_the_delivery_to_each_sink_is_behind_is_told(
    world: World, tmp_path: Path
) -> None:
    config = tmp_path / "stoploss.toml"
    config.write_text('[sinks.oncall]\nkind = "webhook"\nurl = "http://127.0.0.1:1/hook"\n')
    env = environ(world.settings, STOPLOSS_CONFIG=str(config))

    async def told() -> list[dict[str, object]]:
        sinks: list[dict[str, object]] = (
            await stoploss("doctor", "--json", "--from", "topics", env=env)
        ).answer["sinks"]
        return sinks

    assert await told() == [{"name": "oncall", "lag": None, "why": None}]
    sinks = [
        Sink(name="oncall", kind="webhook", url="http://127.0.0.1:1/hook"),
        Sink(name="elsewhere", kind="log"),
    ]
    delivering = asyncio.ensure_future(deliver(world.settings, sinks))

    async def lags() -> dict[str, int | None]:
        return {each.name: each.lag for each in await sinks_facts(world.settings)}

    async def have_begun() -> bool:
        return await lags() == {"oncall": 0, "elsewhere": 0}

    async def one_waits() -> bool:
        return await lags() == {"oncall": 3, "elsewhere": 0}

    try:
        with contextlib.chdir(tmp_path):
            await eventually(have_begun)
            await say(world, [alert(number) for number in (1, 2, 3)])
            await eventually(one_waits)
    finally:
        delivering.cancel()
        await asyncio.gather(delivering, return_exceptions=True)
    assert await told() == [{"name": "oncall", "lag": 3, "why": None}], "nobody delivers elsewhere"
