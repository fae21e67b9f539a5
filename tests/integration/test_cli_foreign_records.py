"""What somebody else has written to a topic ends no command: it is passed over, or it is said."""

import json
from collections.abc import AsyncIterator, Mapping

import aiokafka
import pytest

from schemas.audit import Action
from schemas.topics import SPECS, Topic
from streams.agents.restarts import TOPIC, RestartsLog
from tests.integration.kafka_world import World, make_world
from tests.integration.shell import Ran, environ, stoploss

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
UNKNOWN = {
    "specversion": "1.0",
    "id": "unknown-1",
    "source": "somebody",
    "type": "somebody.else",
    "subject": "something",
    "time": "2026-11-22T21:00:00.000Z",
    "data": {"x": 1},
}
FOREIGN = (None, b"\xff", b"{}", b"[]", b"null", json.dumps(UNKNOWN).encode())
# What `audit --since` has to place in time: no time, and one without a zone.
NO_TIMES = ("yesterday", "2026-11-22T21:00:00")
# Each with its exit code: what is wrong with a topic is a finding, and records that no event has
# caused are a difference.
COMMANDS: Mapping[tuple[str, ...], int] = {
    ("tasks",): 0,
    ("task", "TASK"): 0,
    ("report", "TASK"): 0,
    ("alerts", "--all"): 0,
    ("audit",): 0,
    ("audit", "--since", "7d"): 0,
    ("dead-letters",): 0,
    ("policy", "show"): 0,
    ("doctor",): 1,
    ("verify",): 1,
    ("grant", "TASK", "--multiplier", "2", "--reason", "a test"): 0,
    # Deleted, and the next one stands in the way of the ledger that restores then.
    ("recover", "foreign-1", "--reason", "a test", "--timeout", "1"): 3,
}


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> AsyncIterator[World]:
    """A task with all that a ledger says of one, and of everything else something that it does not."""
    made = await make_world(bootstrap_servers, topic_prefix, partitions=1)
    async with made.ledger():
        await made.send([made.usage("TASK", 70_000)])
        await made.until_folded()
        restarts = RestartsLog(made.settings, "baselines")
        await restarts.begin()
        await restarts.add("it was slow")
        await plant(made)
        yield made


async def plant(world: World) -> None:
    """Write to every topic what is no record of ours, under a key that people ask for."""
    (decided, *_) = await world.read(Topic.DECISIONS)
    assert decided.envelope is not None
    prefix = world.settings.topic_prefix
    async with aiokafka.AIOKafkaProducer(**world.settings.producer_kwargs()) as producer:
        for topic in (*SPECS, TOPIC):
            for number, value in enumerate(FOREIGN):
                key = {Topic.TASKS: f"foreign-{number}", Topic.HEARTBEATS: "partition/0"}.get(
                    Topic(topic) if topic in SPECS else Topic.EVENTS, "TASK"
                )
                await producer.send_and_wait(f"{prefix}{topic}", value, key.encode(), 0)
        no_ledgers = decided.envelope | {"id": "unknown-2", "time": NO_TIMES[0]}
        await producer.send_and_wait(
            world.settings.topic(Topic.DECISIONS), json.dumps(no_ledgers).encode(), b"TASK", 0
        )
        for number, time in enumerate(NO_TIMES):
            data = {"subject": "mode", "action": Action.MODE_SET.value, "by": "ann"}
            entry = UNKNOWN | {"id": f"audit-{number}", "time": time, "data": data}
            await producer.send_and_wait(
                world.settings.topic(Topic.AUDIT), json.dumps(entry).encode(), b"mode", 0
            )


async def run(world: World, *arguments: str) -> Ran:
    return await stoploss(*arguments, env=environ(world.settings))


async def test_no_command_ends_because_of_what_somebody_else_has_written(world: World) -> None:
    ran = {arguments: await run(world, *arguments) for arguments in COMMANDS}
    codes = {arguments: each.code for arguments, each in ran.items()}
    assert codes == COMMANDS, [
        each.err for arguments, each in ran.items() if each.code != COMMANDS[arguments]
    ]
    assert "Traceback" not in "".join(each.err for each in ran.values())


async def test_doctor_still_tells_what_those_said_who_can_be_read(world: World) -> None:
    ran = await run(world, "doctor", "--json")
    assert ran.code == 1
    agents = {each["name"]: each for each in ran.answer["agents"]}
    assert {each["why"] for each in agents.values()} == {None}
    assert (agents["baselines"]["restarts"], agents["baselines"]["restarted_because"]) == (
        1,
        "it was slow",
    )
    assert agents["alerts"]["restarts"] == 0


async def test_what_has_no_time_is_in_the_audit_and_in_no_part_of_it(world: World) -> None:
    whole = await run(world, "audit", "--json")
    assert {each["time"] for each in whole.answer["entries"]} == set(NO_TIMES)
    since = await run(world, "audit", "--since", "7d", "--json")
    assert (since.code, since.answer["count"]) == (0, 0)
