"""Enforcement is entered where what was observed allows it, by force with a reason, and taken back."""

import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiokafka
import pytest

from schemas.envelope import rfc3339
from schemas.topics import DAY_MS, Topic
from tests.integration.kafka_world import World, eventually, make_world
from tests.integration.shell import Ran, environ, stoploss

pytestmark = pytest.mark.integration
TASKS = 60
# Medium, medium under the built-in policy; a task is blocked at twice its tokens.
TASK_TOKENS = 23_400
WHY = ("--reason", "a test", "--by", "ann")


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> AsyncIterator[World]:
    """A running ledger; of 60 tasks that have ended one in six used ten times as much as others."""
    made = await make_world(bootstrap_servers, topic_prefix)
    async with made.ledger():
        await play(made, [10_000 if n % 6 == 0 else 1_000 for n in range(TASKS)])
        yield made


async def play(world: World, tokens: list[int], name: str = "T") -> list[str]:
    """Have tasks begin, use so many tokens and end; return their ids."""
    tasks = [f"{name}-{number}" for number in range(len(tokens))]
    events = []
    for task, amount in zip(tasks, tokens, strict=True):
        events.append((task, world.event("task.started", task, task_type="made")))
        events.append(world.usage(task, amount))
        events.append((task, world.event("task.ended", task, outcome="completed")))
    await world.send(events)

    async def all_ended() -> bool:
        said = await world.read(Topic.LIFECYCLE)
        return {each.key for each in said if each.data["change"] == "ended"} >= set(tasks)

    await eventually(all_ended)
    return tasks


async def append(world: World, topic: Topic, key: str, kind: str, data: Mapping[str, Any],
                 at_ms: int | None = None) -> None:  # fmt: skip
    """Append a record as its writer would have, at a time of its own."""
    now_ms = time.time_ns() // 1_000_000
    envelope = {
        "specversion": "1.0",
        "id": f"{kind}-{key}-{at_ms}",
        "source": "a test",
        "type": f"stoploss.{kind}",
        "subject": key,
        "time": rfc3339(now_ms if at_ms is None else at_ms),
        "data": data,
    }
    async with aiokafka.AIOKafkaProducer(**world.settings.producer_kwargs()) as producer:
        value = json.dumps(envelope).encode()
        await producer.send_and_wait(world.settings.topic(topic), value, key.encode(), partition=0)


async def since_three_weeks(world: World) -> None:
    """Have the topics say that somebody has observed for three weeks."""
    at_ms = time.time_ns() // 1_000_000 - 21 * DAY_MS
    checkpoint = {"change": "partition_checkpoint", "partition": 0}
    await append(world, Topic.LIFECYCLE, "partition/0", "lifecycle", checkpoint, at_ms)


async def run(world: World, *arguments: str) -> Ran:
    return await stoploss(*arguments, env=environ(world.settings))


async def modes(world: World) -> set[str]:
    """Return what holds in the partitions, by what the ledger has stored."""
    last = await world.last(Topic.TASKS)
    return {data["mode"] for key, data in last.items() if key.startswith("partition/")}


async def audited(world: World) -> list[dict[str, Any]]:
    return [each.data for each in await world.read(Topic.AUDIT)]


def conditions(ran: Ran) -> dict[str, tuple[str, bool]]:
    found = ran.answer["promotion"]["conditions"]
    return {each["name"]: (each["value"], each["holds"]) for each in found}


async def test_a_mode_is_entered_where_every_condition_holds(world: World) -> None:
    await since_three_weeks(world)
    ran = await run(world, "promote", "--by", "ann")
    assert (ran.code, ran.err) == (0, "")
    rows = {" ".join(line.split()) for line in ran.out.splitlines()}
    assert {
        "mode observe observe holds",
        "tasks judged 60 under this policy at least 50 holds",
        "wrongly blocked 0.0 % (0 of 60) below 5.0 % holds",
        "observed 21 d 0 h at least 14 days holds",
        "runaway tasks 16.7 % (10 of 60) above 10.0 % holds",
        "critical alerts none none holds",
    } <= rows
    assert "promoted to partial in all 2 partitions; no decision changed by it" in ran.out
    assert await modes(world) == {"partial"}
    (entry,) = await audited(world)
    assert (entry["action"], entry["by"], entry["reason"], entry["flags"]) == (
        "mode_set",
        "ann",
        "every condition holds",
        ["promoted"],
    )
    assert entry["before"] == {"mode": "observe"}
    assert entry["after"]["mode"] == "partial"
    assert entry["after"]["wrongly blocked"] == "0.0 % (0 of 60)"
    # Of 60 tasks the upper end of 0 is 6 %: nobody is held for that.
    ran = await run(world, "promote", "--json")
    assert ran.code == 1
    assert ran.answer["promotion"]["to"] == "enforce"
    assert conditions(ran)["wrongly blocked, upper end"] == ("6.0 % (95 %)", False)
    assert await modes(world) == {"partial"}


async def test_what_does_not_hold_is_named_and_nothing_is_written(world: World) -> None:
    await append(world, Topic.ALERTS, "breaker_open/a", "alert", {
        "name": "breaker_open", "scope": "a", "state": "firing", "value": 3, "threshold": 2,
        "message": "slow", "severity": "critical", "number": 1, "since": "2026-11-22T21:00:00Z",
    })  # fmt: skip
    before = len(await world.read(Topic.EVENTS))
    ran = await run(world, "promote")
    assert ran.code == 1
    assert ran.err == (
        "not promoted to partial: 2 conditions do not hold (observed, critical alerts); nothing was "
        "written\n"
    )
    assert "breaker_open (a)" in ran.out
    assert "promoted to" not in ran.out
    assert await modes(world) == {"observe"}
    assert await audited(world) == []
    kinds = [each.envelope for each in (await world.read(Topic.EVENTS))[before:]]
    assert not any(each is not None and each["type"] == "stoploss.mode.set" for each in kinds)


async def test_by_force_it_takes_a_reason_and_the_audit_says_what_did_not_hold(
    world: World,
) -> None:
    refused = await run(world, "promote", "--force")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == "--reason: None is not allowed; use why, with --force\n"
    assert await audited(world) == []
    ran = await run(world, "promote", "--to", "enforce", "--force", *WHY, "--json")
    assert ran.code == 0
    assert ran.answer["forced"]
    assert await modes(world) == {"enforce"}
    (entry,) = await audited(world)
    assert (entry["by"], entry["reason"]) == ("ann", "a test")
    assert entry["flags"] == ["promoted", "forced"]
    assert entry["after"]["not held"] == "mode, wrongly blocked, upper end, observed"
    shown = await run(world, "audit")
    assert "forced" in shown.out


async def test_enforcement_is_taken_back_at_once_and_never_raised_by_that(world: World) -> None:
    ran = await run(world, "demote", "--to", "partial", *WHY)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("--to: partial may hold more than the mode that is set (observe)")
    await run(world, "mode", "enforce", *WHY)
    ran = await run(world, "demote", "--to", "partial", *WHY)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("demoted to partial in all 2 partitions")
    assert await modes(world) == {"partial"}
    ran = await run(world, "demote", *WHY, "--json")
    assert ran.code == 0
    assert {each["mode"] for each in ran.answer["partitions"]} == {"observe"}
    entries = await audited(world)
    assert [(each["after"], each.get("flags", [])) for each in entries] == [
        ({"mode": "enforce"}, []),
        ({"mode": "partial"}, ["demoted"]),
        ({"mode": "observe"}, ["demoted"]),
    ]


async def test_a_block_of_a_finished_task_counts_as_wrong_until_somebody_says_otherwise(
    world: World,
) -> None:
    tasks = await play(world, [3 * TASK_TOKENS] * 4, name="BLOCKED")
    before = conditions(await run(world, "promote", "--json"))
    assert before["wrongly blocked"] == ("6.2 % (4 of 64)", False)
    answered = {"task_id": tasks[0], "decision_id": "0-0-0", "false_positive": False, "by": "ann"}
    await append(world, Topic.FEEDBACK, tasks[0], "feedback", answered)
    after = conditions(await run(world, "promote", "--json"))
    assert after["wrongly blocked"] == ("4.7 % (3 of 64)", True)


async def test_without_a_ledger_nothing_is_earned_and_taking_back_is_written(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    world = await make_world(bootstrap_servers, topic_prefix)
    ran = await run(world, "promote", "--json")
    assert ran.code == 1
    found = conditions(ran)
    assert found["feed"] == ("no ledger of partitions 0, 1", False)
    assert found["mode"] == ("none yet", False)
    ran = await run(world, "demote", *WHY, "--timeout", "4")
    assert ran.code == 3
    assert "the event is written and counts as soon as a ledger reads it" in ran.err
    async with world.ledger():

        async def is_read() -> bool:
            return await modes(world) == {"observe"}

        await eventually(is_read)
    assert [each["after"] for each in await audited(world)] == [{"mode": "observe"}]
