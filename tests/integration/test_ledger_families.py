"""Families of tasks, spread over the partitions, each whole in one of them."""

import pytest

from schemas.topics import Topic
from tests.integration.kafka_world import Seen, World, eventually, make_world

pytestmark = pytest.mark.integration

FAMILIES = 20
CHILDREN = ("A", "B")
GRANDCHILDREN = ("A1", "A2", "B1", "B2")


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> World:
    return await make_world(bootstrap_servers, topic_prefix, partitions=4)


def roots() -> list[str]:
    return [f"ROOT-{number:02}" for number in range(FAMILIES)]


def below(root: str) -> list[str]:
    return [f"{root}-{name}" for name in (*CHILDREN, *GRANDCHILDREN)]


def is_spendthrift(root: str) -> bool:
    return int(root.removeprefix("ROOT-")) % 2 == 0


def family_start(world: World, root: str) -> list[tuple[str, bytes]]:
    """A root that may use 6,000 tokens, its children, and theirs."""
    started = [world.event("task.started", root, planned_phases=["THINK"])]
    for task in below(root):
        parent = task[:-1] if task[-1].isdecimal() else root
        started.append(world.event("task.started", task, parent_task_id=parent))
    return [(root, event) for event in started]


def family_usage(world: World, root: str) -> list[tuple[str, bytes]]:
    """Twice what the root may use, or half of it: nearly all of it by the grandchildren."""
    tokens = 3_000 if is_spendthrift(root) else 700
    used = [world.usage(task, tokens if task[-1].isdecimal() else 10)[1] for task in below(root)]
    return [(root, event) for event in (world.usage(root, 1)[1], *used)]


def interleaved(families: list[list[tuple[str, bytes]]]) -> list[tuple[str, bytes]]:
    """One event of each family in turn."""
    return [event for together in zip(*families, strict=True) for event in together]


async def test_a_family_is_summed_blocked_and_let_go_together(world: World) -> None:
    await world.set_mode("enforce")
    async with world.ledger():
        await world.send(interleaved([family_start(world, root) for root in roots()]))
        await world.send(interleaved([family_usage(world, root) for root in roots()]))
        await world.until_folded()
        tasks = {seen.key: seen for seen in await world.read(Topic.TASKS)}
        assert {world.partition(root) for root in roots()} == {0, 1, 2, 3}
        for root in roots():
            assert {tasks[task].partition for task in (root, *below(root))} == {
                world.partition(root)
            }
            for task in (root, *below(root)):
                # Its own usage and that of all whose id goes on from its own.
                family = sum(used for one, used in world.tokens.items() if one.startswith(task))
                assert task_tokens(tasks[task]) == family
        blocked = [root for root in roots() if is_spendthrift(root)]
        await world.send(
            [
                (root, world.event("task.granted", root, by="ada", reason="x", multiplier=3))
                for root in blocked
            ]
        )
        await eventually(lambda: _all_let_go(world, blocked))
    decisions = await world.read(Topic.DECISIONS)
    assert {seen.key for seen in decisions} == {
        task for root in blocked for task in (root, *below(root))
    }
    for root in blocked:
        assert said(decisions, root)[-2:] == [("block", True, None), ("continue", True, None)]
        for task in below(root):
            assert said(decisions, task) == [("block", True, root), ("continue", True, None)]
    await world.assert_verified()


def task_tokens(seen: Seen) -> int:
    (cell,) = (
        cell for cell in seen.data["cells"] if (cell["scope"], cell["metric"]) == ("task", "tokens")
    )
    return int(cell["used"])


def said(decisions: list[Seen], task: str) -> list[tuple[str, bool, str | None]]:
    return [
        (seen.data["verdict"], seen.data["enforced"], seen.data.get("inherited_from"))
        for seen in decisions
        if seen.key == task
    ]


async def _all_let_go(world: World, blocked: list[str]) -> bool:
    last = await world.last(Topic.DECISIONS)
    family = [task for root in blocked for task in (root, *below(root))]
    return all(task in last and last[task]["verdict"] == "continue" for task in family)
