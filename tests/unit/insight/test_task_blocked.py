"""That a task comes to block is an alert of its own, and says whether it is held."""

from schemas.alerts import Alert
from schemas.envelope import Envelope
from tests.unit.budget.story import story
from tests.unit.insight.told import records
from tests.unit.insight.watching import Watcher, placed


def watched(text: str) -> Watcher:
    return Watcher().read(placed(records(story(text))))


def alerts_of(text: str) -> list[Envelope[Alert]]:
    return watched(text).alerts


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


def test_a_task_counts_as_blocked_once() -> None:
    signals = watched("""
        start  TASK-1 planned=THINK
        usage  TASK-1 THINK 12_500        → block
        grant  TASK-1 ×4                  → continue
        usage  TASK-1 THINK 40_000        → block
    """).signals
    assert [type(one).__name__ for one in signals].count("TaskBlocked") == 1
    assert [type(one).__name__ for one in signals].count("BlockClassed") == 2


def test_all_children_of_a_blocked_task_together_are_one_block_and_one_alert() -> None:
    children = "\n".join(f"start CHILD-{number} parent=TASK-1" for number in range(40))
    reader = watched(f"""
        start  TASK-1 planned=THINK
        {children}
        mode   enforce
        usage  TASK-1 THINK 12_500        → block; CHILD-0 block; CHILD-39 block
    """)
    assert reader.edges() == ["budget_breach TASK-1 firing 1", "task_blocked TASK-1 firing 1"]
    names = [type(one).__name__ for one in reader.signals]
    assert (names.count("TaskBlocked"), names.count("BlockClassed")) == (1, 1)
