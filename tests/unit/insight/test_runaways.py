"""Which tasks ran away, where, and how sure the rate is."""

import pytest

from schemas.fields import Cause, Metric
from streams.insight.history import TaskHistory
from streams.insight.intervals import Interval, wilson
from streams.insight.runaways import RUNAWAY_RATIO, TASKS_MIN, find_runaways
from tests.unit.insight.histories import a_run, a_task, tokens_of


def usual(count: int, task_type: str = "agent") -> list[TaskHistory]:
    return [
        a_task(
            f"{task_type}-{number}",
            a_run("THINK", tokens=600),
            a_run("VERIFY", tokens=400),
            task_type=task_type,
        )
        for number in range(count)
    ]


def test_a_task_above_twice_what_three_in_four_use_ran_away() -> None:
    far = a_task("far", a_run("THINK", tokens=700), a_run("VERIFY", Cause.ITERATION, tokens=2_300))
    answer = find_runaways([*usual(39), far])
    (one,) = answer.named
    assert (one.task_id, one.phase, one.cause) == ("far", "VERIFY", Cause.ITERATION)
    assert one.used == 3_000
    assert one.ratio == pytest.approx(3, rel=0.01)
    assert (answer.tasks, answer.runaways, answer.share) == (40, 1, 1 / 40)
    assert answer.interval == wilson(1, 40)


def test_exactly_twice_is_not_above() -> None:
    p75 = find_runaways(usual(40)).kinds[0].p75
    assert p75 is not None
    at = a_task("at", a_run("THINK", tokens=RUNAWAY_RATIO * p75))
    assert find_runaways([*usual(40), at]).named == []


def test_each_kind_is_judged_by_its_own() -> None:
    large = [
        a_task(f"L-{number}", a_run("THINK", tokens=9_000), task_type="large")
        for number in range(TASKS_MIN)
    ]
    answer = find_runaways([*usual(30), *large])
    assert answer.named == []
    assert [(kind.task_type, kind.tasks) for kind in answer.kinds] == [("agent", 30), ("large", 20)]


def test_a_kind_of_few_tasks_is_not_judged() -> None:
    far = a_task("far", a_run("THINK", tokens=99_000), task_type="few")
    answer = find_runaways([*usual(18, "few"), far])
    (kind,) = answer.kinds
    assert (kind.is_judged, kind.tasks, kind.runaways, kind.interval) == (
        False,
        19,
        0,
        Interval(0.0, 1.0),
    )
    assert (answer.tasks, answer.share, answer.named) == (0, 0.0, [])


def test_a_task_of_unknown_use_is_counted_and_not_judged() -> None:
    answer = find_runaways([*usual(25), a_task("unknown", a_run("THINK", latency_ms=5))])
    assert (answer.kinds[0].tasks, answer.kinds[0].known, answer.tasks) == (26, 25, 25)


def test_what_nothing_is_known_of_has_no_usual_amount() -> None:
    (kind,) = find_runaways(usual(25), Metric.COST_USD).kinds
    assert (kind.known, kind.p75) == (0, None)


def test_a_task_is_judged_with_all_that_tasks_below_it_used() -> None:
    root = a_task("root", a_run("THINK", tokens=600), used={Metric.TOKENS: 9_600_000})
    child = a_task("child", a_run("VERIFY", Cause.INEFFICIENT, tokens=9_000), parent_id="root")
    (one,) = find_runaways([*usual(39), root, child]).named
    assert (one.task_id, one.phase, one.cause) == ("root", "VERIFY", Cause.INEFFICIENT)


def test_a_task_whose_runs_do_not_count_has_no_phase_to_name() -> None:
    far = a_task("far", used={Metric.TOKENS: 9_000_000})
    (one,) = find_runaways([*usual(39), far]).named
    assert (one.phase, one.cause) == (None, None)


def test_the_worst_comes_first_and_tasks_without_a_type_are_a_kind() -> None:
    tasks = tokens_of(*[100] * 38, 900, 500, task_type=None)
    answer = find_runaways(tasks)
    assert [one.used for one in answer.named] == [900, 500]
    assert answer.kinds[0].task_type is None


def test_where_nothing_at_all_was_used_nothing_ran_away() -> None:
    answer = find_runaways(tokens_of(*[0] * 30, 5))
    assert [(one.used, one.ratio) for one in answer.named] == [(5, 0.0)]
