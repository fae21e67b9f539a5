"""What a block saves on failed runs, against the honest work that it would stop."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.fields import Metric
from streams.insight.gate import WRONG_SHARE_MAX, Ended, Judged, JudgedTasks
from streams.insight.savings import (
    SHARES,
    TYPE_MIN,
    curve_of,
    point_at,
    saved_by,
    savings,
)
from streams.insight.split import HoldOut
from tests.unit.insight.gated import LIMIT, a_task, amounts, history, one, stop, would_be

HALF = HoldOut(0.5)
DRAWN = st.lists(
    st.tuples(st.sampled_from(Ended), st.integers(0, 150 * LIMIT), st.sampled_from("ab")),
    max_size=40,
)


def made(drawn: list[tuple[Ended, int, str]]) -> list[Judged]:
    return [
        a_task(number, ended, blocked=False, used=used, task_type=task_type)
        for number, (ended, used, task_type) in enumerate(drawn)
    ]


def runaways(count: int = 200, task_type: str = "codex") -> list[Judged]:
    """Return right tasks within their limit, and every fourth one failed and used 6 × its own."""
    return made(
        [
            (Ended.FAILED, 6 * LIMIT, task_type) if number % 4 == 0
            else (Ended.RIGHT, LIMIT * (50 + number % 60) // 100, task_type)
            for number in range(count)
        ]
    )  # fmt: skip


def test_a_run_of_which_the_calls_are_known_is_stopped_with_the_crossing_one() -> None:
    run = would_be(used=5 * LIMIT)
    assert saved_by(run, stop(2 * LIMIT, 2 * LIMIT + 7_000)) == {
        Metric.TOKENS: 3 * LIMIT - 7_000,
        Metric.LATENCY_MS: 3 * LIMIT // 1_000 - 7,
        Metric.COST_USD: 30 * LIMIT - 70_000,
    }


def test_a_run_of_which_only_totals_are_known_is_stopped_at_the_crossing_itself() -> None:
    run = would_be(used=5 * LIMIT, reports=1)
    # The one report crosses with all that was used: taken as it comes, nothing would be saved.
    assert saved_by(run, stop(2 * LIMIT, 5 * LIMIT)) == amounts(3 * LIMIT)


def test_a_point_has_what_a_block_there_would_have_done() -> None:
    found = made(
        [
            (Ended.FAILED, 5 * LIMIT, "a"),
            (Ended.UNFINISHED, LIMIT, "a"),
            (Ended.RIGHT, 3 * LIMIT, "a"),
            (Ended.FINISHED, LIMIT, "a"),
        ]
    )
    point = point_at(20_000, found)
    assert (point.times, point.tasks, point.blocked, point.wrong) == (2.0, 4, 2, 1)
    assert (point.wrong_share, point.saved_share) == (0.25, 0.5)
    assert point.saved == {Metric.TOKENS: 30_000, Metric.LATENCY_MS: 30_000, Metric.COST_USD: 0.3}


def test_time_and_money_that_nobody_has_told_are_not_saved_and_not_zero() -> None:
    untold = history("A", success=False, known=[Metric.TOKENS])
    timed = history("B", success=False, known=[Metric.TOKENS, Metric.LATENCY_MS])
    runs = [one(untold, would_be("A", 3 * LIMIT)), one(timed, would_be("B", 3 * LIMIT))]
    assert point_at(20_000, runs[:1]).saved == {Metric.TOKENS: 10_000}
    assert point_at(20_000, runs).saved == {Metric.TOKENS: 20_000, Metric.LATENCY_MS: 10_000}


def test_of_no_tasks_nothing_is_saved() -> None:
    point = point_at(20_000, [])
    assert (point.wrong_share, point.saved_share, point.interval.upper) == (0.0, 0.0, 1.0)


@given(DRAWN)
def test_a_later_block_stops_no_more_and_saves_no_more(drawn: list[tuple[Ended, int, str]]) -> None:
    curve = curve_of(made(drawn))
    assert [point.times for point in curve] == [share / 10_000 for share in SHARES]
    for earlier, later in itertools.pairwise(curve):
        assert later.blocked <= earlier.blocked
        assert later.wrong <= earlier.wrong
        assert later.saved_share <= earlier.saved_share
        assert all(amount <= earlier.saved[metric] for metric, amount in later.saved.items())


@given(DRAWN)
def test_no_block_saves_more_than_stopping_exactly_the_failed_runs_at_once(
    drawn: list[tuple[Ended, int, str]],
) -> None:
    found = savings(JudgedTasks(made(drawn)), HALF)
    for each in (found.total, *found.by_task_type):
        for point in each.curve:
            assert all(amount <= each.perfect[metric] for metric, amount in point.saved.items())
        if each.hindsight is not None:
            assert each.hindsight.wrong_share < WRONG_SHARE_MAX
            allowed = [point for point in each.curve if point.wrong_share < WRONG_SHARE_MAX]
            assert each.hindsight.saved_share == max(point.saved_share for point in allowed)
        if each.chosen is not None:
            assert each.chosen in each.curve
            if each.chosen.wrong_share < WRONG_SHARE_MAX and each.hindsight is not None:
                assert each.chosen.saved_share <= each.hindsight.saved_share


@given(DRAWN)
def test_the_kinds_of_work_are_parts_of_the_whole(drawn: list[tuple[Ended, int, str]]) -> None:
    found = savings(JudgedTasks(made(drawn)), HALF)
    for name in ("chosen_on", "judged_on", "failed", "evenly"):
        parts = sum(getattr(each, name) for each in found.by_task_type)
        assert parts == getattr(found.total, name)
    assert found.total.chosen_on + found.total.judged_on == len(drawn)


def test_the_share_is_chosen_on_one_part_and_judged_on_the_other() -> None:
    found = savings(JudgedTasks(runaways()), HALF).total
    assert found.chosen is not None
    # Honest tasks stay below 1.1 × their limits, so a block there stops what failed and nothing else.
    assert found.chosen.times == 1.1
    assert found.chosen.wrong == 0
    assert found.chosen.saved_share == pytest.approx(4.9 / 6)
    assert found.chosen == found.hindsight
    assert found.why == (
        "saves 81.7 % of what failed runs used where it was chosen, and 0.0 % are wrongly blocked"
    )
    assert found.chosen_on + found.judged_on == 200
    assert min(found.chosen_on, found.judged_on) > 80


def test_each_kind_of_work_has_a_share_of_its_own() -> None:
    tight = runaways(task_type="tight")
    wide = [
        a_task(1_000 + number, each.ended, blocked=False, used=used, task_type="wide")
        for number, each in enumerate(runaways())
        for used in [each.would_be.used[Metric.TOKENS] * 3]
    ]
    found = savings(JudgedTasks([*tight, *wide]), HALF)
    chosen = {each.task_type: each.chosen for each in found.by_task_type}
    assert {name: point and point.times for name, point in chosen.items()} == {
        "tight": 1.1,
        "wide": 3.5,
    }


def test_few_tasks_choose_nothing_and_it_is_said() -> None:
    few = runaways(TYPE_MIN)
    found = savings(JudgedTasks(few), HALF).total
    assert found.chosen is None
    assert found.why == f"{found.chosen_on} tasks to choose on, and it takes 20"


def test_without_failures_there_is_nothing_to_save() -> None:
    found = savings(JudgedTasks(made([(Ended.UNKNOWN, LIMIT, "a")] * 100)), HALF).total
    assert (found.chosen, found.hindsight, found.failed) == (None, None, 0)
    assert found.why == "no run is known to have failed: a block can save nothing that is known"


def test_where_honest_tasks_use_as_much_no_share_is_chosen() -> None:
    alike = made([(Ended.FAILED if n % 4 else Ended.RIGHT, 2 * LIMIT, "a") for n in range(100)])
    found = savings(JudgedTasks(alike), HALF).total
    assert (found.chosen, found.hindsight) == (None, None)
    assert found.why == "no share saves anything with fewer than 5 % wrongly blocked"


def test_it_is_counted_of_how_many_runs_only_totals_are_known() -> None:
    each = a_task(0, Ended.FAILED, blocked=False)
    total = Judged(each.task, each.ended, would_be("T-0", 3 * LIMIT, reports=1))
    found = savings(JudgedTasks([total]), HoldOut(1.0))
    assert (found.total.evenly, found.total.judged_on) == (1, 1)
    assert "spent evenly" in found.assumption
