"""Quantiles of what many measured: DDSketch's buckets and arithmetic over the wire's histogram.

Buckets are counts by index, so that histograms of any parts merge to that of the whole, in any order.
What a bucket stands for is a part of the wire: whoever reads histograms, agents or the view, has it here.
What comes from outside has bounds: an index beyond those of `VALUE_MIN` and `VALUE_MAX` counts at the
bound, since the library allots a bin to each index between the lowest and the highest.
"""

from collections.abc import Iterable, Sequence

from ddsketch.ddsketch import BaseDDSketch
from ddsketch.mapping import LogarithmicMapping
from ddsketch.store import DenseStore

from schemas.errors import InvalidFieldError
from schemas.fields import COUNT_MAX, LIMIT_MAX
from schemas.sketches import HISTOGRAM_BUCKETS_MAX, RELATIVE_ERROR, Histogram

VALUE_MIN = 1e-3  # at most this counts as zero
VALUE_MAX = float(LIMIT_MAX)

_MAPPING = LogarithmicMapping(RELATIVE_ERROR)
_INDEX_MIN = int(_MAPPING.key(VALUE_MIN))  # its upper end is VALUE_MIN or a little above
_INDEX_MAX = int(_MAPPING.key(VALUE_MAX))
# So a merged histogram passes its own schema, whatever was merged.
assert _INDEX_MAX - _INDEX_MIN + 1 <= HISTOGRAM_BUCKETS_MAX


def check_histogram(field: str, histogram: Histogram) -> Histogram:
    """Return a histogram that can be merged with ours.

    Raises:
        InvalidFieldError: its buckets are others, since its relative error is.
    """
    if histogram.relative_error != RELATIVE_ERROR:
        raise InvalidFieldError(
            f"{field}.relative_error", histogram.relative_error, f"{RELATIVE_ERROR}"
        )
    return histogram


def with_value(histogram: Histogram, value: float, count: int = 1) -> Histogram:
    """Return a histogram with a value more, measured `count` times."""
    if value <= VALUE_MIN:
        return merged(histogram, Histogram(zeros=count))
    index = int(_MAPPING.key(min(value, VALUE_MAX)))
    return merged(histogram, Histogram(buckets={index: count}))


def histogram_of(values: Iterable[float]) -> Histogram:
    """Return what was measured, each value once; the same as with one value after the other."""
    zeros = 0
    buckets: dict[int, int] = {}
    for value in values:
        if value <= VALUE_MIN:
            zeros += 1
        else:
            index = int(_MAPPING.key(min(value, VALUE_MAX)))
            buckets[index] = buckets.get(index, 0) + 1
    return Histogram(zeros=zeros, buckets=dict(sorted(buckets.items())))


def cumulative(histogram: Histogram) -> list[tuple[float, float]]:
    """Return the value of each bucket, and the share of all values that do not exceed it."""
    number, passed = count(histogram), histogram.zeros
    points = [(0.0, passed / number)] if passed else []
    for index, more in sorted(histogram.buckets.items()):
        passed += more
        points.append((float(_MAPPING.value(index)), passed / number))
    return points


def merged(*histograms: Histogram) -> Histogram:
    """Return what all of them measured: the same, whatever their order and grouping.

    A count stops at the highest one that a histogram may have.
    """
    zeros = 0
    buckets: dict[int, int] = {}
    for histogram in histograms:
        zeros += histogram.zeros
        for index, count in histogram.buckets.items():
            if _INDEX_MIN <= index <= _INDEX_MAX and count:
                buckets[index] = buckets.get(index, 0) + count
            elif index < _INDEX_MIN:
                zeros += count
            elif count:
                buckets[_INDEX_MAX] = buckets.get(_INDEX_MAX, 0) + count
    ordered = dict(sorted(buckets.items()))
    if max(ordered.values(), default=0) > COUNT_MAX:
        ordered = {index: min(count, COUNT_MAX) for index, count in ordered.items()}
    return Histogram(zeros=min(zeros, COUNT_MAX), buckets=ordered)


def count(histogram: Histogram) -> int:
    """Return how many values were measured."""
    return histogram.zeros + sum(histogram.buckets.values())


def quantile(histogram: Histogram, share: float) -> float | None:
    """Return the value that `share` of the values (0 to 1) do not exceed, within 1 %.

    None where nothing was measured.
    """
    return quantiles((histogram,), (share,))[0]


def quantiles(histograms: Iterable[Histogram], shares: Sequence[float]) -> list[float | None]:
    """Return several of what all histograms measured: most of the work is done once."""
    assert all(0 <= share <= 1 for share in shares), shares
    bounded = merged(*histograms)
    positive = DenseStore()
    # The bounds first: else it makes room, and moves all of its bins, again and again.
    for index in [*bounded.buckets][-1:]:
        positive.add(index, 0)
    for index, number in bounded.buckets.items():
        positive.add(index, number)
    sketch = BaseDDSketch(_MAPPING, positive, DenseStore(), bounded.zeros)
    values = (sketch.get_quantile_value(share) for share in shares)
    return [None if value is None else float(value) for value in values]
