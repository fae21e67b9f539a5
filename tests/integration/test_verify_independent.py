"""The second judge reads what a real ledger has written, and finds planted damage."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

import msgspec
import pytest

from schemas.topics import Topic
from streams.kafka.settings import Settings
from streams.verify.result import IndependentResult
from streams.verify.second import judge
from tests.integration.agents_letters import with_agents_letters
from tests.integration.kafka_world import make_world
from tests.integration.recorded_log import (
    PARTITIONS,
    Log,
    Raw,
    copy_log,
    remove_first_events,
    settings_of,
)
from tests.integration.shell import environ, stoploss

pytestmark = pytest.mark.integration

Change = Callable[[list[Raw]], Iterable[Raw]]


def differences(result: IndependentResult) -> list[str]:
    return [str(report.difference) for report in result.partitions]


def unchanged(records: list[Raw]) -> list[Raw]:
    return records


def first(records: list[Raw], topic: Topic, kind: str) -> int:
    """Where the first record of a type stands, of the first partition."""
    return next(
        index
        for index, record in enumerate(records)
        if (record.topic, record.partition, record.kind) == (topic, 0, kind)
    )


def input_of(record: Raw) -> int:
    return int(str(record.envelope["id"]).split("-")[1])


def without_a_breach(records: list[Raw]) -> list[Raw]:
    at = first(records, Topic.BREACHES, "breach")
    return [*records[:at], *records[at + 1 :]]


def decided_twice(records: list[Raw]) -> list[Raw]:
    return [*records, records[first(records, Topic.DECISIONS, "decision")]]


def with_a_longer_run(records: list[Raw]) -> list[Raw]:
    at = first(records, Topic.EXECUTIONS, "execution")
    return [*records[:at], records[at].with_data(latency_ms=1), *records[at + 1 :]]


def with_a_lost_event(records: list[Raw]) -> list[Raw]:
    """What stands in `events` is more than the ledger has counted."""
    at = first(records, Topic.EVENTS, "phase.usage")
    more = records[at].with_data(input_tokens=9_001)
    return [*records[:at], more, *records[at + 1 :]]


async def test_letters_of_agents_are_none_of_the_ledgers(settings: Settings, log: Log) -> None:
    await copy_log(settings, log, with_agents_letters)
    assert differences(await judge(settings)) == ["None"] * PARTITIONS


async def test_what_a_ledger_wrote_through_a_crash_and_a_restart_follows_from_its_inputs(
    log: Log, bootstrap_servers: str
) -> None:
    progress: list[tuple[int, int]] = []
    result = await judge(
        settings_of(bootstrap_servers, log.prefix),
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert differences(result) == ["None"] * PARTITIONS
    assert result.equal
    assert progress[-1][0] == progress[-1][1]
    assert all(report.events == report.next_offset > 0 for report in result.partitions)


async def test_what_is_written_while_it_judges_is_no_difference(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    world = await make_world(bootstrap_servers, topic_prefix, PARTITIONS)
    tasks = [world.task_in(partition) for partition in range(PARTITIONS)]
    async with world.ledger():
        for _ in range(3):
            sent = [world.usage(task, 500) for task in tasks for _ in range(200)]
            async with asyncio.TaskGroup() as group:
                group.create_task(world.send(sent))
                judging = group.create_task(judge(world.settings))
            assert differences(judging.result()) == ["None"] * PARTITIONS
        await world.until_folded()
    result = await judge(world.settings)
    assert result.equal
    assert sum(report.events for report in result.partitions) >= world.sent


@pytest.mark.parametrize(
    ("change", "topic"),
    [
        pytest.param(without_a_breach, Topic.BREACHES, id="a breach is gone"),
        pytest.param(decided_twice, Topic.DECISIONS, id="a decision twice"),
        pytest.param(with_a_longer_run, Topic.EXECUTIONS, id="another latency"),
        pytest.param(with_a_lost_event, Topic.BREACHES, id="another use"),
    ],
)
async def test_damage_is_found_and_named(
    settings: Settings, log: Log, change: Change, topic: Topic
) -> None:
    await copy_log(settings, log, change)
    result = await judge(settings)
    assert not result.equal
    damaged, sound = result.partitions
    assert sound.difference is None, "only the first partition is damaged"
    assert damaged.difference is not None
    assert damaged.difference.topic == settings.topic(topic)


def checkpoints(log: Log) -> dict[int, int]:
    """The offset of the first checkpoint of each partition."""
    found: dict[int, int] = {}
    for record in log.of(Topic.LIFECYCLE):
        data = record.envelope["data"]
        if data["change"] == "partition_checkpoint":
            found.setdefault(record.partition, data["next_offset"])
    return found


async def test_without_the_first_events_it_begins_at_a_checkpoint(
    settings: Settings, log: Log
) -> None:
    await copy_log(settings, log, unchanged)
    offsets = checkpoints(log)
    await remove_first_events(settings, {one: offset - 1 for one, offset in offsets.items()})
    result = await judge(settings)
    assert differences(result) == ["None"] * PARTITIONS
    for report in result.partitions:
        assert report.from_checkpoint
        assert report.first_offset == offsets[report.partition]
        assert report.unjudged_tasks == 1, "A-GROWN began before"
        assert report.events > 0


async def test_damage_after_the_checkpoint_is_found(settings: Settings, log: Log) -> None:
    offsets = checkpoints(log)

    def change(records: list[Raw]) -> list[Raw]:
        last = [
            index
            for index, record in enumerate(records)
            if (record.topic, record.partition) == (Topic.BREACHES, 0)
        ][-1]
        assert input_of(records[last]) >= offsets[0]
        return [*records[:last], *records[last + 1 :]]

    await copy_log(settings, log, change)
    await remove_first_events(settings, offsets)
    difference = (await judge(settings)).partitions[0].difference
    assert difference is not None
    assert difference.topic == settings.topic(Topic.BREACHES)


def without_checkpoints(records: list[Raw]) -> list[Raw]:
    return [
        record
        for record in records
        if record.topic is not Topic.LIFECYCLE
        or record.envelope["data"]["change"] != "partition_checkpoint"
    ]


def without_policies(records: list[Raw]) -> list[Raw]:
    """What `tasks` says of policies is gone, as if others had been set and all tasks forgotten."""
    return [
        record
        for record in records
        if record.topic is not Topic.TASKS or not (record.key or b"").startswith(b"policy/")
    ]


@pytest.mark.parametrize(
    ("change", "reason", "told"),
    [
        (without_checkpoints, "no_checkpoint", "`lifecycle` has no checkpoint that they cover"),
        (without_policies, "policy_gone", "`tasks` no longer has the policy that held"),
    ],
)
async def test_where_nothing_can_be_judged_it_says_so_and_finds_no_difference(
    settings: Settings, log: Log, change: Change, reason: str, told: str
) -> None:
    await copy_log(settings, log, change)
    await remove_first_events(settings, checkpoints(log))
    ran = await stoploss("verify", "--independent", "--json", env=environ(settings))
    assert (ran.code, ran.err) == (0, "")
    for report in ran.answer["partitions"]:
        assert (report["not_judged"], report["events"]) == (reason, 0)
        assert report["first_offset"] == report["next_offset"]
    ran = await stoploss("verify", "--independent", env=environ(settings))
    assert (ran.code, ran.err) == (0, "")
    assert f"partition 0: not judged: the first events are gone, and {told}" in ran.out
    assert "nothing was judged" in ran.out
    assert "equal" not in ran.out


async def test_a_command_says_what_the_second_judge_found(
    settings: Settings, log: Log, bootstrap_servers: str
) -> None:
    good = settings_of(bootstrap_servers, log.prefix)
    ran = await stoploss("verify", "--independent", env=environ(good))
    assert (ran.code, ran.err) == (0, "")
    assert "equal: everything that was judged follows from the events" in ran.out

    def planted(records: list[Raw]) -> list[Raw]:
        """An input that no other has caused: the breach that it would be is not published again."""
        record = records[first(records, Topic.BREACHES, "breach")]
        envelope = record.envelope | {"id": "0-999999-0"}
        return [*records, replace(record, value=msgspec.json.encode(envelope))]

    await copy_log(settings, log, planted)
    ran = await stoploss("verify", "--independent", "--json", env=environ(settings))
    assert ran.code == 1
    assert ran.answer["equal"] is False
    difference = ran.answer["partitions"][0]["difference"]
    assert (difference["topic"], difference["input_offset"]) == (
        settings.topic(Topic.BREACHES),
        999_999,
    )
    assert ran.err.strip() == difference["text"]
