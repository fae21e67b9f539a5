"""Two periods are compared by ranks; all of it is held against scipy and against its definition."""

import math
import random
from statistics import median

import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import InvalidFieldError
from streams.insight.intervals import Interval
from streams.insight.ranks import PERIOD_MIN, Comparison, compare

AMOUNTS = st.lists(
    st.integers(0, 40) | st.integers(0, 10**13), min_size=PERIOD_MIN, max_size=PERIOD_MIN + 12
)


def drawn(seed: int, count: int, mu: float) -> list[int]:
    """Return amounts of the log-normal kind that usage is of."""
    rng = random.Random(seed)
    return [round(rng.lognormvariate(mu, 0.8)) for _ in range(count)]


@given(AMOUNTS, AMOUNTS)
def test_shift_and_superiority_are_what_all_pairs_say(before: list[int], after: list[int]) -> None:
    found = compare(before, after)
    differences = [later - earlier for earlier in before for later in after]
    assert math.isclose(found.shift, median(differences), abs_tol=0.51)
    larger = sum((each > 0) + (each == 0) / 2 for each in differences)
    assert math.isclose(found.superiority, larger / len(differences))
    assert found.interval.lower in differences
    assert found.interval.upper in differences
    assert found.interval.lower <= found.shift <= found.interval.upper


@given(AMOUNTS, AMOUNTS)
def test_p_and_superiority_are_those_of_scipy(before: list[int], after: list[int]) -> None:
    found = compare(before, after)
    wanted = scipy.stats.mannwhitneyu(after, before, alternative="two-sided")
    # Amounts that are all equal have no p: scipy says so by not a number.
    assert found.p == pytest.approx(float(wanted.pvalue), nan_ok=True)
    assert found.superiority == pytest.approx(float(wanted.statistic) / len(before) / len(after))


@given(AMOUNTS, AMOUNTS, st.integers(0, 10**9), st.integers(1, 1_000))
def test_a_shift_moves_with_what_is_added_and_scales_with_the_unit(
    before: list[int], after: list[int], more: int, unit: int
) -> None:
    found = compare(before, after)
    moved = compare(before, [each + more for each in after])
    assert math.isclose(moved.shift, found.shift + more, rel_tol=1e-9, abs_tol=1e-6)
    scaled = compare([each * unit for each in before], [each * unit for each in after])
    assert math.isclose(scaled.shift, found.shift * unit, rel_tol=1e-9, abs_tol=1e-6)
    assert scaled.superiority == found.superiority
    assert scaled.p == pytest.approx(found.p, nan_ok=True)


@given(AMOUNTS, AMOUNTS)
def test_periods_the_other_way_round_say_the_opposite(before: list[int], after: list[int]) -> None:
    found, turned = compare(before, after), compare(after, before)
    assert math.isclose(turned.shift, -found.shift)
    assert turned.interval == Interval(-found.interval.upper, -found.interval.lower)
    assert math.isclose(turned.superiority, 1 - found.superiority)


@pytest.mark.parametrize(("before", "after"), [(20, 20), (30, 12), (100, 80)])
def test_the_interval_is_where_scipys_test_stops_rejecting(before: int, after: int) -> None:
    """An interval of a test has the shifts that the test, at that level, does not reject."""
    earlier, later = drawn(1, before, 10), drawn(2, after, 10.4)
    found = compare(earlier, later)

    def p_at(shift: float) -> float:
        moved = [each - shift for each in later]
        return float(scipy.stats.mannwhitneyu(moved, earlier, method="asymptotic").pvalue)

    width = found.interval.upper - found.interval.lower
    for end, inwards in ((found.interval.lower, 1), (found.interval.upper, -1)):
        assert p_at(end - inwards * width / 50) < 0.055
        assert p_at(end + inwards * width / 50) > 0.045


def test_the_interval_holds_the_true_shift_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(200):
        rng = random.Random(seed)
        before = [round(rng.gauss(10_000, 1_000)) for _ in range(25)]
        after = [round(rng.gauss(10_500, 1_000)) for _ in range(25)]
        interval = compare(before, after).interval
        held += interval.lower <= 500 <= interval.upper
    assert 183 <= held <= 198  # 95 % of 200, within three standard deviations


def test_a_period_of_less_usage_is_told_from_one_of_as_much() -> None:
    as_before = drawn(3, 120, 11)
    assert compare(as_before, drawn(4, 120, 10.5)).differs
    assert not compare(as_before, drawn(5, 120, 11)).differs
    assert compare(as_before, [each * 2 for each in as_before]).differs


def test_one_session_without_measure_moves_no_rank() -> None:
    before, after = drawn(6, 40, 10), drawn(7, 40, 10)
    with_one = [*sorted(after)[:-1], max(after) * 1_000]
    found, moved = compare(before, after), compare(before, with_one)
    assert abs(moved.superiority - found.superiority) <= 1 / len(after)
    assert moved.after_median == found.after_median
    assert sum(with_one) > 10 * sum(after)


def test_a_comparison_has_what_people_ask_for() -> None:
    before, after = [*range(100, 110)], [*range(110, 120)]
    found = compare(before, after)
    assert found == Comparison(
        before=10,
        after=10,
        before_median=104.5,
        after_median=114.5,
        shift=10.0,
        interval=Interval(7, 13),
        superiority=1.0,
        p=found.p,
    )
    assert found.p < 0.001


@settings(max_examples=5)
@given(st.integers(0, 1_000))
def test_long_periods_need_no_table_of_all_pairs(seed: int) -> None:
    before, after = drawn(seed, 3_000, 12), drawn(seed + 1, 3_000, 12)
    found = compare(before, [each + 50_000 for each in after])
    assert found.interval.lower < 50_000 < found.interval.upper or found.differs
    assert found.superiority > 0.5


@pytest.mark.parametrize(("before", "after", "named"), [(7, 30, "before"), (30, 7, "after")])
def test_a_period_of_a_few_tasks_is_refused(before: int, after: int, named: str) -> None:
    with pytest.raises(InvalidFieldError, match=rf"{named}: 7 is not allowed; use .* at least 8"):
        compare([*range(before)], [*range(after)])
