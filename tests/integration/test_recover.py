"""A record of `tasks` that is torn or somebody else's stops one partition, and can be rebuilt."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import aiokafka
import pytest

from schemas.topics import Topic
from streams.budget.policy import builtin_policy
from streams.cli.reading import opened
from streams.kafka.owners import groups_at_work
from streams.kafka.settings import load_settings
from streams.kafka.topics import create_or_check_topics
from streams.ledger.health import Health
from tests.integration.kafka_world import RunningLedger, World, eventually, make_world
from tests.integration.recorded_log import (
    PARTITIONS,
    POLICY,
    Raw,
    copy_log,
    record_log,
    remove_first_events,
)
from tests.integration.shell import Ran, environ, stoploss

pytestmark = pytest.mark.integration
WHY = ("--reason", "a disk was full", "--by", "ann")
POLICY_KEY = f"policy/{builtin_policy().hash}"


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> World:
    """Two partitions, in each a task, its parent among them; the ledger has been stopped."""
    made = await make_world(bootstrap_servers, topic_prefix)
    parent, child = made.task_in(0), "CHILD"
    async with made.ledger():
        started = made.event("task.started", child, parent_task_id=parent)
        await made.send([made.usage(parent, 70_000), (parent, started)])
        await made.send([(parent, made.usage(child, 5)[1]), made.usage(made.task_in(1), 7)])
        await made.until_folded()
    return made


async def plant(world: World, key: str, value: bytes | None, partition: int = 0) -> None:
    """Write to `tasks` what no ledger has written."""
    async with aiokafka.AIOKafkaProducer(**world.settings.producer_kwargs()) as producer:
        topic = world.settings.topic(Topic.TASKS)
        await producer.send_and_wait(topic, value, key.encode(), partition)


async def stored(world: World, key: str) -> dict[str, Any]:
    """Return the last record of a key in `tasks`, its envelope as well."""
    (*_, last) = [seen for seen in await world.read(Topic.TASKS) if seen.key == key]
    assert last.envelope is not None
    return last.envelope


async def run(world: World, *arguments: str) -> Ran:
    return await stoploss(*arguments, env=environ(world.settings))


async def counted(world: World, task: str) -> int:
    """How many input tokens the state of a task has; records that are torn are passed over."""
    async with opened(world.settings) as log:
        seen = (await log.ledger_view()).tasks.get(task)
    phases = {} if seen is None else seen.state.phases
    return sum(int(phase.counters.get("input_tokens", 0)) for phase in phases.values())


async def uses(world: World, task: str, tokens: int) -> None:
    """Send usage of a task, and wait until it counts."""
    await world.send([world.usage(task, tokens)])
    await eventually(lambda: _counts(world, task))


async def _counts(world: World, task: str) -> bool:
    return await counted(world, task) == world.tokens[task]


async def until_named(ledger: RunningLedger, key: str) -> None:
    """Wait until the ledger says that partition 0 stands still because of `key`."""

    async def named() -> bool:
        why = ledger.health.reasons.get("partition 0", "")
        return ledger.health.state is Health.STANDING_STILL and f"key {key}: " in why

    await eventually(named)
    assert set(ledger.health.reasons) == {"partition 0"}


def without_cells(envelope: dict[str, Any]) -> bytes:
    del envelope["data"]["cells"]
    return json.dumps(envelope).encode()


def of_another_partition(envelope: dict[str, Any]) -> bytes:
    return json.dumps(envelope | {"data": envelope["data"] | {"partition": 9}}).encode()


def with_a_hole(envelope: dict[str, Any]) -> bytes:
    del envelope["data"]["policy"]["fail"]
    return json.dumps(envelope).encode()


def no_json(_: dict[str, Any]) -> bytes:
    return b"\x00\xff torn"


def no_utf8(envelope: dict[str, Any]) -> bytes:
    """In text that is read: msgspec says so with another error than for what is no JSON."""
    sound = json.dumps(envelope).encode()
    assert b'"hash": "' in sound
    return sound.replace(b'"hash": "', b'"hash": "\xff')


@pytest.mark.parametrize(
    ("key", "tear", "names_task"),
    [
        pytest.param("CHILD", without_cells, True, id="a task without a field"),
        pytest.param("CHILD", no_json, True, id="a task that is no JSON"),
        pytest.param("CHILD", no_utf8, True, id="a task with a byte that is no UTF-8"),
        pytest.param("partition/0", no_utf8, False, id="the partition's, with such a byte"),
        pytest.param(POLICY_KEY, no_utf8, False, id="a policy with such a byte"),
        pytest.param("partition/0", no_json, False, id="the partition's own record"),
        pytest.param("partition/0", of_another_partition, False, id="another partition's record"),
        pytest.param(POLICY_KEY, with_a_hole, False, id="a policy with a hole"),
    ],
)
async def test_a_torn_record_stops_its_partition_until_it_is_rebuilt(
    world: World, key: str, tear: Callable[[dict[str, Any]], bytes], *, names_task: bool
) -> None:
    sound = await stored(world, key)
    await plant(world, key, tear(json.loads(json.dumps(sound))))
    async with world.ledger() as ledger:
        await until_named(ledger, key)
        await uses(world, world.task_in(1), 11)  # the other partition goes on
        await world.send([world.usage(world.task_in(0), 13)])
        # A record that can be read is suspected when its partition has been silent for a while.
        await eventually(lambda: _is_found(world, f"tasks, partition 0, key {key}"))
        ran = await run(world, "recover", key, *WHY, "--json")
        assert (ran.code, ran.err) == (0, "")
        assert (ran.answer["done"], ran.answer["partition"]) == ("rebuilt", 0)
        assert key in ran.answer["keys"]
        await eventually(lambda: _counts(world, world.task_in(0)))
        await eventually(lambda: _runs(ledger))
    (told,) = [
        seen for seen in await world.read(Topic.LIFECYCLE) if seen.data["change"] == "recovered"
    ]
    assert (told.data["by"], told.data["reason"]) == ("ann", "a disk was full")
    assert told.data["action"] == "refold"
    assert told.key == ("CHILD" if names_task else "partition/0")
    assert told.data.get("key") == (None if names_task else key)
    assert (await run(world, "verify")).code == 0


async def _is_found(world: World, about: str) -> bool:
    found = await run(world, "doctor", "--json")
    return about in [each["about"] for each in found.answer["findings"]] and found.code == 1


async def _runs(ledger: RunningLedger) -> bool:
    return ledger.health.state is Health.RUNNING


async def test_an_older_record_of_the_partition_that_comes_again_is_found_out(
    world: World,
) -> None:
    """It is whole, and from its offset on everything would be folded a second time."""
    older = await stored(world, "partition/0")
    async with world.ledger():
        await uses(world, world.task_in(0), 11)
    await plant(world, "partition/0", json.dumps(older).encode())
    async with world.ledger() as ledger:
        await until_named(ledger, "partition/0")
        ran = await run(world, "recover", "partition/0", *WHY, "--json")
        assert (ran.code, ran.err) == (0, "")
        assert (ran.answer["done"], ran.answer["keys"]) == ("rebuilt", ["partition/0"])
        await uses(world, world.task_in(0), 13)
    assert (await run(world, "verify")).code == 0


async def test_a_foreign_record_stops_its_partition_until_it_is_deleted(world: World) -> None:
    await plant(world, "hello", b'{"data": {"x": 1}}')
    async with world.ledger() as ledger:
        await until_named(ledger, "hello")
        found = await run(world, "doctor", "--json")
        assert [each for each in found.answer["findings"] if "partition 0" in each["about"]] == [
            {
                "about": "tasks, partition 0, key hello",
                "problem": "a ledger that restores stands still at it: Object missing required "
                "field `task_id` - at `$.data`",
                "remedy": "stoploss recover hello --reason …",
            }
        ]
        ran = await run(world, "recover", "hello", *WHY)
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.startswith("hello in partition 0 was caused by no event and is deleted")
        await uses(world, world.task_in(0), 13)
        assert (await run(world, "doctor")).code == 0
    assert (await run(world, "verify")).code == 0


async def test_the_record_of_another_partition_is_deleted_with_the_own_rebuilt(
    world: World,
) -> None:
    other = json.dumps(await stored(world, "partition/1")).encode()
    await plant(world, "partition/1", other)
    async with world.ledger() as ledger:
        await until_named(ledger, "partition/0")
        ran = await run(world, "recover", "partition/0", *WHY, "--json")
        assert (ran.code, ran.err) == (0, "")
        assert ran.answer["keys"] == ["partition/1", "partition/0"]
        await uses(world, world.task_in(0), 13)
    assert (await run(world, "verify")).code == 0


async def test_what_a_record_refers_to_comes_back_with_it(world: World) -> None:
    parent = world.task_in(0)
    await plant(world, parent, None)
    async with world.ledger() as ledger:
        await until_named(ledger, "CHILD")
        ran = await run(world, "recover", "CHILD", *WHY, "--json")
        assert (ran.code, ran.err) == (0, "")
        assert ran.answer["keys"] == [parent, "CHILD", "partition/0"]
        await uses(world, parent, 13)
    assert (await run(world, "verify")).code == 0


async def test_several_torn_records_are_rebuilt_one_after_the_other(world: World) -> None:
    parent = world.task_in(0)
    for key in (parent, "partition/0", POLICY_KEY, "hello"):
        await plant(world, key, b"torn")
    refused = await run(world, "recover", parent, *WHY)
    assert (refused.code, refused.out) == (1, "")
    assert (
        "partition/0 is torn as well; `stoploss recover partition/0 --reason …` first"
        in refused.err
    )
    async with world.ledger():
        for key in ("partition/0", "hello", POLICY_KEY):
            ran = await run(world, "recover", key, *WHY, "--partition", "0", "--timeout", "0.5")
            assert ran.code == 3, "written, but the ledger still stands"
            assert "no ledger has gone on with partition 0" in ran.err
        assert (await run(world, "recover", parent, *WHY)).code == 0
        await uses(world, parent, 13)
    assert (await run(world, "verify")).code == 0


async def test_a_ledger_that_runs_is_fenced_and_counts_each_event_once(world: World) -> None:
    """The owner has the sound state in memory, and commits all the while."""
    parent = world.task_in(0)
    async with world.ledger() as ledger, asyncio.TaskGroup() as group:
        await uses(world, parent, 1)
        stop = asyncio.Event()
        sending = group.create_task(_send_until(world, parent, stop))
        for _ in range(3):
            await plant(world, "CHILD", b"torn")
            answers = await asyncio.gather(
                run(world, "recover", "CHILD", *WHY, "--timeout", "60", "--json"),
                run(world, "recover", "CHILD", *WHY, "--timeout", "60", "--json"),
            )
            assert [ran.code for ran in answers] == [0, 0], answers
            assert "rebuilt" in {ran.answer["done"] for ran in answers}
        stop.set()
        await sending
        await eventually(lambda: _counts(world, parent))
        assert ledger.health.state is Health.RUNNING
    assert await counted(world, "CHILD") == world.tokens["CHILD"]
    assert (await run(world, "verify")).code == 0


async def _send_until(world: World, task: str, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await world.send([world.usage(task, 1) for _ in range(50)])


async def test_a_sound_record_is_left_alone(world: World) -> None:
    before = await world.read(Topic.TASKS)
    for key in ("CHILD", "partition/0"):
        ran = await run(world, "recover", key, *WHY)
        assert (ran.code, ran.err) == (0, "")
        assert "is what the events give; nothing was written" in ran.out
    assert await world.read(Topic.TASKS) == before
    ran = await run(world, "recover", POLICY_KEY, *WHY)
    assert ran.code == 1
    assert "stands in partitions 0, 1 of tasks; use --partition N, one of them" in ran.err
    ran = await run(world, "recover", "nobody", *WHY)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "KEY: 'nobody' stands in no partition of tasks; use the key that the ledger names\n"
    )


async def test_without_the_first_events_it_says_that_it_cannot(world: World) -> None:
    await plant(world, "CHILD", b"torn")
    await remove_first_events(world.settings, {0: 2})
    ran = await run(world, "recover", "CHILD", *WHY)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "tasks, partition 0, key CHILD: cannot be rebuilt: `events` begins at offset 2, and "
        "`lifecycle` has no checkpoint from there on\n"
    )


async def test_beside_a_ledger_of_another_group_nothing_is_written(world: World) -> None:
    """Its transactional id is another one: it would not be fenced."""
    await plant(world, "hello", b"torn")
    async with world.ledger():
        await uses(world, world.task_in(1), 11)
        await eventually(lambda: _is_at_work(world))
        env = environ(world.settings, STOPLOSS_GROUP="other")
        ran = await stoploss("recover", "hello", *WHY, env=env)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "group: 'other' is not allowed; use that of the ledger that runs: ledger\n"


async def _is_at_work(world: World) -> bool:
    return await groups_at_work(world.settings) == {world.settings.group_id()}


@pytest.fixture
async def trimmed(bootstrap_servers: str, topic_prefix: str) -> World:
    """A partition whose first events are gone, since a checkpoint; OLD began before, NEW after."""
    world = await make_world(bootstrap_servers, topic_prefix, partitions=1)
    async with world.ledger():
        await world.set_policy(POLICY)
        await world.send([world.usage("OLD", 3)])
        await eventually(lambda: _has_checkpoint(world))
        await world.send([world.usage("NEW", 70_000), world.usage("OLD", 3)])
        await world.until_folded()
    lifecycle = await world.read(Topic.LIFECYCLE)
    started = next(seen for seen in lifecycle if seen.key == "NEW")
    before = started.data["input"]["offset"]
    offsets = [
        seen.data["next_offset"]
        for seen in lifecycle
        if seen.data["change"] == "partition_checkpoint"
    ]
    await remove_first_events(world.settings, {0: max(at for at in offsets if at <= before)})
    return world


async def _has_checkpoint(world: World) -> bool:
    await world.send([world.usage("OLD", 1)])
    changes = [seen.data["change"] for seen in await world.read(Topic.LIFECYCLE)]
    return "partition_checkpoint" in changes and "started" in changes


@pytest.mark.parametrize(
    ("key", "done"), [("NEW", "rebuilt"), ("hello", "deleted"), ("partition/0", "rebuilt")]
)
async def test_a_checkpoint_is_enough_for_what_began_after_it(
    trimmed: World, key: str, done: str
) -> None:
    await plant(trimmed, key, b"torn")
    async with trimmed.ledger() as ledger:
        await until_named(ledger, key)
        ran = await run(trimmed, "recover", key, *WHY, "--json")
        assert (ran.code, ran.err) == (0, "")
        assert (ran.answer["done"], ran.answer["from_checkpoint"]) == (done, True)
        await uses(trimmed, "NEW", 13)
        await uses(trimmed, "OLD", 17)
    assert (await run(trimmed, "verify")).code == 0


async def test_a_task_from_before_the_checkpoint_cannot_be_rebuilt(trimmed: World) -> None:
    await plant(trimmed, "OLD", b"torn")
    ran = await run(trimmed, "recover", "OLD", *WHY)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "tasks, partition 0, key OLD: cannot be rebuilt: it began, or its family did, before the "
        "first event that is left\n"
    )


async def test_where_tasks_does_not_say_how_far_the_ledger_came_the_other_topics_do(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    """Compaction leaves of a key the last record alone, and that one is torn."""
    log = await record_log(bootstrap_servers, f"{topic_prefix}whole.")
    world = World(
        load_settings(
            {},
            bootstrap_servers=bootstrap_servers,
            topic_prefix=topic_prefix,
            partitions=PARTITIONS,
        )
    )

    def torn(records: list[Raw]) -> list[Raw]:
        own = [
            record
            for record in records
            if record.topic is Topic.TASKS and record.key == b"partition/0"
        ]
        kept = [record for record in records if record not in own]
        return [*kept, replace(own[-1], value=b"torn")]

    await copy_log(world.settings, log, torn)
    await create_or_check_topics(world.settings)
    async with world.ledger() as ledger:
        await until_named(ledger, "partition/0")
        ran = await run(world, "recover", "partition/0", *WHY, "--json")
        assert (ran.code, ran.err) == (0, "")
        assert ran.answer["done"] == "rebuilt"
    assert (await run(world, "verify")).code == 0
