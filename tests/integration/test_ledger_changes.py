"""A new policy and another mode in the middle of the stream, on all partitions."""

import pytest

from schemas.topics import Topic
from streams.budget.policy import builtin_policy, policy_from_toml
from tests.integration.kafka_world import World, make_world

pytestmark = pytest.mark.integration

PARTITIONS = 4
OLD = builtin_policy().hash
TWICE = policy_from_toml(
    'version = "twice"\n[phases.THINK]\ntokens = 8000\nlatency_ms = 90000\nweight = 1.5\n', "test"
)


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> World:
    return await make_world(bootstrap_servers, topic_prefix, partitions=PARTITIONS)


def tasks_named(world: World, name: str) -> list[str]:
    return [world.task_in(partition, name) for partition in range(PARTITIONS)]


async def use(world: World, tasks: list[str], tokens: int, *, importance: str = "medium") -> None:
    """Start tasks that may think for 6,000 tokens by the built-in policy, and use some."""
    for task in tasks:
        started = world.event("task.started", task, planned_phases=["THINK"], importance=importance)
        await world.send([(task, started), world.usage(task, tokens)])


async def decided(world: World, task: str) -> list[tuple[str, bool, str | None, str, str]]:
    return [
        (
            seen.data["verdict"],
            seen.data["enforced"],
            seen.data.get("unenforced_reason"),
            seen.data["mode"],
            seen.data["policy"]["hash"],
        )
        for seen in await world.read(Topic.DECISIONS)
        if seen.key == task
    ]


async def test_a_policy_is_for_new_tasks_and_a_mode_for_all(world: World) -> None:
    blocked, reviewed = tasks_named(world, "BLOCKED"), tasks_named(world, "REVIEWED")
    noticed, high = tasks_named(world, "NOTICED"), tasks_named(world, "HIGH")
    new = tasks_named(world, "NEW")
    async with world.ledger():
        await use(world, blocked, 12_000)
        await use(world, reviewed, 9_000)
        await use(world, noticed, 5_400)
        await use(world, high, 18_000, importance="high")
        await world.set_policy(TWICE)
        await use(world, new, 18_000)
        await world.set_mode("partial")
        await world.set_mode("enforce")
        await world.send([world.usage(task, 1_800) for task in noticed])
        await world.set_mode("observe")
        await world.send([world.usage(task, 1) for task in (*blocked, *new)])
        await world.until_folded()
    observe, partial = (False, "observe", "observe"), (False, "partial", "partial")
    held_in_partial, held = (True, None, "partial"), (True, None, "enforce")
    expected = {
        "BLOCKED": (OLD, "block", [observe, held_in_partial, held, observe]),
        "REVIEWED": (OLD, "review", [observe, held_in_partial, held, observe]),
        "HIGH": (OLD, "block", [observe, partial, held, observe]),
        # 18,000 of 12,000 tokens, and no block as by the policy before.
        "NEW": (TWICE.hash, "review", [observe, held_in_partial, held, observe]),
    }
    for name, (policy, verdict, said) in expected.items():
        for task in tasks_named(world, name):
            assert await decided(world, task) == [(verdict, *one, policy) for one in said]
    for task in noticed:
        # Not said again at each change of mode; still judged by the policy it began with.
        assert await decided(world, task) == [("notice", *observe, OLD), ("warn", *held, OLD)]
    last = await world.last(Topic.TASKS)
    for partition in range(PARTITIONS):
        own = last[f"partition/{partition}"]
        assert (own["mode"], own["policy"]["hash"]) == ("observe", TWICE.hash)
    await world.assert_verified()
