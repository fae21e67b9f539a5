"""Tasks are watched from the first word about them until nothing more comes; the bound is a number."""

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alerts import Origin
from schemas.topics import Topic
from streams.insight import remembering
from streams.insight.remembering import CHUNK_TASKS_MAX, Kept, dropped, tell, tell_deletion
from streams.insight.task_alerts import REMEMBERED_MS
from tests.unit.budget.histories import examples
from tests.unit.budget.story import story
from tests.unit.budget.world import START_MS
from tests.unit.insight.told import records
from tests.unit.insight.watching import Placed, edge_text, placed

DECISIONS = Origin("decisions", 3, 1_000)


def told(text: str) -> list[Placed]:
    return placed(records(story(text)))


def taken(entries: dict[str, Kept], records: Iterable[Placed]) -> list[str]:
    """Tell records; return the edges."""
    edges = []
    for origin, (_, record) in records:
        alerts, _ = tell(entries, record, origin)
        edges += [edge_text(alert.data) for alert in alerts]
    return edges


def tasks(entries: dict[str, Kept]) -> set[str]:
    return {key.removeprefix("task/") for key in entries if key.startswith("task/")}


LIFE = """
    start  TASK-1 planned=THINK
    usage  TASK-1 THINK 7_300        → warn
    finish TASK-1
"""
# Another one has a bit of everything, so that all topics have been read to a day and an hour later.
LATER = """
    tick   +25h
    tick   +1h
    start  TASK-2 planned=THINK
    begin  TASK-2 THINK
    usage  TASK-2 THINK 7_300        → warn
    end    TASK-2 THINK
"""


def test_an_ended_task_is_forgotten_when_all_topics_are_a_day_on() -> None:
    entries: dict[str, Kept] = {}
    records = told(LIFE + LATER)
    taken(entries, records[:-1])
    assert tasks(entries) == {"TASK-1", "TASK-2"}
    taken(entries, records[-1:])
    assert tasks(entries) == {"TASK-2"}
    assert set(entries) == {"task/TASK-2", "turns"}
    assert dropped(entries) == 0


@pytest.mark.parametrize("silent", [Topic.DECISIONS, Topic.EXECUTIONS, Topic.LIFECYCLE])
def test_one_topic_that_is_not_read_so_far_holds_it(silent: Topic) -> None:
    entries: dict[str, Kept] = {}
    records = told(LIFE + LATER)
    late = [one for one in records if one[1][0] is not silent or one[1][1].subject == "TASK-1"]
    taken(entries, late)
    assert "TASK-1" in tasks(entries)


def test_one_record_forgets_a_few_and_the_next_ones_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody who reports late stands in the line twice, and is forgotten once."""
    monkeypatch.setattr(remembering, "CHUNK_TASKS_MAX", 1)
    entries: dict[str, Kept] = {}
    lives = "".join(f"start T-{n}\nusage T-{n} THINK 5\nfinish T-{n}\n" for n in range(4))
    records = told(lives + "usage T-0 THINK 5\n" + LATER)
    taken(entries, records[:-1])
    assert len(tasks(entries)) == 5
    taken(entries, records[-1:])
    assert tasks(entries) == {"T-2", "T-3", "TASK-2"}
    taken(entries, told("tick +80h\nstart TASK-3\nstart TASK-4"))
    assert tasks(entries) == {"TASK-2", "TASK-3", "TASK-4"}
    assert set(entries) == {f"task/TASK-{n}" for n in (2, 3, 4)} | {"turns"}


def test_one_whose_id_lives_again_is_kept() -> None:
    entries: dict[str, Kept] = {}
    taken(entries, told(LIFE + "tick +26h\nstart TASK-1\n" + LATER))
    assert "TASK-1" in tasks(entries)


def test_what_is_said_of_a_forgotten_task_is_forgotten_as_well() -> None:
    entries: dict[str, Kept] = {}
    life = told("""
        start  TASK-1 planned=THINK
        begin  TASK-1 THINK
        end    TASK-1 THINK
        usage  TASK-1 THINK 5
    """)
    run = [one for one in life if one[1][0] is Topic.EXECUTIONS]
    assert len(run) == 2
    taken(entries, run)
    assert tasks(entries) == {"TASK-1"}
    taken(entries, told("tick +30h" + LATER))
    assert "TASK-1" not in tasks(entries)


def test_decisions_that_are_read_when_all_else_is_forgotten_fire_and_resolve() -> None:
    """The ledger deletes the decisions of a task that it forgets: that is the last of them."""
    entries: dict[str, Kept] = {}
    decisions = [one for one in told(LIFE) if one[1][0] is Topic.DECISIONS]
    assert taken(entries, decisions) == ["budget_breach TASK-1 firing 1"]
    resolved = tell_deletion(entries, "TASK-1", DECISIONS, START_MS)
    assert [edge_text(one.data) for one in resolved] == ["budget_breach TASK-1 resolved 2"]
    assert resolved[0].data.origin == DECISIONS
    assert tell_deletion(entries, "TASK-1", DECISIONS, START_MS) == []
    assert tell_deletion(entries, "TASK-9", DECISIONS, START_MS) == []


def test_a_deletion_says_nothing_new_of_a_task_whose_end_was_read() -> None:
    entries: dict[str, Kept] = {}
    assert len(taken(entries, told(LIFE))) == 2
    assert tell_deletion(entries, "TASK-1", DECISIONS, START_MS) == []


def test_how_many_ended_tasks_are_kept_is_bounded_and_who_had_to_go_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remembering, "CHUNK_TASKS_MAX", 4)
    monkeypatch.setattr(remembering, "CHUNKS_MAX", 2)
    entries: dict[str, Kept] = {}
    crowd = "".join(f"start TASK-{n}\nfinish TASK-{n}\n" for n in range(16))
    taken(entries, told("start OPEN\n" + crowd))
    assert len(tasks(entries)) <= 3 * 4 + 1
    assert len(tasks(entries)) + dropped(entries) == 16 + 1
    assert {"OPEN", "TASK-15"} < tasks(entries)


CROWD = told(
    "".join(
        f"""
        start  TASK-{n} planned=THINK
        begin  TASK-{n} THINK
        usage  TASK-{n} THINK 7_300      → warn
        end    TASK-{n} THINK
        finish TASK-{n} +40m
        """
        for n in range(CHUNK_TASKS_MAX + 6)
    )
)
UNDISTURBED_ENTRIES: dict[str, Kept] = {}
taken(UNDISTURBED_ENTRIES, CROWD)
UNDISTURBED = tasks(UNDISTURBED_ENTRIES)


@examples(20)
@given(st.integers(0, len(CROWD)), st.integers(0, 60), st.floats(0, 1))
def test_a_crash_while_entries_are_written_leaves_nobody_behind(
    begin: int, count: int, written: float
) -> None:
    """A batch whose outputs are out, of whose entries the first are written, is told again."""
    entries: dict[str, Kept] = {}
    taken(entries, CROWD[:begin])
    batch = CROWD[begin : begin + count]
    changed = dict(entries)
    taken(changed, batch)
    keys = sorted({*entries, *changed})
    for key in keys[: round(len(keys) * written)]:
        if key in changed:
            entries[key] = changed[key]
        else:
            entries.pop(key, None)
    taken(entries, batch)
    taken(entries, CROWD[begin + count :])
    assert tasks(entries) >= UNDISTURBED
    in_line = [one.tasks for one in entries.values() if isinstance(one, remembering.Chunk)]
    assert tasks(entries) - UNDISTURBED <= {task for chunk in in_line for task in chunk}


def test_entries_travel_as_they_are() -> None:
    entries: dict[str, Kept] = {}
    taken(entries, CROWD[:50])
    packed = msgspec.json.encode(entries)
    assert msgspec.json.decode(packed, type=dict[str, Kept]) == entries


def test_a_task_is_remembered_longer_than_the_ledger_does() -> None:
    assert REMEMBERED_MS > 24 * 3_600_000
