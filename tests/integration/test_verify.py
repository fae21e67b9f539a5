"""The re-fold judges what a real ledger has written, and finds planted damage."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

import msgspec
import pytest

from schemas.letters import AGENTS_SOURCE
from schemas.topics import Topic
from streams.kafka.settings import Settings
from streams.verify.refold import verify
from streams.verify.result import VerifyResult
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

pytestmark = pytest.mark.integration

FIRST, LAST = 0, -1
OPEN_TASK = b"C-OPEN-0"
Change = Callable[[list[Raw]], Iterable[Raw]]


async def verified(settings: Settings, log: Log, change: Change) -> VerifyResult:
    await copy_log(settings, log, change)
    return await verify(settings)


async def test_what_a_ledger_wrote_through_a_crash_and_a_restart_is_what_a_fold_gives(
    log: Log, bootstrap_servers: str
) -> None:
    progress: list[tuple[int, int]] = []
    result = await verify(
        settings_of(bootstrap_servers, log.prefix),
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert [str(report.difference) for report in result.partitions] == ["None"] * PARTITIONS
    assert result.equal
    assert progress[-1][0] == progress[-1][1]
    compared: Counter[str] = Counter()
    for report in result.partitions:
        compared.update(report.compared)
        assert report.events == report.next_offset - report.first_offset
    for topic in (Topic.DECISIONS, Topic.BREACHES, Topic.EXECUTIONS, Topic.LIFECYCLE):
        assert compared[topic.value] == len(log.of(topic)) > 0
    assert compared["dead-letters"] == len(log.of(Topic.DEAD_LETTERS)) > 0
    assert any(record.value is None for record in log.of(Topic.DECISIONS))


async def test_letters_of_agents_are_none_of_the_ledgers(settings: Settings, log: Log) -> None:
    result = await verified(settings, log, with_agents_letters)
    assert [str(report.difference) for report in result.partitions] == ["None"] * PARTITIONS
    compared = sum(report.compared["dead-letters"] for report in result.partitions)
    assert compared == len(log.of(Topic.DEAD_LETTERS)) > 0


async def test_a_letter_of_the_ledgers_that_says_it_is_an_agents_is_missing(
    settings: Settings, log: Log
) -> None:
    result = await verified(settings, log, from_an_agent)
    assert {
        (report.difference.problem, report.difference.topic)
        for report in result.partitions
        if report.difference is not None
    } == {("missing", settings.topic(Topic.DEAD_LETTERS))}


def from_an_agent(records: list[Raw]) -> Iterable[Raw]:
    for record in records:
        if record.topic is Topic.DEAD_LETTERS and record.value is not None:
            envelope = record.envelope | {"source": AGENTS_SOURCE}
            yield replace(record, value=msgspec.json.encode(envelope))
        else:
            yield record


def unchanged(records: list[Raw]) -> list[Raw]:
    return records


async def test_what_is_written_while_it_judges_is_no_difference(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    world = await make_world(bootstrap_servers, topic_prefix, PARTITIONS)
    tasks = [world.task_in(partition) for partition in range(PARTITIONS)]
    async with world.ledger():
        for _ in range(5):
            sent = [world.usage(task, 500) for task in tasks for _ in range(200)]
            async with asyncio.TaskGroup() as group:
                group.create_task(world.send(sent))
                judging = group.create_task(verify(world.settings))
            result = judging.result()
            assert [str(report.difference) for report in result.partitions] == ["None"] * PARTITIONS
        await world.until_folded()
    result = await verify(world.settings)
    assert result.equal
    assert sum(report.events for report in result.partitions) >= world.sent


def places(records: list[Raw], topic: Topic, kind: str) -> list[int]:
    """Return where the records of a type stand, of the first partition; "" are deletions.

    Of states those of a task that stays open: an ended one may be forgotten by now.
    """
    return [
        index
        for index, record in enumerate(records)
        if (record.topic, record.partition, record.kind) == (topic, 0, kind)
        and (kind != "task.state" or record.key == OPEN_TASK)
    ]


def without(topic: Topic, kind: str, which: int) -> Change:
    def change(records: list[Raw]) -> list[Raw]:
        at = places(records, topic, kind)[which]
        return [*records[:at], *records[at + 1 :]]

    return change


def changed(topic: Topic, kind: str, **data: object) -> Change:
    def change(records: list[Raw]) -> list[Raw]:
        at = places(records, topic, kind)[LAST]
        return [*records[:at], records[at].with_data(**data), *records[at + 1 :]]

    return change


def twice(topic: Topic, kind: str) -> Change:
    def change(records: list[Raw]) -> list[Raw]:
        return [*records, records[places(records, topic, kind)[LAST]]]

    return change


def with_id(identifier: str) -> Change:
    """Add a decision under an id that no input has."""

    def change(records: list[Raw]) -> list[Raw]:
        record = records[places(records, Topic.DECISIONS, "decision")[LAST]]
        envelope = record.envelope | {"id": identifier}
        return [*records, replace(record, value=msgspec.json.encode(envelope))]

    return change


def with_deletion(topic: Topic, kind: str) -> Change:
    def change(records: list[Raw]) -> list[Raw]:
        return [*records, replace(records[places(records, topic, kind)[LAST]], value=None)]

    return change


def moved_key(topic: Topic, kind: str) -> Change:
    def change(records: list[Raw]) -> list[Raw]:
        at = places(records, topic, kind)[LAST]
        return [*records[:at], replace(records[at], key=b"other"), *records[at + 1 :]]

    return change


def with_another_task(records: list[Raw]) -> list[Raw]:
    state = records[places(records, Topic.TASKS, "task.state")[LAST]]
    return [*records, replace(state.with_data(task_id="other"), key=b"other")]


def swapped(topic: Topic) -> Change:
    """Change the order of the last two records of a topic."""

    def change(records: list[Raw]) -> list[Raw]:
        ours = [
            index
            for index, record in enumerate(records)
            if record.topic is topic and record.partition == 0
        ]
        one, other = ours[-2:]
        copy = list(records)
        copy[one], copy[other] = copy[other], copy[one]
        return copy

    return change


def without_last_events(records: list[Raw]) -> list[Raw]:
    lost = [record for record in records if (record.topic, record.partition) == (Topic.EVENTS, 0)]
    return [record for record in records if record not in lost[-3:]]


def without_event(records: list[Raw]) -> list[Raw]:
    """Lose an input: what it caused is there without it. A later record keeps the offsets."""
    at = places(records, Topic.EVENTS, "phase.usage")[-2]  # of an ended task
    lost = replace(records[at], value=b"{}")
    return [*records[:at], lost, *records[at + 1 :]]


async def test_a_copy_without_damage_is_equal(settings: Settings, log: Log) -> None:
    result = await verified(settings, log, unchanged)
    assert [str(report.difference) for report in result.partitions] == ["None"] * PARTITIONS


@pytest.mark.parametrize(
    ("change", "problem", "topic", "field"),
    [
        pytest.param(
            without(Topic.DECISIONS, "decision", FIRST),
            "missing",
            Topic.DECISIONS,
            None,
            id="the first decision is gone",
        ),
        pytest.param(
            without(Topic.DECISIONS, "decision", LAST),
            "missing",
            Topic.DECISIONS,
            None,
            id="the last decision is gone",
        ),
        pytest.param(
            without(Topic.BREACHES, "breach", FIRST),
            "missing",
            Topic.BREACHES,
            None,
            id="a breach is gone",
        ),
        pytest.param(
            without(Topic.EXECUTIONS, "execution", LAST),
            "missing",
            Topic.EXECUTIONS,
            None,
            id="an execution is gone",
        ),
        pytest.param(
            without(Topic.LIFECYCLE, "lifecycle", LAST),
            "missing",
            Topic.LIFECYCLE,
            None,
            id="the last end is gone",
        ),
        pytest.param(
            without(Topic.DEAD_LETTERS, "dead_letter", LAST),
            "missing",
            Topic.DEAD_LETTERS,
            None,
            id="a dead letter is gone",
        ),
        pytest.param(
            without(Topic.TASKS, "policy.state", LAST),
            "missing",
            Topic.TASKS,
            None,
            id="a policy is gone",
        ),
        pytest.param(
            without(Topic.DECISIONS, "", FIRST),
            "missing",
            Topic.DECISIONS,
            None,
            id="a decision was not deleted",
        ),
        pytest.param(
            without(Topic.TASKS, "", FIRST),
            "extra",
            Topic.TASKS,
            None,
            id="a forgotten task is there",
        ),
        pytest.param(
            twice(Topic.DECISIONS, "decision"),
            "extra",
            Topic.DECISIONS,
            None,
            id="a decision twice",
        ),
        pytest.param(
            twice(Topic.BREACHES, "breach"), "extra", Topic.BREACHES, None, id="a breach twice"
        ),
        pytest.param(
            with_id("0-999999-0"),
            "extra",
            Topic.DECISIONS,
            None,
            id="a decision of an input that never was",
        ),
        pytest.param(
            with_id("made-up"),
            "extra",
            Topic.DECISIONS,
            None,
            id="a decision with an id of another kind",
        ),
        pytest.param(
            with_id("1-3-0"), "extra", Topic.DECISIONS, None, id="a decision of another partition"
        ),
        pytest.param(
            with_deletion(Topic.DECISIONS, "decision"),
            "extra",
            Topic.DECISIONS,
            None,
            id="a decision deleted",
        ),
        pytest.param(
            with_deletion(Topic.TASKS, "task.state"),
            "missing",
            Topic.TASKS,
            None,
            id="a task deleted",
        ),
        pytest.param(
            changed(Topic.DECISIONS, "decision", verdict="continue"),
            "changed",
            Topic.DECISIONS,
            "data.verdict",
            id="another verdict",
        ),
        pytest.param(
            changed(Topic.BREACHES, "breach", used=1),
            "changed",
            Topic.BREACHES,
            "data.used",
            id="another use",
        ),
        pytest.param(
            changed(Topic.EXECUTIONS, "execution", note="more"),
            "changed",
            Topic.EXECUTIONS,
            "data.note",
            id="a field more",
        ),
        pytest.param(
            changed(Topic.DEAD_LETTERS, "dead_letter", original="AAAA"),
            "changed",
            Topic.DEAD_LETTERS,
            "data.original",
            id="other bytes",
        ),
        pytest.param(
            changed(Topic.TASKS, "task.state", verdict="notice"),
            "changed",
            Topic.TASKS,
            "data.verdict",
            id="another verdict in a state",
        ),
        pytest.param(
            changed(Topic.TASKS, "partition.state", clock_ms=1),
            "changed",
            Topic.TASKS,
            "data.clock_ms",
            id="another clock",
        ),
        pytest.param(
            moved_key(Topic.LIFECYCLE, "lifecycle"),
            "changed",
            Topic.LIFECYCLE,
            "key",
            id="another key",
        ),
        pytest.param(
            with_another_task,
            "extra",
            Topic.TASKS,
            None,
            id="a state of a task that never was",
        ),
        pytest.param(
            swapped(Topic.LIFECYCLE), "missing", Topic.LIFECYCLE, None, id="another order"
        ),
        pytest.param(without_event, "missing", Topic.DEAD_LETTERS, None, id="another input"),
        pytest.param(without_last_events, "missing", Topic.EVENTS, None, id="fewer inputs"),
    ],
)
async def test_damage_is_found_and_named(
    settings: Settings, log: Log, change: Change, problem: str, topic: Topic, field: str | None
) -> None:
    result = await verified(settings, log, change)
    assert not result.equal
    differences = [report.difference for report in result.partitions]
    assert differences[1] is None, "only the first partition is damaged"
    difference = differences[0]
    assert difference is not None
    assert difference.topic == settings.topic(topic)
    assert difference.problem == problem
    if field is not None:
        assert difference.field == field


def checkpoints(log: Log) -> dict[int, int]:
    """Return the offset of the first checkpoint of each partition."""
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
    # One event before the checkpoint is still there: it is passed over.
    offsets = checkpoints(log)
    await remove_first_events(settings, {one: offset - 1 for one, offset in offsets.items()})
    result = await verify(settings)
    assert [str(report.difference) for report in result.partitions] == ["None"] * PARTITIONS
    for report in result.partitions:
        assert report.from_checkpoint
        assert report.first_offset == offsets[report.partition]
        assert report.unjudged_tasks == 1, "A-GROWN began before"
        assert report.compared["tasks"] >= 2, "B-OPEN or C-OPEN, and the partition's own"
        assert min(report.compared.values()) > 0


@pytest.mark.parametrize(
    ("change", "problem", "topic"),
    [
        pytest.param(
            without(Topic.BREACHES, "breach", LAST),
            "missing",
            Topic.BREACHES,
            id="a breach is gone",
        ),
        pytest.param(
            twice(Topic.DECISIONS, "decision"), "extra", Topic.DECISIONS, id="a decision twice"
        ),
        pytest.param(
            changed(Topic.EXECUTIONS, "execution", latency_ms=1),
            "changed",
            Topic.EXECUTIONS,
            id="another latency",
        ),
        pytest.param(
            changed(Topic.TASKS, "task.state", verdict="notice"),
            "changed",
            Topic.TASKS,
            id="another verdict in a state",
        ),
        pytest.param(
            without(Topic.DEAD_LETTERS, "dead_letter", LAST),
            "missing",
            Topic.DEAD_LETTERS,
            id="a dead letter is gone",
        ),
    ],
)
async def test_damage_after_the_checkpoint_is_found(
    settings: Settings, log: Log, change: Change, problem: str, topic: Topic
) -> None:
    await copy_log(settings, log, change)
    await remove_first_events(settings, checkpoints(log))
    difference = (await verify(settings)).partitions[0].difference
    assert difference is not None
    assert (difference.problem, difference.topic) == (problem, settings.topic(topic))


async def test_without_events_and_without_a_checkpoint_nothing_is_judged(
    settings: Settings, log: Log
) -> None:
    def without_checkpoints(records: list[Raw]) -> list[Raw]:
        return [
            record
            for record in records
            if record.topic is not Topic.LIFECYCLE
            or record.envelope["data"]["change"] != "partition_checkpoint"
        ]

    await copy_log(settings, log, without_checkpoints)
    await remove_first_events(settings, dict.fromkeys(range(PARTITIONS), 5))
    for report in (await verify(settings)).partitions:
        assert report.from_checkpoint
        assert report.first_offset == report.next_offset
        assert report.events == 0
