"""Histograms merge exactly, in any order, and their quantiles are within 1 %."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InvalidFieldError
from schemas.fields import COUNT_MAX
from schemas.quantiles import (
    VALUE_MAX,
    VALUE_MIN,
    check_histogram,
    count,
    cumulative,
    histogram_of,
    merged,
    quantile,
    with_value,
)
from schemas.sketches import HISTOGRAM_BUCKETS_MAX, RELATIVE_ERROR, Histogram

VALUES = st.floats(min_value=0, max_value=1e9)
AMOUNTS = st.floats(min_value=1, max_value=1e9)
HISTOGRAMS = st.builds(
    Histogram,
    zeros=st.integers(0, COUNT_MAX),
    buckets=st.dictionaries(
        st.integers(-(10**12), 10**12) | st.integers(-400, 1_800),
        st.integers(0, COUNT_MAX),
        max_size=8,
    ),
)


def measured(*values: float) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram = with_value(histogram, value)
    return histogram


@given(st.lists(VALUES, min_size=1, max_size=60), st.sampled_from([0.0, 0.5, 0.75, 0.95, 1.0]))
def test_a_quantile_is_within_one_percent_of_the_value_at_its_rank(
    values: list[float], share: float
) -> None:
    found = quantile(measured(*values), share)
    exact = sorted(values)[math.floor(share * (len(values) - 1))]
    assert found is not None
    assert abs(found - exact) <= max(RELATIVE_ERROR * exact * 1.0001, VALUE_MIN)


@given(st.lists(VALUES, max_size=30), st.data())
def test_parts_merge_to_the_whole_in_any_order(values: list[float], data: st.DataObject) -> None:
    whole = measured(*values)
    shuffled = data.draw(st.permutations(values))
    cut = data.draw(st.integers(0, len(values)))
    parts = measured(*shuffled[:cut]), measured(*shuffled[cut:])
    assert merged(*parts) == merged(*reversed(parts)) == whole
    assert count(whole) == len(values)


@given(HISTOGRAMS, HISTOGRAMS, HISTOGRAMS)
def test_what_others_send_merges_in_any_grouping(a: Histogram, b: Histogram, c: Histogram) -> None:
    assert merged(a, merged(b, c)) == merged(merged(c, a), b) == merged(a, b, c)


@given(HISTOGRAMS)
def test_what_is_merged_is_a_histogram_that_can_be_read_again(histogram: Histogram) -> None:
    found = merged(histogram, histogram)
    assert len(found.buckets) <= HISTOGRAM_BUCKETS_MAX
    assert msgspec.json.decode(msgspec.json.encode(found), type=Histogram) == found


@pytest.mark.parametrize(
    ("value", "counted"),
    [
        pytest.param(-5.0, Histogram(zeros=1), id="less than nothing"),
        pytest.param(0.0, Histogram(zeros=1), id="nothing"),
        pytest.param(VALUE_MIN, Histogram(zeros=1), id="a thousandth"),
        pytest.param(1.0, Histogram(buckets={0: 1}), id="one"),
        pytest.param(1.0001, Histogram(buckets={1: 1}), id="a little more than one"),
        pytest.param(VALUE_MAX * 1e9, Histogram(buckets={1_727: 1}), id="more than anything"),
    ],
)
def test_where_a_value_is_counted(value: float, counted: Histogram) -> None:
    assert with_value(Histogram(), value) == counted


def test_a_value_may_be_counted_many_times_at_once() -> None:
    assert with_value(measured(250), 250, 9) == measured(*[250] * 10)


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile(Histogram(), 0.95) is None
    assert quantile(Histogram(buckets={5: 0}), 0.95) is None


def test_buckets_far_apart_take_no_memory() -> None:
    far = Histogram(buckets={-(10**12): 3, 10**12: 1})
    assert merged(far) == Histogram(zeros=3, buckets={1_727: 1})
    assert quantile(far, 0.5) == 0
    assert quantile(far, 1) == pytest.approx(VALUE_MAX, rel=RELATIVE_ERROR)


def test_a_histogram_with_other_buckets_is_refused() -> None:
    ours = measured(1)
    assert check_histogram("data.transition_ms", ours) is ours
    with pytest.raises(
        InvalidFieldError,
        match=r"^data.transition_ms.relative_error: 0.02 is not allowed; use 0.01$",
    ):
        check_histogram("data.transition_ms", Histogram(relative_error=0.02))


@given(st.lists(AMOUNTS, min_size=1, max_size=300), st.sampled_from([0.5, 0.75, 0.9, 0.99]))
def test_a_quantile_is_within_1_percent_of_the_exact_one(values: list[float], share: float) -> None:
    # One of the two values that stand beside the place: between them nothing was measured.
    exact = [float(np.quantile(values, share, method=method)) for method in ("lower", "higher")]
    found = quantile(histogram_of(values), share)
    assert found is not None
    assert any(found == pytest.approx(each, rel=0.0101) for each in exact)


@given(st.lists(AMOUNTS, max_size=100))
def test_values_at_once_are_the_same_as_one_after_the_other(values: list[float]) -> None:
    one_by_one = Histogram()
    for value in values:
        one_by_one = with_value(one_by_one, value)
    assert histogram_of(values) == one_by_one


def test_a_cumulative_share_ends_at_all_and_begins_with_what_is_zero() -> None:
    points = cumulative(histogram_of([0, 100, 100, 200]))
    assert [share for _, share in points] == [0.25, 0.75, 1.0]
    assert [value for value, _ in points] == pytest.approx([0, 100, 200], rel=0.01)
    assert cumulative(Histogram()) == []
