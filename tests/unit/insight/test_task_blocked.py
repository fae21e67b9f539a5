"""That a task comes to block is an alert of its own, and says whether it is held."""

from schemas.alerts import Alert
from schemas.envelope import Envelope
from tests.unit.budget.story import story
from tests.unit.insight.told import records
from tests.unit.insight.watching import Watcher, placed


def alerts_of(text: str) -> list[Envelope[Alert]]:
    return Watcher().read(placed(records(story(text)))).alerts


def test_block_is_critical_where_it_holds_somebody_and_a_warning_where_it_does_not() -> None:
    alerts = alerts_of("""
        start TASK-1 planned=THINK
        usage TASK-1 THINK 7_300          → warn
        usage TASK-1 THINK 5_200          → block
        mode  enforce
        mode  observe
        finish TASK-1
    """)
    at = "the task at 208 % of its token budget (12,500 of 6,000 tokens): "
    stop = "stop until someone investigates or grants more"
    assert [
        (alert.data.state, alert.data.severity, alert.data.message)
        for alert in alerts
        if alert.data.name == "task_blocked"
    ] == [
        ("firing", "warning", f"TASK-1 is at block, and not held (observe): {at}{stop}"),
        ("resolved", "warning", "TASK-1 is held from now on"),
        ("firing", "critical", f"TASK-1 is held: {at}{stop}"),
        ("resolved", "critical", "TASK-1 is no longer held"),
        ("firing", "warning", f"TASK-1 is at block, and not held (observe): {at}{stop}"),
        ("resolved", "warning", "TASK-1 has ended"),
    ]


def test_a_block_that_a_grant_takes_back_is_no_longer_one() -> None:
    *_, last = alerts_of("""
        start TASK-1 planned=THINK
        usage TASK-1 THINK 12_500         → block
        grant TASK-1 ×1.5                 → warn
    """)
    assert last.data.message == (
        "TASK-1 is no longer at block: the task at 138 % of its token budget "
        "(12,500 of 9,000 tokens): go on; this is logged"
    )
