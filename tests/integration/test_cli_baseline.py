"""What is usual says the same live and offline, to the last digit; and so does what follows from it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.topics import Topic
from streams.agents.baselines import AGENT
from tests.integration.agents_world import PARTITIONS, WITHIN_S, AgentsWorld
from tests.integration.kafka_world import World, eventually, make_world
from tests.integration.shell import Ran, environ, stoploss

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

TASKS = 30
TIMEOUT = ("--timeout", "60")


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> AsyncIterator[World]:
    made = await make_world(bootstrap_servers, topic_prefix, PARTITIONS)
    async with made.ledger():
        yield made


def history(world: World) -> list[tuple[str, bytes]]:
    """Tasks of two types; each third one has another below it, one ran away, one stays open."""
    events = []
    for number in range(TASKS):
        task, child = f"TASK-{number}", f"CHILD-{number}"
        kind = "robot" if number % 2 else "other"
        used = 90_000 if number == 7 else 1_000 + 37 * number
        told = [
            world.event("task.started", task, planned_phases=["THINK", "PLAN"], task_type=kind),
            world.event("phase.usage", task, phase="THINK", input_tokens=used, cost_usd=0.01),
            world.event("phase.ended", task, phase="THINK", duration_ms=9_000 + number),
            world.event("phase.usage", task, phase="PLAN", duration_ms=70, usage_known=False),
        ]
        if number % 3 == 0:
            told += [
                world.event("task.started", child, parent_task_id=task, task_type="sub"),
                world.event("phase.usage", child, phase="THINK", input_tokens=300, estimated=True),
                world.event("task.ended", child, outcome="failed"),
            ]
        told.append(world.event("task.ended", task))
        told.append(world.event("phase.usage", task, phase="THINK", input_tokens=10))  # late
        events += [(task, event) for event in told]
    return [*events, world.usage("OPEN", 5)]


async def run(world: World, *arguments: str) -> Ran:
    ran = await stoploss(*arguments, env=environ(world.settings))
    assert ran.code == 0, ran.err
    return ran


async def test_live_and_offline_say_the_same(world: World, tmp_path: Path) -> None:
    events = history(world)
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"".join(event + b"\n" for _, event in events))
    await world.send(events)
    runs = 2 * TASKS + TASKS // 3 + TASKS  # THINK again, as a revision, after the end

    async def all_is_told() -> bool:
        return len(await world.read(Topic.EXECUTIONS)) == runs

    await eventually(all_is_told, WITHIN_S)
    agents = AgentsWorld(world.settings, AGENT)
    async with agents.worker():
        await agents.until_done()
    offline = await run(world, "baseline", str(file), "--json")
    live = await run(world, "baseline", "--from", "live", "--json", *TIMEOUT)
    assert live.out == offline.out
    answer = live.answer
    assert (answer["tasks"], answer["open_tasks"]) == (TASKS + TASKS // 3, 1)
    classes = {each["baseline"]["phase"]: each for each in answer["classes"]}
    assert classes["PLAN"]["unknown_share"]["tokens"] == 1
    assert classes["THINK"]["estimated_share"] == pytest.approx(10 / 40)
    assert "PHASE" in (await run(world, "baseline", "--from", "live", *TIMEOUT)).out


async def test_a_policy_from_live_is_the_one_from_the_same_events(
    world: World, tmp_path: Path
) -> None:
    events = [
        each
        for number in range(40)
        for each in (
            world.usage(f"T-{number}", 20_000 + 500 * number),
            (f"T-{number}", world.event("task.ended", f"T-{number}")),
        )
    ]
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"".join(event + b"\n" for _, event in events))
    await world.send(events)

    async def all_is_told() -> bool:
        return len(await world.read(Topic.EXECUTIONS)) == 40

    await eventually(all_is_told, WITHIN_S)
    answers = []
    for name, arguments in (("file", [str(file)]), ("live", ["--from", "live", *TIMEOUT])):
        out = tmp_path / f"{name}.toml"
        ran = await run(world, "calibrate", *arguments, "--out", str(out), "--json")
        answers.append(ran.answer | {"out": ""})
    assert answers[0] == answers[1]
    assert (tmp_path / "file.toml").read_text() == (tmp_path / "live.toml").read_text()
    shown = await run(world, "policy", "show", "--json", *TIMEOUT)
    assert shown.answer["version"] == "builtin-1", "nothing was applied"
