"""What happens to tasks, enforcers and ledgers becomes alerts: each fires once and is resolved once."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from functools import partial
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import aiokafka
import msgspec
import psutil
import pytest

from schemas.audit import Action, Audit
from schemas.encode import encode_event
from schemas.envelope import Envelope, rfc3339
from schemas.events import Event, PhaseUsage, TaskEnded
from schemas.health import Health
from schemas.quantiles import with_value
from schemas.sketches import Histogram
from schemas.topics import Topic
from streams.agents.alerts import AGENT, SIGNALS
from streams.budget.policy import Policy, policy_from_toml, policy_json
from streams.importers.base import import_events
from streams.importers.demo import DEMO_KIND, demo_path
from streams.kafka.settings import Settings
from tests.integration.agents_world import (
    PARTITIONS,
    WITHIN_S,
    AgentsWorld,
    Worker,
    make_agents_world,
)
from tests.integration.kafka_world import World, eventually
from tests.integration.shell import environ, start

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

CODEX_SAMPLE = Path(__file__).parents[1] / "data/raw_samples/codex_0.46_rollout.jsonl"
POLICY = policy_from_toml(
    """
    version = "alerts"
    [clock]
    stuck_after_ms = 1_500
    [alerts.usage_missing]
    count_min = 20
    [alerts.stop_loss_rate]
    count_min = 5
    """,
    "test",
)
# A minute of what takes hours: what is slow for a second opens the breaker.
FAST = policy_from_toml(
    """
    version = "fast"
    [alerts.transition_latency]
    window_ms = 2_000
    baseline_ms = 600_000
    count_min = 50
    [alerts.breaker_open]
    after_ms = 1_000
    """,
    "test",
)


class Place:
    """A ledger's world and the agent's, on the same topics."""

    def __init__(self, agents: AgentsWorld) -> None:
        self.agents = agents
        self.world = World(agents.settings)
        self._number = 0

    @property
    def settings(self) -> Settings:
        return self.agents.settings

    async def append(self, topic: Topic, key: str, kind: str, *said: object) -> None:
        """Say something on a topic of one partition, one after the other."""
        async with aiokafka.AIOKafkaProducer(**self.settings.producer_kwargs()) as producer:
            for data in said:
                self._number += 1
                envelope = Envelope(
                    id=f"{kind}-{self._number}",
                    source="test",
                    type=f"stoploss.{kind}",
                    subject=key,
                    time=rfc3339(time.time_ns() // 1_000_000),
                    data=data,
                )
                await producer.send_and_wait(
                    self.settings.topic(topic), msgspec.json.encode(envelope), key.encode()
                )

    async def health(self, *said: dict[str, Any]) -> None:
        """Say how an enforcer is, once for each of these fields."""
        reports = (Health(source="enforcer-1", **fields) for fields in said)
        await self.append(Topic.HEALTH, "enforcer-1", "health", *reports)

    async def apply(self, policy: Policy) -> None:
        """Set a policy as operators do, for the ledger and in the audit."""
        await self.world.set_policy(policy)
        document = json.loads(policy_json(policy))
        said = Audit(subject="policy", action=Action.POLICY_SET, by="ada", policy=document)
        await self.append(Topic.AUDIT, "policy", "audit", said)

    async def edges(self) -> dict[str, list[str]]:
        """Return `firing 1`, `resolved 2`, … by name and scope, in their order; repeated ones once."""
        found: dict[str, list[str]] = {}
        for seen in await self.world.read(Topic.ALERTS):
            edge = f"{seen.data['state']} {seen.data['number']}"
            if edge not in found.setdefault(seen.key, []):
                found[seen.key].append(edge)
        return found

    async def until(self, subject: str, *edges: str) -> None:
        """Wait until an alert has had so many edges; these are all of them."""
        try:
            await eventually(lambda: self._has(subject, len(edges)), WITHIN_S)
        except TimeoutError:
            pytest.fail(f"{subject}: {(await self.edges()).get(subject)} after {WITHIN_S} s")
        assert (await self.edges())[subject] == list(edges)

    async def _has(self, subject: str, count: int) -> bool:
        return len((await self.edges()).get(subject, [])) >= count

    async def modes(self) -> dict[int, str]:
        """Return the mode in which each partition is, by its last heartbeat."""
        return {
            int(key.removeprefix("partition/")): data["mode"]
            for key, data in (await self.world.last(Topic.HEARTBEATS)).items()
        }


@pytest.fixture
async def place(bootstrap_servers: str, topic_prefix: str) -> AsyncIterator[Place]:
    place = Place(await make_agents_world(bootstrap_servers, topic_prefix, AGENT))
    yield place
    for worker in place.agents.workers:
        if worker.process.returncode is None:
            worker.process.kill()
            await worker.ended()


FIRED, RESOLVED = "firing 1", "resolved 2"


def keyed(events: Sequence[Event]) -> list[tuple[str, bytes]]:
    return [(event.partitionkey or event.subject, encode_event(event)) for event in events]


def without_usage(rollout: Path, into: Path) -> Path:
    """Copy a recorded session in which every third report of a call has lost its numbers."""
    lines, number, last = [], 0, ""
    for text in rollout.read_text().splitlines():
        line = json.loads(text)
        info = (line.get("payload") or {}).get("info")
        if info is not None:
            totals = json.dumps(info["total_token_usage"])
            number += totals != last
            last = totals
            if number % 3 == 0:
                line["payload"]["info"] = None
        lines.append(json.dumps(line))
    path = into / "rollout-masked.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def sessions(first: int, end: int) -> list[Event]:
    """Some of the recorded sessions of the demo, in their order."""
    events = list(import_events(DEMO_KIND, [demo_path()]))
    names = list(dict.fromkeys(event.subject for event in events))[first:end]
    return [event for event in events if event.subject in names]


def live(world: World, session: Sequence[Event]) -> list[tuple[str, bytes]]:
    """A recorded session as an enforcer tells it that says when a phase begins, and when it ends."""
    task, phase, told = session[0].subject, None, []
    for event in session:
        if isinstance(event, PhaseUsage) and event.data.phase != phase:
            if phase is not None:
                told.append(world.event("phase.ended", task, phase=phase))
            phase = event.data.phase
            told.append(world.event("phase.started", task, phase=phase))
        if isinstance(event, TaskEnded):
            told.append(world.event("phase.ended", task, phase=phase))
        told.append(encode_event(event))
    return [(task, value) for value in told]


def waits_ms() -> list[float]:
    """How long the recorded sessions took from one phase to the next, where they did not rest."""
    last: dict[str, PhaseUsage] = {}
    found = []
    for event in sessions(0, 10):
        if not isinstance(event, PhaseUsage):
            continue
        before = last.get(event.subject)
        last[event.subject] = event
        if before is not None and before.data.phase != event.data.phase:
            found.append((event.time - before.time).total_seconds() * 1_000)
    return [wait for wait in found if 0 < wait < 60_000]


def queue_depths() -> list[int]:
    """How many of the recorded sessions wait, whenever one comes or goes, where one at a time has room."""
    comes: dict[str, datetime] = {}
    ends: dict[str, datetime] = {}
    for event in import_events(DEMO_KIND, [demo_path()]):
        if event.partitionkey is None:  # what a sub-agent does is part of its session
            comes.setdefault(event.subject, event.time)
            ends[event.subject] = event.time
    changes, free = [], min(comes.values())
    for name, at in sorted(comes.items(), key=lambda each: each[1]):
        begins = max(at, free)
        changes += [(at, 1), (begins, -1)]
        free = begins + (ends[name] - at)
    changes.sort(key=lambda each: (each[0], -each[1]))  # who finds room has come first
    return list(accumulate(change for _, change in changes))


async def test_alerts_about_tasks_fire_once_and_are_resolved_once(
    place: Place, tmp_path: Path
) -> None:
    world = place.world
    async with world.ledger(), place.agents.worker() as worker:
        await place.apply(POLICY)
        lost = list(import_events("codex", [without_usage(CODEX_SAMPLE, tmp_path)]))
        await world.send(keyed(lost))
        await place.until("usage_missing/all", FIRED)
        recorded = sessions(0, 8)
        await world.send(keyed(recorded))
        await place.until("usage_missing/all", FIRED, RESOLVED)
        await place.until("stop_loss_rate/all", FIRED)
        crowd = [f"SMALL-{number}" for number in range(200)]
        await world.send([(task, world.event("task.started", task)) for task in crowd])
        await place.until("stop_loss_rate/all", FIRED, RESOLVED)

        start = world.event("task.started", "GRANTED", planned_phases=["THINK"])
        await world.send([("GRANTED", start), world.usage("GRANTED", 7_300)])
        await place.until("budget_breach/GRANTED", FIRED)
        grant = world.event("task.granted", "GRANTED", by="ada", reason="test", multiplier=2)
        await world.send([("GRANTED", grant)])
        await place.until("budget_breach/GRANTED", FIRED, RESOLVED)

        stopping = sessions(9, 10)
        told, stuck = live(world, stopping), f"stuck_task/{stopping[0].subject}"
        begun = [at for at, (_, value) in enumerate(told) if b"phase.started" in value]
        stops = (
            begun[len(begun) // 2] + 2
        )  # in the middle of a phase, after its first call of a model
        await world.send(told[:stops])
        await place.until(stuck, FIRED)
        await world.send(told[stops:])
        await place.until(stuck, FIRED, RESOLVED)
        await place.agents.until_done()
    assert await worker.ended() == 0
    edges = await place.edges()
    tasks = {event.subject for event in [*lost, *recorded, *stopping]}
    about_sessions = {key: found for key, found in edges.items() if key.partition("/")[2] in tasks}
    names = {key.partition("/")[0] for key in about_sessions}
    assert names == {"budget_breach", "task_blocked", "stuck_task"}
    assert [key for key in about_sessions if key.startswith("stuck_task/")] == [stuck]
    assert all(found == [FIRED, RESOLVED] for found in about_sessions.values()), about_sessions
    assert {key: found for key, found in edges.items() if key not in about_sessions} == {
        "usage_missing/all": [FIRED, RESOLVED],
        "stop_loss_rate/all": [FIRED, RESOLVED],
        "budget_breach/GRANTED": [FIRED, RESOLVED],
    }
    assert await world.read(Topic.DEAD_LETTERS) == []
    await world.assert_verified()


class Enforcer:
    """Says how it is, again and again: its phase transitions take as long as the recorded ones.

    `slower`: so many times as long, set from outside.
    """

    def __init__(self, place: Place) -> None:
        self._place, self._waits_ms = place, waits_ms()
        self.slower = 1.0

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator["Enforcer"]:
        task = asyncio.get_running_loop().create_task(self._work())
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _work(self) -> None:
        while True:
            taken = Histogram()
            for wait_ms in self._waits_ms:
                taken = with_value(taken, wait_ms * self.slower)
            await self._place.health({"transition_ms": taken})
            await asyncio.sleep(0.1)


async def test_an_enforcer_that_is_far_too_slow_for_long_switches_enforcement_off(
    place: Place,
) -> None:
    world = place.world
    latency, breaker = "transition_latency/enforcer-1", "breaker_open/enforcer-1"
    async with world.ledger(), place.agents.worker():
        await place.apply(FAST)
        await world.set_mode("enforce")
        await eventually(lambda: all_in(place, "enforce"))
        depths = queue_depths()
        assert (max(depths) > 30, depths[-1]) == (True, 0)
        await place.health(*({"queue_depth": depth} for depth in depths))
        await place.until("queue_depth/enforcer-1", FIRED, RESOLVED)
        async with Enforcer(place).working() as enforcer:
            await eventually(lambda: health_spans(place, 6_000))
            enforcer.slower = 3.0
            await place.until(latency, FIRED)
            await place.until(breaker, FIRED)
            await eventually(lambda: all_in(place, "observe"))
            enforcer.slower = 1.0
            await place.until(latency, FIRED, RESOLVED)
            await place.until(breaker, FIRED, RESOLVED)
        await place.agents.until_done()
    assert await place.modes() == dict.fromkeys(range(PARTITIONS), "observe")
    assert await place.edges() == {
        "queue_depth/enforcer-1": [FIRED, RESOLVED],
        latency: [FIRED, RESOLVED],
        breaker: [FIRED, RESOLVED],
    }
    (noted,) = [one for one in await world.read(Topic.AUDIT) if one.data["action"] == "mode_set"]
    assert (noted.data["by"], noted.data["after"]) == ("breaker", {"mode": "observe"})
    states = await world.last(Topic.TASKS)
    assert {states[f"partition/{number}"]["mode_by"] for number in range(PARTITIONS)} == {"breaker"}
    await world.assert_verified()


async def all_in(place: Place, mode: str) -> bool:
    return await place.modes() == dict.fromkeys(range(PARTITIONS), mode)


async def health_spans(place: Place, length_ms: int) -> bool:
    """Whether the broker has had what an enforcer says for so long."""
    records = await place.agents.records(Topic.HEALTH)
    return bool(records[-1].timestamp - records[0].timestamp > length_ms)


async def test_a_ledger_says_how_its_batches_went_and_no_judge_asks_who_caused_that(
    place: Place,
) -> None:
    world = place.world
    async with world.ledger():
        await world.send([world.usage("TASK-1", 500)])
        await world.until_folded()
        await eventually(lambda: has_said(place))
    said = [one.data for one in await world.read(Topic.HEALTH)]
    assert {one["source"].partition("/")[0] for one in said} == {"ledger"}
    assert sum(one["ledger"]["batches"] for one in said) > 0
    assert {one["ledger"]["batch_failures"] for one in said} == {0}
    await world.assert_verified()


async def has_said(place: Place) -> bool:
    return len(await place.world.read(Topic.HEALTH)) > 0


async def test_time_does_not_overtake_what_waits(place: Place) -> None:
    """An outage of the agent is over: what came meanwhile is told before the time of now is."""
    world = place.world
    tasks = [f"TASK-{number}" for number in range(400)]
    async with world.ledger():
        await world.send([world.usage(task, 100) for task in tasks])
        await world.until_folded()
    async with place.agents.worker():
        await eventually(lambda: has_ticked(place), WITHIN_S)
    kinds = [kind for kind, _ in groupby(await signals(place))]
    assert kinds[:2] == ["task_began", "tick"]
    assert (await signals(place)).count("task_began") == len(tasks)


async def signals(place: Place) -> list[str]:
    return [
        str(msgspec.json.decode(one.value)["type"])
        for one in await place.agents.records(SIGNALS.topic)
    ]


async def has_ticked(place: Place) -> bool:
    return "tick" in await signals(place)


KILLS = 4


def load(world: World, rounds: int) -> list[tuple[str, bytes]]:
    """Usage of tasks that come to warn one after the other; each third is granted more, then ends."""
    events: list[tuple[str, bytes]] = []
    for number in range(60):
        task = f"TASK-{number}"
        start = world.event("task.started", task, planned_phases=["THINK"])
        events += [(task, start), (task, world.event("phase.started", task, phase="THINK"))]
    for turn in range(rounds):
        for number in range(60):
            task = f"TASK-{number}"
            events.append(world.usage(task, 300 + 20 * number))
            if number % 3 == 0 and turn == rounds // 2:
                grant = {"by": "ada", "reason": "test", "multiplier": 10}
                events.append((task, world.event("task.granted", task, **grant)))
    events += [
        (f"TASK-{number}", world.event("task.ended", f"TASK-{number}"))
        for number in range(0, 60, 2)
    ]
    return events


async def test_who_is_killed_again_and_again_says_what_one_says_who_is_not(
    place: Place, bootstrap_servers: str
) -> None:
    world = place.world
    events = load(world, 30)
    own = environ(place.settings)
    agents = await start("agents", "alerts", env=own, stdout=asyncio.subprocess.DEVNULL)
    said = Worker(agents)
    try:
        async with world.ledger():
            for kills, at in enumerate(range(0, len(events), 300)):
                if kills <= KILLS:
                    await eventually(partial(has_said_that, said, ": runs\n", kills + 1), WITHIN_S)
                before = len(await signals(place))
                await world.send(events[at : at + 300])
                if kills < KILLS:
                    await eventually(partial(has_more_than, place, before), WITHIN_S)
                    worker_of(agents.pid).kill()
            await world.until_folded()
        await place.agents.until_done()
    finally:
        agents.terminate()
        await said.ended()
    assert said.said.count("worker ended with -9") == KILLS
    await assert_as_undisturbed(place, bootstrap_servers)


async def test_two_workers_share_the_tasks_and_one_of_them_has_the_windows(
    place: Place, bootstrap_servers: str
) -> None:
    world = place.world
    events = load(world, 30)
    half = len(events) // 2
    async with world.ledger(), place.agents.worker():
        async with place.agents.worker():
            await eventually(lambda: place.agents.is_shared_by(2), WITHIN_S)
            await world.send(events[:half])
            await eventually(partial(has_more_than, place, 50), WITHIN_S)
            await world.send(events[half:])
        await world.until_folded()
        await place.agents.until_done()
    await assert_as_undisturbed(place, bootstrap_servers)


async def assert_as_undisturbed(place: Place, bootstrap_servers: str) -> None:
    """Have one worker read all that the ledger has written, from the start: it says the same."""
    undisturbed = await copied(place, bootstrap_servers)
    async with undisturbed.agents.worker():
        await undisturbed.agents.until_done()
    expected = await undisturbed.edges()
    assert sum(key.startswith("budget_breach/") for key in expected) > 40
    assert await place.edges() == expected


def worker_of(pid: int) -> psutil.Process:
    """Return the one worker of `stoploss agents`."""
    children = psutil.Process(pid).children()
    (worker,) = [one for one in children if "spawn_main" in " ".join(one.cmdline())]
    return worker


async def has_said_that(said: Worker, what: str, times: int) -> bool:
    return said.said.count(what) >= times


async def has_more_than(place: Place, count: int) -> bool:
    """Whether the worker that is there now has told something of what it reads."""
    return len(await signals(place)) > count


async def copied(place: Place, bootstrap_servers: str) -> Place:
    """Return another place with all that the ledger has written."""
    prefix = f"{place.settings.topic_prefix.rstrip('.')}-copy."
    copy = Place(await make_agents_world(bootstrap_servers, prefix, AGENT))
    async with aiokafka.AIOKafkaProducer(**copy.settings.producer_kwargs()) as producer:
        for topic in (Topic.LIFECYCLE, Topic.DECISIONS, Topic.EXECUTIONS):
            for one in await place.agents.records(topic, PARTITIONS):
                await producer.send(
                    copy.settings.topic(topic), one.value, one.key, one.partition, one.timestamp
                )
        await producer.flush()
    return copy
