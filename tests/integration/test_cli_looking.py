"""What people look at: tasks, one task, what is wrong, and topics."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator

import pytest

from schemas.topics import Topic
from tests.integration.kafka_world import World, eventually, make_world
from tests.integration.shell import Ran, environ, start, stoploss

pytestmark = pytest.mark.integration
TASK_TOKENS = 23_400


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> AsyncIterator[World]:
    made = await make_world(bootstrap_servers, topic_prefix)
    async with made.ledger():
        await made.send([made.usage(made.task_in(0), TASK_TOKENS)])
        await made.send([made.usage(made.task_in(1), 100)])
        await made.until_folded()
        yield made


async def run(world: World, *arguments: str) -> Ran:
    return await stoploss(*arguments, env=environ(world.settings))


async def test_tasks_are_listed_the_nearest_to_its_limit_first(world: World) -> None:
    near, far = world.task_in(0), world.task_in(1)
    ran = await run(world, "tasks", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.answer["open_count"] == 2
    assert ran.answer["modes"] == {"0": "observe", "1": "observe"}
    rows = [
        (each["task_id"], each["used_tokens"], each["share"], each["verdict"])
        for each in ran.answer["tasks"]
    ]
    assert [row[0] for row in rows] == [near, far]
    assert rows[0] == (near, TASK_TOKENS, 1.0, "review")  # THINK is far over its own
    await world.send([(near, world.event("task.ended", near))])

    async def has_ended() -> bool:
        return str((await world.last(Topic.TASKS))[near]["status"]) == "ended"

    await eventually(has_ended)
    listed = await run(world, "tasks")
    assert near not in listed.out
    assert "1 open, 1 ended · mode observe" in listed.out
    assert near in (await run(world, "tasks", "--all")).out


async def test_a_task_shows_its_limits_phases_and_decisions(world: World) -> None:
    task = world.task_in(0)
    ran = await run(world, "task", task, "--json")
    assert ran.code == 0
    assert ran.answer["phases"]["THINK"]["attempts"] == 1
    assert ran.answer["phases"]["THINK"]["counters"]["input_tokens"] == TASK_TOKENS
    assert [each["verdict"] for each in ran.answer["decisions"]] == ["review"]
    assert {each["level"] for each in ran.answer["breaches"]} == {"notice", "warn", "review"}
    shown = await run(world, "task", task)
    assert shown.out.startswith(f"{task}  review  not enforced: observe\n")
    unknown = await run(world, "task", "nobody")
    assert (unknown.code, unknown.out) == (1, "")


async def test_watch_without_a_terminal_prints_decisions_until_ctrl_c(world: World) -> None:
    process = await start("watch", "--json", env=environ(world.settings))
    assert process.stdout is not None
    async with asyncio.timeout(30):
        decision = json.loads(await process.stdout.readline())
    assert (decision["task_id"], decision["verdict"]) == (world.task_in(0), "review")
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(30):
        _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")


async def test_doctor_finds_nothing_wrong_with_a_healthy_system(world: World) -> None:
    ran = await run(world, "doctor", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.answer["findings"] == []
    assert [each["lag"] for each in ran.answer["partitions"]] == [0, 0]
    assert ran.answer["open_tasks"] == 2


async def test_doctor_names_bad_input_and_a_ledger_that_is_gone(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    world = await make_world(bootstrap_servers, topic_prefix)
    async with world.ledger():
        await world.send([("TASK", b"not json")])

        async def has_dead_letter() -> bool:
            return bool(await world.read(Topic.DEAD_LETTERS))

        await eventually(has_dead_letter)
        ran = await run(world, "doctor", "--json")
    assert ran.code == 1
    assert ran.answer["dead_letters"] == {"not_json": 1}
    assert [each["about"] for each in ran.answer["findings"]] == ["dead letters"]


async def test_what_waits_is_counted_without_the_markers_of_transactions(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    world = await make_world(bootstrap_servers, topic_prefix)
    await world.set_mode("partial")
    await world.send([world.usage(world.task_in(0), 1)])
    ran = await run(world, "doctor", "--json")
    assert [each["lag"] for each in ran.answer["partitions"]] == [2, 1]
    problems = [each["problem"] for each in ran.answer["findings"]]
    assert problems == [
        "no ledger: no heartbeat; 2 events wait",
        "no ledger: no heartbeat; 1 event waits",
    ]


async def test_very_many_that_wait_are_told_by_their_offsets(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    world = await make_world(bootstrap_servers, topic_prefix)
    task = world.task_in(1)
    await world.send([world.usage(task, 1) for _ in range(11_000)])
    ran = await run(world, "doctor", "--json")
    assert [each["lag"] for each in ran.answer["partitions"]] == [0, 11_000]


async def test_doctor_says_what_is_missing_and_how_to_make_it(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    env = environ(STOPLOSS_BOOTSTRAP_SERVERS=bootstrap_servers, STOPLOSS_TOPIC_PREFIX=topic_prefix)
    ran = await stoploss("doctor", "--json", env=env)
    assert ran.code == 1
    assert {each["remedy"] for each in ran.answer["findings"]} == {"stoploss topics create"}

    checked = await stoploss("topics", "create", "--check", env=env)
    assert checked.code == 1
    assert f"missing   {topic_prefix}events\n" in checked.out
    made = await stoploss("topics", "create", "--partitions", "3", "--json", env=env)
    assert made.code == 0
    assert f"{topic_prefix}events" in made.answer["created"]
    other = await stoploss("topics", "create", "--partitions", "5", env=env)
    assert other.code == 1
    assert f"differs   {topic_prefix}events: partitions: is 3, should be 5\n" in other.out

    without_ledger = await stoploss("doctor", "--json", env=env)
    assert without_ledger.code == 1
    assert [each["problem"] for each in without_ledger.answer["findings"]] == [
        "no ledger: no heartbeat"
    ] * 3


async def test_a_missing_topic_is_a_part_that_is_not_reachable(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    env = environ(STOPLOSS_BOOTSTRAP_SERVERS=bootstrap_servers, STOPLOSS_TOPIC_PREFIX=topic_prefix)
    ran = await stoploss("tasks", env=env)
    assert (ran.code, ran.out, ran.err.count("\n")) == (3, "", 1)
    assert "`stoploss topics create` makes it" in ran.err
