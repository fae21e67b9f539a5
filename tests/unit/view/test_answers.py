"""Quantiles of buckets are those that DDSketch says of the values."""

import hypothesis
import hypothesis.strategies as st
import pytest
from ddsketch.ddsketch import DDSketch
from ddsketch.mapping import LogarithmicMapping

from schemas.quantiles import VALUE_MAX
from schemas.sketches import RELATIVE_ERROR, Histogram
from streams.view.answers import Quantiles, quantiles_of


def test_of_nothing_there_are_none() -> None:
    assert quantiles_of(Histogram()) == Quantiles(count=0)


def test_what_is_nearly_nothing_counts_as_zero() -> None:
    found = quantiles_of(Histogram(zeros=98, buckets={0: 2}))
    assert (found.count, found.p50, found.p95) == (100, 0.0, 0.0)
    assert found.p99 == pytest.approx(1.0, rel=RELATIVE_ERROR)


def test_an_index_that_no_value_has_counts_at_the_bound() -> None:
    found = quantiles_of(Histogram(buckets={0: 1, 10**9: 1, -(10**9): 2}))
    assert (found.count, found.p50) == (4, 0.0)
    assert found.p99 == pytest.approx(1.0, rel=RELATIVE_ERROR)
    highest = quantiles_of(Histogram(buckets={10**9: 1}))
    assert highest.p50 == pytest.approx(VALUE_MAX, rel=2 * RELATIVE_ERROR)


@hypothesis.given(values=st.lists(st.integers(1, 10_000_000), min_size=1, max_size=200))
def test_they_are_those_of_the_values_within_one_percent(values: list[int]) -> None:
    sketch = DDSketch(RELATIVE_ERROR)
    buckets: dict[int, int] = {}
    for value in values:
        sketch.add(value)
        index = LogarithmicMapping(RELATIVE_ERROR).key(value)
        buckets[index] = buckets.get(index, 0) + 1
    found = quantiles_of(Histogram(buckets=buckets))
    expected = [sketch.get_quantile_value(share) for share in (0.5, 0.95, 0.99)]
    assert [found.p50, found.p95, found.p99] == pytest.approx(expected)
