"""Quantiles of histograms that were added up bucket by bucket; the buckets are DDSketch's."""

from collections.abc import Mapping

from ddsketch.mapping import LogarithmicMapping
from msgspec import Struct

from schemas.sketches import RELATIVE_ERROR

_MAPPING = LogarithmicMapping(RELATIVE_ERROR)


class Quantiles(Struct, frozen=True, kw_only=True):
    """How many there were, and what half, 95 % and 99 % of them stay below; 1 % relative error.

    In the unit of the histogram; None where there were none.
    """

    count: int
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


def quantiles(zeros: int, buckets: Mapping[int, int]) -> Quantiles:
    """Return the quantiles of a histogram; `zeros` counts what is at most 0.001."""
    count = zeros + sum(buckets.values())
    if count == 0:
        return Quantiles(count=0)
    p50, p95, p99 = (_quantile(share, count, zeros, buckets) for share in (0.5, 0.95, 0.99))
    return Quantiles(count=count, p50=p50, p95=p95, p99=p99)


def _quantile(share: float, count: int, zeros: int, buckets: Mapping[int, int]) -> float:
    """Return the value of the bucket in which the rank falls, as DDSketch does."""
    rank = share * (count - 1)
    below = zeros
    if rank < below:
        return 0.0
    for index in sorted(buckets):
        below += buckets[index]
        if rank < below:
            return float(_MAPPING.value(index))
    raise AssertionError("a rank is below the count")
