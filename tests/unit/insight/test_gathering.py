"""What is due of a task that has ended is the same in whatever order its records are read."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alerts import Origin
from schemas.envelope import Envelope, rfc3339
from schemas.outputs import Lifecycle
from schemas.topics import DAY_MS, Topic
from streams.insight import gathering
from streams.insight.gathering import (
    TASK,
    TOPICS,
    WHERE,
    Entry,
    Task,
    Where,
    fold_told,
)
from tests.unit.budget.story import story
from tests.unit.budget.world import START_MS
from tests.unit.insight.gathered import PARTITION, Gathering, numbered
from tests.unit.insight.told import facts_of, records

HOUR_MS = 3_600_000
FAMILY = """
    start  TASK-1 planned=THINK
    start  TASK-2 parent=TASK-1 planned=THINK
    start  TASK-3 parent=TASK-2 planned=THINK
    begin  TASK-3 THINK
    usage  TASK-3 THINK 5_000 cost=0.25
    end    TASK-3 THINK completed ms=20000
    finish TASK-3 completed
    finish TASK-2 completed
    usage  TASK-1 THINK 13_000
    end    TASK-1 THINK completed ms=20000
    finish TASK-1 completed
    start  TASK-4
"""
TOLD = numbered(records(story(FAMILY)))


def told_at(
    at_ms: int, offset: int, topic: Topic = Topic.LIFECYCLE
) -> tuple[Topic, int, Envelope[Lifecycle]]:
    """A checkpoint of a partition: it tells the time, and of no task."""
    record = Envelope(
        id=f"{PARTITION}-{10**9 + offset}-0",
        source="ledger",
        type="stoploss.lifecycle",
        subject=f"partition/{PARTITION}",
        time=rfc3339(at_ms),
        data=Lifecycle(change="partition_checkpoint"),
    )
    return topic, 10**6 + offset, record


def tasks_in(room: Gathering) -> dict[str, Entry]:
    return {key: entry for key, entry in room.entries.items() if key.startswith(TASK)}


def all_topics_at(at_ms: int, offset: int) -> list[tuple[Topic, int, Envelope[Lifecycle]]]:
    return [told_at(at_ms, offset, topic) for topic in TOPICS]


def test_what_is_due_is_the_task_and_what_all_below_it_have_used() -> None:
    room = Gathering()
    room.batch(TOLD)
    due = room.last_due
    assert due.keys() == {"TASK-1", "TASK-2", "TASK-3"}
    assert [(due[task].below.tokens, float(due[task].below.cost_usd)) for task in sorted(due)] == [
        (5_000, 0.25),
        (5_000, 0.25),
        (0, 0),
    ]
    facts = facts_of((topic, record) for topic, _, record in TOLD)["TASK-1"]
    facts.children = {}
    assert due["TASK-1"].facts == facts


def test_each_task_is_due_once_a_batch_and_not_without_a_change() -> None:
    room = Gathering()
    said = room.batch(TOLD)
    assert [one.facts.task_id for one in said] == [
        "TASK-1",
        "TASK-2",
        "TASK-3",
    ]
    assert room.batch(TOLD) == []
    assert room.batch([]) == []
    (child,) = [
        each for each in TOLD if each[0] is Topic.EXECUTIONS and each[2].data.task_id == "TASK-3"
    ]
    topic, offset, record = child
    later = Envelope(
        id="3-900-0",
        source=record.source,
        type=record.type,
        subject=record.subject,
        time=rfc3339(START_MS + HOUR_MS),
        data=record.data,
    )
    said = room.batch([(topic, offset + 100, later)])
    assert [one.facts.task_id for one in said] == [
        "TASK-3",
        "TASK-2",
        "TASK-1",
    ]
    assert {one.at_ms for one in said} == {START_MS + HOUR_MS}
    assert room.batch([(topic, offset + 101, record)]) == [], "an earlier revision changes nothing"


@given(st.integers(0, 2**32))
def test_whatever_is_read_first_and_twice_the_last_that_is_due_is_the_same(seed: int) -> None:
    straight, chance = Gathering(), random.Random(seed)
    straight.batch(TOLD)
    room = Gathering()
    queues = {topic: [each for each in TOLD if each[0] is topic] for topic in TOPICS}
    while any(queues.values()):
        topic = chance.choice([each for each in TOPICS if queues[each]])
        count = chance.randint(1, len(queues[topic]))
        before = dict(room.stored)
        room.batch(queues[topic][:count])
        if chance.random() < 0.3:  # a crash: some entries are kept, in the order of their keys
            after = room.stored
            changed = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
            for key in changed[chance.randint(0, len(changed)) :]:
                if key in before:
                    after[key] = before[key]
                else:
                    del after[key]
        else:
            del queues[topic][:count]
    assert room.last_due == straight.last_due
    assert tasks_in(room) == tasks_in(straight)


def test_a_task_is_forgotten_25_hours_after_its_end_by_the_time_of_all_topics() -> None:
    room = Gathering()
    room.batch(TOLD)
    room.batch([told_at(START_MS + 26 * HOUR_MS, 0)])
    assert f"{TASK}TASK-1" in room.entries, "executions may be read later"
    room.batch(all_topics_at(START_MS + 26 * HOUR_MS, 1))
    room.batch(all_topics_at(START_MS + 26 * HOUR_MS, 2))
    kept = room.entries
    assert [key for key in kept if key.startswith(TASK)] == [f"{TASK}TASK-4"], "it is open"
    assert sum(key.startswith("listed/") for key in kept) == 1


def test_an_open_task_that_nothing_is_heard_of_is_forgotten_after_a_month() -> None:
    room = Gathering()
    room.batch(TOLD)
    for day in range(1, 34):
        room.batch(all_topics_at(START_MS + day * DAY_MS, day))
    room.batch(all_topics_at(START_MS + 34 * DAY_MS, 34))
    assert room.entries.keys() == {WHERE}


def test_topics_that_are_silent_for_a_month_are_not_waited_for() -> None:
    room = Gathering()
    room.batch(TOLD)
    for offset, days in enumerate((20, 40, 40)):
        room.batch([told_at(START_MS + days * DAY_MS, offset)])
    assert f"{TASK}TASK-1" not in room.entries


def test_what_a_batch_has_changed_is_not_forgotten_with_it() -> None:
    room = Gathering()
    room.batch(TOLD[:-1])
    ends = [each for each in TOLD if each[0] is Topic.LIFECYCLE][-1:]
    (topic, offset, record) = ends[0]
    record = Envelope(
        id="3-900-0", source="", type=record.type, subject="TASK-1",
        time=record.time, data=Lifecycle(task_id="TASK-1", change="explained", by="ann", text="why"),
    )  # fmt: skip
    room.batch([(topic, offset, record), *all_topics_at(START_MS + 26 * HOUR_MS, 1)])
    assert room.last_due["TASK-1"].facts.explanations[0].text == "why"
    assert f"{TASK}TASK-1" in room.entries
    for offset in (2, 3):
        room.batch(all_topics_at(START_MS + 26 * HOUR_MS + offset * 60_000, offset))
    assert f"{TASK}TASK-1" not in room.entries


def test_where_there_is_no_room_tasks_are_refused_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gathering, "ENTRIES_MAX", 3)
    monkeypatch.setattr(gathering, "ENTRIES_FULL", 9)
    room = Gathering()
    room.batch(TOLD)
    where = room.entries[WHERE]
    assert isinstance(where, Where)
    assert where.refused > 0
    assert tasks_in(room).keys() == {f"{TASK}TASK-1"}, "beside its list and where we are"


def test_where_room_is_short_tasks_that_have_ended_are_forgotten_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gathering, "ENTRIES_FULL", 2)
    room = Gathering()
    room.batch(TOLD)
    assert sum(key.startswith(TASK) for key in room.entries) == 4, "the batch has changed them"
    room.batch([told_at(START_MS, 0)])
    assert [key for key in room.entries if key.startswith(TASK)] == [f"{TASK}TASK-4"]
    where = room.entries[WHERE]
    assert isinstance(where, Where)
    assert where.forgotten_early == 3


def test_a_task_that_says_to_be_below_itself_is_told_once() -> None:
    kept: dict[str, object] = {}
    said = Lifecycle(task_id="A", change="ended", parent_task_id="A")
    record = Envelope(
        id="3-1-0", source="", type="", subject="A", time=rfc3339(START_MS), data=said
    )
    fold_told(kept, Origin(Topic.LIFECYCLE, PARTITION, 0), record)
    (due,) = gathering.finish(kept, list(kept))
    task = kept[f"{TASK}A"]
    assert isinstance(task, Task)
    assert (due.below.tokens, list(task.facts.children)) == (0, ["A"])
