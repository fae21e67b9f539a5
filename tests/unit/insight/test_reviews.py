"""Whoever says that a task is critical is asked about it within a day."""

import pytest
from msgspec.structs import replace

from schemas.alerts import Alert, Origin
from schemas.envelope import Envelope
from streams.budget.alert_rules import default_alert_rules
from streams.budget.policy import default_governance_rules
from streams.insight import reviews
from streams.insight.monitors import dropped
from streams.insight.signals import RulesSet
from streams.insight.windows import SCOPES_MAX
from tests.unit.budget.world import START_MS
from tests.unit.insight.signalling import Monitors, Teller, monitored


def test_a_justification_that_nobody_reviews_is_an_alert_a_day_later() -> None:
    said = monitored("""
        tick
        awaits TASK-1 why="it loses data" by=ann
        tick +23h
        tick +59m
        tick +1m                         → justification_unreviewed TASK-1 firing 1
        tick +1h
        settled TASK-1                   → justification_unreviewed TASK-1 resolved 2
    """)
    assert said.messages == [
        (
            "TASK-1 has been critical for 24 h, and nobody has reviewed why; ann says: it loses data; "
            "stoploss justify TASK-1 approve, or refuse"
        ),
        "TASK-1 is critical: approved by bob",
    ]
    (fired, _) = said.outcomes
    assert isinstance(fired, Envelope)
    assert isinstance(fired.data, Alert)
    assert (fired.data.task_id, fired.data.value, fired.data.threshold) == ("TASK-1", 24.0, 24.0)


@pytest.mark.parametrize("end", ["settled", "over"])
def test_what_was_reviewed_in_time_is_none(end: str) -> None:
    monitored(f"""
        tick
        awaits TASK-1
        {end} TASK-1 +23h
        tick +10d
    """)


def test_the_end_of_a_task_resolves_it_and_makes_room() -> None:
    monitors = monitored("""
        tick
        awaits TASK-1
        tick +1d                         → justification_unreviewed TASK-1 firing 1
        over TASK-1                      → justification_unreviewed TASK-1 resolved 2
    """)
    assert monitors.windows["justification_unreviewed/0"] == b"{}"


def test_another_reason_does_not_start_the_day_anew() -> None:
    monitored("""
        tick
        awaits TASK-1
        tick +23h
        awaits TASK-1 why="once more"
        tick +1h                         → justification_unreviewed TASK-1 firing 1
        awaits TASK-1 why="and again"
        tick +1h
    """)


def test_edges_are_counted_on_as_long_as_the_task_lives() -> None:
    monitored("""
        tick
        awaits TASK-1
        tick +1d                         → justification_unreviewed TASK-1 firing 1
        settled TASK-1                   → justification_unreviewed TASK-1 resolved 2
        tick +5d
        awaits TASK-1
        tick +23h
        tick +1h                         → justification_unreviewed TASK-1 firing 3
    """)


def test_a_policy_that_allows_more_time_takes_it_back() -> None:
    monitors, teller = Monitors(), Teller()
    monitors.take(teller.told("tick\nawaits TASK-1\ntick +25h"))
    patient = replace(default_governance_rules(), review_due_ms=2 * 86_400_000)
    origin = Origin("audit", 0, 0)
    rules = default_alert_rules()
    monitors.take([RulesSet(at_ms=START_MS, origin=origin, rules=rules, governance=patient)])
    assert monitors.edges == [
        "justification_unreviewed TASK-1 firing 1",
        "justification_unreviewed TASK-1 resolved 2",
    ]
    assert monitors.messages[-1] == "TASK-1 may wait for its review: 2 days are allowed now"


def test_what_is_settled_and_was_never_asked_for_changes_nothing() -> None:
    monitored("settled TASK-1\nover TASK-2\ntick +5d")


def test_a_partition_has_room_for_so_many_and_the_others_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reviews, "WAITING_MAX", 2)
    monitors = monitored("""
        tick
        awaits TASK-1
        awaits TASK-2
        awaits TASK-3
        awaits TASK-4 partition=1
    """)
    monitors.take(Teller().told("tick +1d"))
    assert monitors.edges == [
        f"justification_unreviewed TASK-{number} firing 1" for number in (1, 2, 4)
    ]
    assert dropped(monitors.windows) == {"reviews": 1}


def test_partitions_have_a_bound_as_well() -> None:
    lines = "\n".join(f"awaits TASK-1 partition={number}" for number in range(SCOPES_MAX + 1))
    monitors = monitored(f"tick\n{lines}")
    assert dropped(monitors.windows) == {"reviews": 1}
