"""What operators say changes what the ledger decides, and the command shows it."""

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.alerts import Origin
from schemas.audit import Audit
from schemas.envelope import Envelope
from schemas.topics import Topic
from streams.budget.policy import builtin_policy, policy_from_toml, policy_json
from streams.insight.signals import from_audit
from tests.integration.kafka_world import World, eventually, make_world
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


async def start(world: World, task: str, importance: str, why: str | None = None) -> None:
    data = {"importance": importance} | ({} if why is None else {"importance_justification": why})
    await world.send([(task, world.event("task.started", task, **data))])


async def entries(world: World) -> list[dict[str, Any]]:
    """What `audit` holds: the data of each entry."""
    return [each.data for each in await world.read(Topic.AUDIT)]


async def test_a_justification_is_refused_and_approved_and_the_limits_follow(world: World) -> None:
    task = world.task_in(1, "CRITICAL")
    await start(world, task, "critical", why="it loses data")
    await world.send([world.usage(task, 100)])
    await world.until_folded()
    refused = await run(world, "justify", task, "refuse", *WHY)
    assert (refused.code, refused.err) == (0, "")
    assert refused.out == (
        f"{task} reviewed: continue, as before\n"
        "  justification (it loses data): not reviewed → refused\n"
        "  task tokens: 100 of 35,100 (0 %); the limit was 46,800\n"
        "  task latency: 0.0 s of 14 m 19 s (0 %); the limit was 19 m 6 s\n"
    )
    approved = await run(world, "justify", task, "approve", "--by", "bob", "--json")
    assert approved.code == 0
    assert approved.answer["event"] == "stoploss.justification.reviewed"
    assert [approved.answer[when]["justification_approved"] for when in ("before", "after")] == [
        False,
        True,
    ]
    reviews = [
        (each.data["approved"], each.data["by"], each.data.get("reason"))
        for each in await world.read(Topic.LIFECYCLE)
        if each.data["change"] == "reviewed"
    ]
    assert reviews == [(False, "ann", "a test"), (True, "bob", None)]


async def test_one_that_nobody_has_justified_is_approved_with_a_reason(world: World) -> None:
    task = world.task_in(1, "CRITICAL")
    await start(world, task, "critical")
    await world.send([world.usage(task, 100)])
    await world.until_folded()
    silent = await run(world, "justify", task, "approve")
    assert (silent.code, silent.out) == (2, "")
    assert silent.err == (
        "--reason: None is not allowed; use why it is critical: nobody has said so yet\n"
    )
    ran = await run(world, "justify", task, "approve", "--reason", "it loses data", "--json")
    assert ran.answer["after"]["justification"] == "it loses data"


async def test_a_review_of_what_is_not_critical_or_not_known_writes_nothing(world: World) -> None:
    task = world.task_in(0)
    ran = await run(world, "justify", task, "approve", *WHY)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        f"TASK: '{task}' is of importance medium, and only critical is reviewed; nothing was written\n"
    )
    unknown = await run(world, "justify", "nobody", "approve")
    assert (unknown.code, unknown.out) == (1, "")
    assert unknown.err.startswith("TASK: 'nobody' is not known to the ledger")
    critical = world.task_in(1, "CRITICAL")
    await start(world, critical, "critical", why="outage")
    await world.send([world.usage(critical, 1)])
    await world.until_folded()
    long = await run(world, "justify", critical, "refuse", "--by", "a" * 201)
    assert (long.code, long.out) == (2, "")
    assert long.err.startswith("--by: ")
    events = [each.envelope or {} for each in await world.read(Topic.EVENTS)]
    assert "stoploss.justification.reviewed" not in {each["type"] for each in events}


async def test_what_is_said_to_all_tasks_is_noted_with_what_held_before(
    world: World, tmp_path: Path
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('version = "mine"\n[alerts.queue_depth]\nfires_above = 60\n')
    for command in (
        ("mode", "enforce", *WHY),
        ("grant", "--all", "--multiplier", "1.50", *WHY),
        ("policy", "apply", str(file), "--by", "bob"),
        ("mode", "observe", *WHY),
    ):
        assert (await run(world, *command)).code == 0
    mode, grant, policy, back = await entries(world)
    said = {"by": "ann", "reason": "a test"}
    assert mode == {
        "subject": "mode",
        "action": "mode_set",
        "before": {"mode": "observe"},
        "after": {"mode": "enforce"},
        **said,
    }
    assert grant == {
        "subject": "grant",
        "action": "all_granted",
        "after": {"multiplier": "1.50"},
        **said,
    }
    assert (back["before"], back["after"]) == ({"mode": "enforce"}, {"mode": "observe"})
    builtin, mine = builtin_policy(), policy_from_toml(file.read_text(), "policy.toml")
    document = policy.pop("policy")
    assert policy == {
        "subject": "policy",
        "action": "policy_set",
        "by": "bob",
        "before": {"version": builtin.version, "hash": builtin.hash},
        "after": {"version": "mine", "hash": mine.hash},
    }
    assert document == json.loads(policy_json(mine))


async def test_agents_learn_from_an_applied_policy_when_alerts_fire(
    world: World, tmp_path: Path
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[alerts.queue_depth]\nfires_above = 60\n[governance]\nreview_due_ms = 5\n")
    assert (await run(world, "policy", "apply", str(file))).code == 0
    (seen,) = await world.read(Topic.AUDIT)
    entry = msgspec.json.decode(json.dumps(seen.envelope), type=Envelope[Audit])
    origin = Origin("audit", seen.partition, seen.offset)
    found = from_audit(entry, origin)
    assert found is not None
    assert found.rules.queue_depth.fires_above == 60
    assert found.governance.review_due_ms == 5


async def test_an_entry_is_named_after_the_events_that_it_is_about(world: World) -> None:
    assert (await run(world, "mode", "partial", *WHY)).code == 0
    (entry,) = await world.read(Topic.AUDIT)
    operation = entry.id.removeprefix("audit-")
    events = {
        each.id
        for each in await world.read(Topic.EVENTS)
        if each.envelope is not None and each.envelope["type"] == "stoploss.mode.set"
    }
    assert events == {f"{operation}-0", f"{operation}-1"}


@pytest.mark.parametrize(
    ("point", "noted"),
    [
        pytest.param("operator_before_commit", 0, id="before its commit it has done nothing"),
        pytest.param("operator_after_commit", 1, id="after it, both are there"),
    ],
)
async def test_an_event_and_its_entry_are_there_together_wherever_the_command_dies(
    world: World, point: str, noted: int
) -> None:
    env = environ(world.settings, STOPLOSS_FAILPOINT=f"{point}:1")
    ran = await stoploss("mode", "enforce", *WHY, env=env)
    assert (ran.code, point in ran.err) == (-signal.SIGKILL, True)

    async def found() -> tuple[int, int]:
        events = [each.envelope or {} for each in await world.read(Topic.EVENTS)]
        modes = sum(each["type"] == "stoploss.mode.set" for each in events)
        return modes, len(await world.read(Topic.AUDIT))

    async def both() -> bool:
        return await found() == (2 * noted, noted)

    await eventually(both)


async def test_the_audit_shows_who_changed_what_and_why_the_newest_last(world: World) -> None:
    nothing = await run(world, "audit")
    first, source = nothing.out.splitlines()
    assert (nothing.code, first, nothing.err) == (0, "0 entries", "")
    assert source.startswith("from the topics: ")
    assert (await run(world, "mode", "enforce", *WHY)).code == 0
    assert (
        await run(world, "mode", "observe", "--reason", "it was wrong", "--by", "bob")
    ).code == 0
    ran = await run(world, "audit")
    head, first, second, count, _ = ran.out.splitlines()
    assert head.split() == ["WHEN", "WHO", "WHAT", "ABOUT", "CHANGE", "WHY"]
    assert first.rstrip().endswith("ann mode set mode  mode observe → enforce a test")
    assert second.rstrip().endswith("bob mode set mode  mode enforce → observe it was wrong")
    assert count == "2 entries"
    newest = await run(world, "audit", "--limit", "1", "--since", "1h", "--json")
    assert newest.answer["count"] == 2
    assert [each["by"] for each in newest.answer["entries"]] == ["bob"]
    none = (await run(world, "audit", "TASK-1", "--json")).answer
    assert (none["count"], none["entries"], none["older_too"]) == (0, [], False)
    assert none["source"]["from"] == "topics"


async def test_an_audit_without_its_topic_says_which_is_missing(world: World) -> None:
    env = environ(world.settings, STOPLOSS_TOPIC_PREFIX="elsewhere.")
    ran = await stoploss("audit", env=env)
    assert (ran.code, ran.out) == (3, "")
    assert "elsewhere.audit" in ran.err


async def test_without_a_ledger_the_command_says_so_and_does_not_hang(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    world = await make_world(bootstrap_servers, topic_prefix, partitions=1)
    ran = await run(world, "mode", "enforce", *WHY)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("no ledger is running (partition 0); ")
    assert "the event is written" in ran.err
    (entry,) = await world.read(Topic.AUDIT)
    assert (entry.data["after"], "before" in entry.data) == ({"mode": "enforce"}, False)
