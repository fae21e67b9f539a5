"""How a task went: as it was written, else from the topics; and that somebody has read it."""

import getpass
import json
from collections.abc import AsyncIterator

import aiokafka
import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from schemas.envelope import Envelope
from schemas.feedback import Feedback
from schemas.topics import Topic
from tests.integration.kafka_world import World, eventually, make_world
from tests.integration.shell import Ran, environ, stoploss
from tests.integration.test_client_completions import report

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

OVER_TOKENS = 13_100  # of 6,000 that THINK alone may use: block
TIME = "2026-11-26T17:00:00.000Z"


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> AsyncIterator[World]:
    made = await make_world(bootstrap_servers, topic_prefix)
    async with made.ledger():
        yield made


async def run(world: World, *arguments: str, **more: str) -> Ran:
    return await stoploss(*arguments, env=environ(world.settings, **more))


async def send(world: World, task: str, *events: bytes) -> None:
    """Send events of a family, and wait until the ledger has folded them."""
    await world.send([(task, event) for event in events])

    async def is_folded() -> bool:
        sequences = [
            int(number)
            for data in (await world.last(Topic.TASKS)).values()
            for number in data.get("dedupe", {}).get("sequences", {}).values()
        ]
        return max(sequences, default=0) >= world.sent

    await eventually(is_folded)


async def over(world: World, task: str) -> None:
    """Start a task, and use more than double of what it may."""
    await send(
        world,
        task,
        world.event("task.started", task, planned_phases=["THINK"], owner="ann"),
        world.event("phase.usage", task, phase="THINK", input_tokens=OVER_TOKENS, files_read=30),
    )


async def say(world: World, topic: Topic, key: str, value: bytes) -> None:
    async with aiokafka.AIOKafkaProducer(**world.settings.producer_kwargs()) as producer:
        await producer.send_and_wait(world.settings.topic(topic), value, key.encode())


async def test_the_summary_is_a_gate_as_long_as_an_explanation_is_owed(world: World) -> None:
    task = world.task_in(1)
    await over(world, task)
    owed = await run(world, "report", task, "--summary")
    assert (owed.code, owed.err) == (1, "")
    first, second, third, source = owed.out.splitlines()
    assert source.startswith("made now, not written yet; from the topics: ")
    assert first.startswith("🛑 Over budget: 218 % of its token budget (13,100 of 6,000 tokens)")
    assert second.startswith("⚠️ ")
    assert third == (
        "💡 Investigate; then grant more (`stoploss grant`) or end the task. "
        f"Write down why: `stoploss explain {task} --text …`."
    )
    as_json = await run(world, "report", task, "--summary", "--json")
    assert (as_json.code, as_json.answer["explanation"]) == (1, "owed")
    assert (await run(world, "explain", task, "--text", "the migration", "--by", "ann")).code == 0
    given = await run(world, "report", task, "--summary", "--format", "json")
    assert (given.code, given.answer["explanation"]) == (0, "none")
    assert len(given.answer["summary"]) == 3


async def test_below_a_blocked_task_the_gate_is_open_and_the_parent_is_named(world: World) -> None:
    task = world.task_in(1)
    await over(world, task)
    await send(world, task, world.event("task.started", "CHILD", parent_task_id=task))
    gate = await run(world, "report", "CHILD", "--summary", "--json")
    assert (gate.code, gate.answer["explanation"]) == (0, "none")
    assert gate.answer["summary"][2].startswith(f"Investigate {task}, which is above it, and ")
    child = (await run(world, "report", "CHILD", "--json")).answer
    assert (child["verdict"], child["inherited_from"]) == ("block", task)
    assert "blocks" not in child
    more = ("--multiplier", "4", "--reason", "needed", "--by", "ann")
    assert (await run(world, "grant", task, *more)).code == 0
    lifted = await run(world, "report", "CHILD", "--summary", "--json")
    assert (lifted.code, lifted.answer["explanation"]) == (0, "none")
    assert lifted.answer["summary"][2] == "Nothing to do."


async def test_an_open_task_is_reported_on_with_what_its_phases_use_now(world: World) -> None:
    task = world.task_in(0)
    await over(world, task)
    link = "https://budget.example/{task_id}"
    ran = await run(world, "report", task, "--json", STOPLOSS_REPORT_URL=link)
    assert (ran.code, ran.err) == (0, "")
    assert (ran.answer["final"], ran.answer["owner"]) == (False, "ann")
    assert ran.answer["phases"][0]["metrics"]["tokens"]["used"] == OVER_TOKENS
    assert ran.answer["causes"][0]["cause"] == "inefficient"
    assert ran.answer["link"] == f"https://budget.example/{task}"
    text = await run(world, "report", task)
    assert text.out.startswith(f"{task}\nmedium complexity, medium importance, ann; open; ")
    assert "Was this a false positive?" in text.out
    shown = await run(world, "report", task, "--format", "markdown")
    assert shown.out.startswith(f"# {task}\n")


async def test_an_ended_task_without_a_written_report_is_made_from_its_topics(
    world: World,
) -> None:
    parent, child, grandchild = world.task_in(0), world.task_in(1, "CHILD"), "GRANDCHILD"
    await over(world, parent)
    await send(
        world,
        parent,
        world.event("task.started", child, parent_task_id=parent),
        world.event("task.started", grandchild, parent_task_id=child),
        world.event("phase.usage", grandchild, phase="PLAN", input_tokens=500),
        world.event("task.ended", grandchild),
        world.event("task.ended", child),
        world.event("task.ended", parent, outcome="failed"),
    )
    (decision_id,) = [
        each.id for each in await world.read(Topic.DECISIONS) if each.data["verdict"] == "block"
        if each.key == parent
    ]  # fmt: skip
    said = Feedback(task_id=parent, decision_id=decision_id, false_positive=True, by="bob")
    record = Envelope(
        id="f", source="web", type="stoploss.feedback", subject=parent, time=TIME, data=said
    )
    await say(world, Topic.FEEDBACK, parent, msgspec.json.encode(record))
    answer = (await run(world, "report", parent, "--json")).answer
    assert (answer["final"], answer["outcome"], answer["revision"]) == (True, "failed", 1)
    assert answer["metrics"]["tokens"]["used"] == OVER_TOKENS + 500
    assert answer["blocks"][0]["false_positive"] is True
    assert answer["phases"][0]["outcome"] == "open_at_end"


async def test_the_report_that_was_written_goes_first(world: World) -> None:
    task = world.task_in(0)
    await over(world, task)
    await say(world, Topic.REPORTS, task, report(task))
    assert (await run(world, "report", task, "--json")).answer["final"] is False, "it is open"
    await send(world, task, world.event("task.ended", task))
    written = (await run(world, "report", task, "--json")).answer
    assert (written["summary"][0], written["final"]) == ("Within budget.", True)
    await say(world, Topic.REPORTS, "LONG-AGO", report("LONG-AGO"))
    assert (await run(world, "report", "LONG-AGO", "--summary")).code == 0


async def test_a_task_that_nobody_knows_is_the_answer_no(world: World) -> None:
    ran = await run(world, "report", "nobody")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("TASK: 'nobody' is not known to the ledger")
    assert await world.read(Topic.AUDIT) == []


async def test_who_has_read_what_stands_in_the_audit_if_it_can_be_written(world: World) -> None:
    task = world.task_in(0)
    await over(world, task)
    assert (await run(world, "report", task, "--summary")).code == 1, (
        "a gate, which no person reads"
    )
    await run(world, "report", task)
    (entry,) = await world.read(Topic.AUDIT)
    assert entry.key == f"report/{task}"
    assert entry.data == {
        "subject": f"report/{task}",
        "action": "report_read",
        "by": getpass.getuser(),
        "task_id": task,
    }
    admin = AIOKafkaAdminClient(**world.settings.admin_kwargs())
    await admin.start()
    try:
        await admin.delete_topics([world.settings.topic(Topic.AUDIT)])
    finally:
        await admin.close()
    ran = await run(world, "report", task, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["task_id"] == task
