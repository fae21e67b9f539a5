"""Intervals of shares are those of scipy, and no surer than the spec says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from streams.insight.intervals import Interval, wilson

COUNTS = st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_is_that_of_scipy(counts: tuple[int, int], confidence: float) -> None:
    successes, trials = counts
    expected = binomtest(successes, trials).proportion_ci(confidence, "wilson")
    found = wilson(successes, trials, confidence)
    assert found.lower == pytest.approx(expected.low, abs=1e-12)
    assert found.upper == pytest.approx(expected.high, abs=1e-12)


@given(COUNTS)
def test_the_share_lies_in_its_interval_and_that_among_all_shares(counts: tuple[int, int]) -> None:
    successes, trials = counts
    found = wilson(successes, trials)
    assert 0 <= found.lower <= successes / trials <= found.upper <= 1


@given(COUNTS)
def test_what_did_not_happen_has_the_mirrored_interval(counts: tuple[int, int]) -> None:
    successes, trials = counts
    one, other = wilson(successes, trials), wilson(trials - successes, trials)
    assert one.lower == pytest.approx(1 - other.upper, abs=1e-12)


@pytest.mark.parametrize(
    ("successes", "trials", "is_below"),
    [
        pytest.param(0, 50, False, id="0 of 50 may be 7.1 %"),
        pytest.param(0, 72, False, id="72 without one are one too few"),
        pytest.param(0, 73, True, id="73 without one are enough"),
        pytest.param(1, 110, True, id="1 of 110"),
        pytest.param(2, 110, False, id="2 of 110"),
    ],
)
def test_how_many_tasks_it_takes_to_be_sure_of_less_than_5_percent(
    successes: int, trials: int, *, is_below: bool
) -> None:
    assert (wilson(successes, trials).upper < 0.05) is is_below


def test_the_upper_end_of_0_in_50_is_7_1_percent() -> None:
    assert round(wilson(0, 50).upper, 3) == 0.071


def test_where_nothing_was_tried_everything_is_possible() -> None:
    assert wilson(0, 0) == Interval(0.0, 1.0)
