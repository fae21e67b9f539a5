"""Every change of a task's class or limits has an entry: who, when, from, to, why."""

import pytest

from schemas.alerts import Origin
from schemas.audit import Action, Audit
from schemas.topics import Topic
from streams.insight.audit_trail import audit_of
from tests.unit.budget.story import story
from tests.unit.insight.told import records

ORIGIN = Origin("lifecycle", 3, 17)


def trail(text: str) -> list[Audit]:
    """Tell a history; return its entries."""
    found = [
        audit_of(record, ORIGIN)
        for topic, record in records(story(text))
        if topic is Topic.LIFECYCLE
    ]
    return [entry.data for entry in found if entry is not None]


def test_a_reclassification_says_from_what_to_what_by_whom_and_why() -> None:
    (entry,) = trail("""
        start      TASK-1 importance=low
        reclassify TASK-1 importance=critical by=ann reason="it loses data"
    """)
    assert entry == Audit(
        subject="TASK-1",
        action=Action.TASK_RECLASSIFIED,
        by="ann",
        reason="it loses data",
        task_id="TASK-1",
        before={"complexity": "medium", "importance": "low"},
        after={
            "complexity": "medium",
            "importance": "critical",
            "budgeted_importance": "critical",
        },
        origin=ORIGIN,
    )


@pytest.mark.parametrize(
    ("event", "action", "by", "reason", "after"),
    [
        pytest.param(
            "grant TASK-1 ×2 by=ann reason=rush",
            "task_granted",
            "ann",
            "rush",
            {"THINK.latency_ms": "270000", "THINK.tokens": "12000"},
            id="a grant has the limits that hold now",
        ),
        pytest.param(
            'explain TASK-1 "half was research" phase=THINK',
            "task_explained",
            "ada",
            "half was research",
            {"phase": "THINK"},
            id="an explanation has its text",
        ),
        pytest.param(
            "recover TASK-1 end_task by=ann reason=stuck",
            "task_recovered",
            "ann",
            "stuck",
            {"action": "end_task"},
            id="a recovery has what was done",
        ),
        pytest.param(
            "review TASK-1 refuse reason=no",
            "justification_reviewed",
            "ada",
            "no",
            {"approved": "no", "budgeted_importance": "medium"},
            id="a review has its answer",
        ),
        pytest.param(
            "review TASK-1 approve reason=yes",
            "justification_reviewed",
            "ada",
            "yes",
            {"approved": "yes"},
            id="also where it is yes",
        ),
    ],
)
def test_each_change_has_its_own_entry(
    event: str, action: str, by: str, reason: str, after: dict[str, str]
) -> None:
    (entry,) = trail(f"start TASK-1 planned=THINK owner=bob\n{event}")
    assert (entry.action, entry.by, entry.reason) == (action, by, reason)
    assert after.items() <= entry.after.items()


@pytest.mark.parametrize(
    ("start", "flags"),
    [
        pytest.param('importance=critical why="it loses data"', [], id="critical, justified"),
        pytest.param("importance=critical", ["critical_unjustified"], id="critical, unjustified"),
        pytest.param("override.THINK.tokens=1", ["override_below_limit"], id="an override below"),
        pytest.param("override.THINK.tokens=-1", ["overrides_refused"], id="a refused override"),
    ],
)
def test_a_start_that_asks_for_something_special_has_an_entry(start: str, flags: list[str]) -> None:
    (entry,) = trail(f"start TASK-1 {start} owner=bob")
    assert (entry.action, entry.by, entry.flags) == ("task_classified", "bob", flags)


@pytest.mark.parametrize("answer", ["refuse", "approve"])
def test_a_review_without_a_reason_does_not_take_the_justification_for_one(answer: str) -> None:
    started, reviewed = trail(f"""
        start  TASK-1 importance=critical why="it loses data" owner=bob
        review TASK-1 {answer} by=ann
    """)
    assert (started.by, started.reason) == ("bob", "it loses data")
    assert (reviewed.by, reviewed.reason) == ("ann", None)


def test_ordinary_starts_and_ends_have_none() -> None:
    assert (
        trail("start TASK-1 importance=high\nusage TASK-1 THINK 1\nfinish TASK-1 completed") == []
    )


def test_the_entry_of_a_record_has_an_id_of_its_own_and_the_records_time() -> None:
    told = records(story("start TASK-1\ngrant TASK-1 ×2"))
    (record,) = [record for _, record in told if record.data.change == "granted"]
    entry = audit_of(record, ORIGIN)
    assert entry is not None
    assert (entry.id, entry.time, entry.subject) == (f"audit-{record.id}", record.time, "TASK-1")


def test_what_nobody_signed_is_by_somebody_unknown() -> None:
    (entry,) = trail("start TASK-1 importance=critical")
    assert entry.by == "unknown"
