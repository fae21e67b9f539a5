"""What tasks call themselves is written down once, and importance that is inflated is noticed once."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from schemas.encode import encode_event
from schemas.events import TaskStarted
from schemas.fields import Importance
from schemas.topics import Topic
from streams.agents.governance import AGENT
from streams.importers.base import import_events
from streams.importers.demo import DEMO_KIND, demo_path
from tests.integration.agents_world import WITHIN_S, AgentsWorld, make_agents_world
from tests.integration.kafka_world import World, eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
async def agents(bootstrap_servers: str, topic_prefix: str) -> AsyncIterator[AgentsWorld]:
    made = await make_agents_world(bootstrap_servers, topic_prefix, AGENT)
    yield made
    for worker in made.workers:
        if worker.process.returncode is None:
            worker.process.kill()
            await worker.ended()


async def trail(world: World) -> list[str]:
    """Every entry of the audit, in the order of its task's changes; one that is there twice, once."""
    seen = {one.id: one for one in await world.read(Topic.AUDIT)}
    return sorted(
        f"{one.data['subject']} {one.data['action']} {one.data['by']}" for one in seen.values()
    )


async def edges(world: World) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for seen in await world.read(Topic.ALERTS):
        edge = f"{seen.data['state']} {seen.data['number']}"
        if edge not in found.setdefault(seen.key, []):
            found[seen.key].append(edge)
    return found


@pytest.mark.parametrize(
    "failpoint", [None, "agent_after_fold", "agent_after_outputs", "agent_in_table"]
)
async def test_changes_are_noted_and_inflation_is_told_also_where_a_worker_is_killed(
    agents: AgentsWorld, failpoint: str | None
) -> None:
    world = World(agents.settings)
    async with world.ledger():
        tasks = [f"TASK-{number}" for number in range(25)]
        for task in tasks:
            how = "low" if task in tasks[::5] else "critical"
            start = world.event(
                "task.started",
                task,
                importance=how,
                importance_justification="urgent",
                owner="ann",
            )
            await world.send([(task, start)])
        change = world.event(
            "task.reclassified", "TASK-0", by="bob", reason="now", importance="critical"
        )
        await world.send([("TASK-0", change)])
        reviewed = world.event("justification.reviewed", "TASK-0", by="eve", approved=True)
        await world.send([("TASK-0", reviewed)])
        if failpoint is not None:
            dying = await agents.begin(STOPLOSS_FAILPOINT=f"{failpoint}:1")
            assert await dying.ended() == -9, dying.said
        async with agents.worker():
            await agents.until_done()
            await eventually(lambda: _told(world), WITHIN_S)
    critical = [task for task in tasks if task not in tasks[::5]]
    assert await trail(world) == sorted(
        [
            *(f"{task} task_classified ann" for task in critical),
            "TASK-0 task_reclassified bob",
            "TASK-0 justification_reviewed eve",
        ]
    )
    assert await edges(world) == {
        "importance_inflation/all": ["firing 1"],
        "importance_jump/TASK-0": ["firing 1", "resolved 2"],
    }
    await world.assert_verified()


async def _told(world: World) -> bool:
    return len(await edges(world)) == 2


COPIES = 12  # so that of all together fewer than 8 % are critical


async def test_recorded_sessions_of_which_four_in_five_are_critical_are_told_once_until_others_come(
    agents: AgentsWorld,
) -> None:
    world, inflation = World(agents.settings), "importance_inflation/all"
    recorded = list(import_events(DEMO_KIND, [demo_path()]))
    starts = [event for event in recorded if isinstance(event, TaskStarted)]
    critical = {event.subject for number, event in enumerate(starts) if number % 5}
    assert 0.75 < len(critical) / len(starts) < 0.8
    inflated = [
        replace(
            event,
            data=replace(
                event.data, importance=Importance.CRITICAL, importance_justification="an outage"
            ),
        )
        if isinstance(event, TaskStarted) and event.subject in critical
        else event
        for event in recorded
    ]
    as_recorded = [
        replace(start, subject=f"{start.subject}/{copy}")
        for copy in range(COPIES)
        for start in starts
        if start.partitionkey is None
    ]

    async def told(*expected: str) -> bool:
        return (await edges(world)).get(inflation) == list(expected)

    async with world.ledger(), agents.worker():
        await world.send([(one.partitionkey or one.subject, encode_event(one)) for one in inflated])
        await eventually(lambda: told("firing 1"), WITHIN_S)
        await world.send([(one.subject, encode_event(one)) for one in as_recorded])
        await eventually(lambda: told("firing 1", "resolved 2"), WITHIN_S)
        await agents.until_done()
    assert await edges(world) == {inflation: ["firing 1", "resolved 2"]}
    classified = {f"{task} task_classified" for task in critical}
    assert {entry.rpartition(" ")[0] for entry in await trail(world)} >= classified
    await world.assert_verified()
