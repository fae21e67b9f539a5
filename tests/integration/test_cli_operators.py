"""What operators say changes what the ledger decides, and the command shows it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.topics import Topic
from tests.integration.kafka_world import World, make_world
from tests.integration.shell import Ran, environ, stoploss

pytestmark = pytest.mark.integration
WHY = ("--reason", "a test", "--by", "ann")
# Medium, medium under the built-in policy: of the task, of THINK.
TASK_TOKENS, THINK_TOKENS = 23_400, 6_000


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> AsyncIterator[World]:
    """A running ledger, and one task in each partition; the one in partition 0 is blocked."""
    made = await make_world(bootstrap_servers, topic_prefix)
    async with made.ledger():
        await made.send([made.usage(made.task_in(0), 2 * TASK_TOKENS)])
        await made.send([made.usage(made.task_in(1), 100)])
        await made.until_folded()
        yield made


async def run(world: World, *arguments: str) -> Ran:
    return await stoploss(*arguments, env=environ(world.settings))


async def test_a_grant_takes_a_block_back(world: World) -> None:
    task = world.task_in(0)
    ran = await run(world, "grant", task, "--multiplier", "2", *WHY, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert (ran.answer["before"]["verdict"], ran.answer["after"]["verdict"]) == ("block", "review")
    assert [each["verdict"] for each in ran.answer["decisions"]] == ["review"]
    (granted,) = [
        each.data for each in await world.read(Topic.LIFECYCLE) if each.data["change"] == "granted"
    ]
    assert (granted["by"], granted["reason"]) == ("ann", "a test")


async def test_a_limit_is_granted_for_one_cell(world: World) -> None:
    task = world.task_in(0)
    limit = f"THINK.tokens={2 * TASK_TOKENS + 1}"
    ran = await run(world, "grant", task, "--limit", limit, *WHY, "--json")
    assert ran.code == 0
    cells = {
        (each["scope"], each.get("phase"), each["metric"]): each["limit"]
        for each in ran.answer["after"]["cells"]
    }
    assert cells["phase", "THINK", "tokens"] == 2 * TASK_TOKENS + 1
    assert cells["task", None, "tokens"] == TASK_TOKENS


async def test_what_the_ledger_refuses_is_the_answer_no(world: World) -> None:
    task = world.task_in(0)
    ran = await run(world, "grant", task, "--limit", "THINK.tokens=1", *WHY)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("data.limits.THINK.tokens: ")
    assert "was refused by the ledger (invalid_field)" in ran.err
    assert ran.err.count("\n") == 1


async def test_a_task_that_nobody_knows_is_the_answer_no(world: World) -> None:
    ran = await run(world, "grant", "nobody", "--multiplier", "2", *WHY)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("TASK: 'nobody' is not known to the ledger")


async def test_everybody_is_granted_more_at_once(world: World) -> None:
    ran = await run(world, "grant", "--all", "--multiplier", "10", *WHY, "--json")
    assert ran.code == 0
    assert len(ran.answer["partitions"]) == 2
    tasks = (await run(world, "tasks", "--json")).answer["tasks"]
    assert {each["limit_tokens"] for each in tasks} == {10 * TASK_TOKENS}


async def test_a_mode_decides_anew_and_names_who_is_held(world: World) -> None:
    ran = await run(world, "mode", "enforce", *WHY)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "mode enforce in all 2 partitions; decided anew: 1 block\n"
    held = {
        each["task_id"]: each["enforced"]
        for each in (await run(world, "tasks", "--json")).answer["tasks"]
    }
    assert held == {world.task_in(0): True, world.task_in(1): True}
    back = await run(world, "mode", "observe", *WHY, "--json")
    assert {each["mode"] for each in back.answer["partitions"]} == {"observe"}


async def test_a_policy_is_applied_shown_and_counts_for_new_tasks(
    world: World, tmp_path: Path
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('version = "mine"\n[phases.THINK]\ntokens = 7\nlatency_ms = 1\nweight = 1.0\n')
    applied = await run(world, "policy", "apply", str(file), "--by", "ann", "--json")
    assert applied.code == 0
    assert {each["policy"]["version"] for each in applied.answer["partitions"]} == {"mine"}

    shown = await run(world, "policy", "show")
    assert shown.code == 0
    again = tmp_path / "shown.toml"
    again.write_text(shown.out)
    checked = await run(world, "policy", "check", str(again), "--json")
    assert checked.answer["hash"] == applied.answer["partitions"][0]["policy"]["hash"]

    new = world.task_in(1, "NEW")
    await world.send([world.usage(new, 1)])
    await world.until_folded()
    tasks = (await run(world, "tasks", "--json")).answer["tasks"]
    limits = {each["task_id"]: each["limit_tokens"] for each in tasks}
    assert (limits[new], limits[world.task_in(1)]) == (7, TASK_TOKENS)


async def test_a_task_is_reclassified(world: World) -> None:
    task = world.task_in(0)
    ran = await run(world, "reclassify", task, "--complexity", "large", *WHY)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{task} reclassified: block → review\n  complexity medium → large\n")


async def test_an_explanation_is_kept(world: World) -> None:
    task = world.task_in(0)
    assert (await run(world, "explain", task, "--text", "too much reading")).code == 0
    assert "explained" in (await run(world, "task", task, "--json")).answer["flags"]


async def test_a_stuck_task_is_recovered(world: World) -> None:
    task = world.task_in(1)
    await world.send([(task, world.event("phase.started", task, phase="PLAN"))])
    closed = await run(world, "recover", task, "--close-phase", *WHY, "--json")
    assert closed.code == 0
    assert (closed.answer["before"]["open_phase"], closed.answer["after"]["open_phase"]) == (
        "PLAN",
        None,
    )
    ended = await run(world, "recover", task, "--end", *WHY, "--json")
    assert ended.answer["after"]["status"] == "ended"
    assert (await run(world, "recover", task, "--end", *WHY)).code == 1


async def test_a_child_is_found_in_the_partition_of_its_family(world: World) -> None:
    parent, child = world.task_in(0), world.task_in(1, "CHILD")
    event = world.event("task.started", child, parent_task_id=parent)
    await world.send([(parent, event)])
    ran = await run(world, "grant", child, "--multiplier", "2", *WHY, "--json")
    assert ran.code == 0
    assert ran.answer["written"]["partition"] == 0
    shown = await run(world, "task", parent, "--json")
    assert shown.answer["children"] == [child]


async def test_without_a_ledger_the_command_says_so_and_does_not_hang(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    world = await make_world(bootstrap_servers, topic_prefix, partitions=1)
    ran = await run(world, "mode", "enforce", *WHY)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("no ledger is running (partition 0); ")
    assert "the event is written" in ran.err
