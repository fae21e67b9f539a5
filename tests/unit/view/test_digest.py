"""What the records of one read change in Redis."""

import msgspec
import pytest

from schemas.audit import Action, Audit
from schemas.fields import Fail, Metric, Mode, Scope, Verdict
from schemas.health import Health
from schemas.outputs import Breach, Cell, Heartbeat, InputRef, Lifecycle
from schemas.sketches import Histogram
from schemas.topics import Topic
from streams.view.changes import Changes
from streams.view.digest import Digest
from streams.view.keys import KEPT_DAYS, Keys
from tests.unit.view.records import DAY_MS, START_MS, Kept, execution, record, task

KEYS = Keys("t.")


def changes_of(topic: Topic, *records: Kept, partition: int = 0) -> Changes:
    digest = Digest(KEYS)
    digest.take(topic, partition, records)
    assert digest.wanted() == []
    return digest.changes({})


def breach(task_id: str, number: int) -> Kept:
    data = Breach(
        task_id=task_id,
        cell=Cell(Scope.TASK, Metric.TOKENS),
        used=number,
        limit=1,
        ratio=1.0,
        limits_version=1,
        level=Verdict.WARN,
        input=InputRef(0, number),
    )
    return record(task_id, data, at_ms=START_MS + number, number=number)


def test_of_a_tasks_states_the_last_one_is_kept_and_placed() -> None:
    first, last = task(used=3_000), task(used=4_500)
    changes = changes_of(Topic.TASKS, first, last)
    assert changes.fields == {KEYS.tasks: {b"TASK-1": last.value}}
    assert changes.scores == {KEYS.open: {b"TASK-1": 0.75}, KEYS.ended: {b"TASK-1": None}}


def test_a_task_that_has_ended_is_listed_among_those() -> None:
    changes = changes_of(Topic.TASKS, task(), task(status="ended"))
    assert changes.scores == {KEYS.open: {b"TASK-1": None}, KEYS.ended: {b"TASK-1": 0.5}}


def test_a_task_that_leaves_is_in_no_list() -> None:
    changes = changes_of(Topic.TASKS, task(), record("TASK-1", None))
    assert changes.fields == {KEYS.tasks: {b"TASK-1": None}}
    assert changes.scores == {KEYS.open: {b"TASK-1": None}, KEYS.ended: {b"TASK-1": None}}


@pytest.mark.parametrize(
    ("task_id", "subject"),
    [
        pytest.param("TASK-1", "report/TASK-1", id="a task's"),
        pytest.param(None, "TASK-1", id="of what names no task"),
    ],
)
def test_an_entry_of_the_audit_is_kept_under_what_it_is_about(
    task_id: str | None, subject: str
) -> None:
    said = Audit(subject=subject, action=Action.TASK_RECOVERED, by="ann", task_id=task_id)
    changes = changes_of(Topic.AUDIT, record(subject, said))
    assert list(changes.lists) == [KEYS.of_task("audit", "TASK-1")]


def test_a_child_is_found_by_its_parent() -> None:
    started = Lifecycle(change="started", task_id="TASK-2", parent_task_id="TASK-1")
    changes = changes_of(Topic.LIFECYCLE, record("TASK-2", started))
    assert changes.members == {KEYS.of_task("children", "TASK-1"): {b"TASK-2"}}
    assert changes.members.keys() <= changes.expiries_s.keys()


def test_a_policy_goes_with_the_last_task_of_its_partition_only() -> None:
    digest = Digest(KEYS)
    policy = record(
        "policy/abc", Heartbeat(mode=Mode.OBSERVE, fail=Fail.OPEN, clock="", next_offset=0)
    )
    digest.take(Topic.TASKS, 0, [policy])
    digest.take(Topic.TASKS, 1, [policy, record("policy/abc", None)])
    assert digest.changes({}).fields == {KEYS.policies: {b"0/abc": policy.value, b"1/abc": None}}


def test_a_record_that_cannot_be_read_is_counted_and_the_others_are_shown() -> None:
    bad = Kept(b"TASK-1", b'{"data":')
    good = breach("TASK-1", 2)
    changes = changes_of(Topic.BREACHES, bad, good)
    assert changes.lists == {KEYS.of_task("breaches", "TASK-1"): [good.value]}
    assert changes.counts == {(KEYS.unreadable, b"breaches"): 1}


@pytest.mark.parametrize("time", ["yesterday", "2026-13-40T00:00:00Z"])
def test_a_record_without_a_time_leaves_no_key_without_an_end(time: str) -> None:
    whole = execution()
    assert whole.value is not None
    document = msgspec.json.decode(whole.value)
    document["time"] = time
    changes = changes_of(Topic.EXECUTIONS, Kept(b"TASK-1", msgspec.json.encode(document)))
    assert changes.counts == {(KEYS.unreadable, b"executions"): 1}
    assert (changes.fields, changes.expiries_s) == ({}, {})


def test_a_record_whose_time_has_no_zone_is_counted_and_stands_in_no_feed() -> None:
    foreign = breach("TASK-1", 2)
    assert foreign.value is not None
    document = msgspec.json.decode(foreign.value) | {"time": "2026-11-22T21:00:00"}
    changes = changes_of(Topic.BREACHES, Kept(b"TASK-1", msgspec.json.encode(document)))
    assert changes.counts == {(KEYS.unreadable, b"breaches"): 1}
    assert changes.feeds == {}


def test_a_state_that_cannot_be_read_leaves_the_last_one_that_could() -> None:
    changes = changes_of(Topic.TASKS, Kept(b"TASK-1", b"{}"))
    assert not changes.fields
    assert changes.counts == {(KEYS.unreadable, b"tasks"): 1}


def test_the_history_of_a_task_ends_four_weeks_after_its_last_day() -> None:
    changes = changes_of(Topic.BREACHES, breach("TASK-1", 0))
    (end_s,) = changes.expiries_s.values()
    days = end_s - START_MS // DAY_MS * DAY_MS // 1000
    assert days == (KEPT_DAYS + 1) * DAY_MS // 1000


def test_transitions_are_added_up_by_hour_and_source() -> None:
    def said(source: str) -> Kept:
        return record(
            source, Health(source=source, transition_ms=Histogram(zeros=1, buckets={7: 2}))
        )

    changes = changes_of(Topic.HEALTH, said("a"), said("a"), said("b"))
    a, b = (KEYS.sketch("transitions", "2026-11-18T11", source) for source in "ab")
    assert changes.counts == {(a, b"zeros"): 2, (a, b"7"): 4, (b, b"zeros"): 1, (b, b"7"): 2}
    assert changes.expiries_s.keys() == {a, b}


def test_buckets_of_another_width_are_not_mixed_in() -> None:
    other = Health(source="a", transition_ms=Histogram(relative_error=0.02, buckets={7: 2}))
    changes = changes_of(Topic.HEALTH, record("a", other))
    assert changes.counts == {(KEYS.unreadable, b"health"): 1}


def test_where_a_partition_stands_is_no_change_of_a_task() -> None:
    checkpoint = Lifecycle(change="partition_checkpoint", partition=0)
    assert list(changes_of(Topic.LIFECYCLE, record("partition/0", checkpoint)).commands()) == []
