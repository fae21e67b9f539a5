"""Quantiles that merge exactly: the counts of DDSketch's logarithmic buckets."""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.fields import Count

RELATIVE_ERROR = 0.01
HISTOGRAM_BUCKETS_MAX = 4_096


class Histogram(Struct, frozen=True, kw_only=True):
    """Log buckets with 1 % relative error: counts by bucket index merge exactly, percentiles do not.

    Bucket `i` holds values in (gamma^(i-1), gamma^i], gamma = (1 + 0.01) / (1 - 0.01), in the unit
    of the field that has the histogram; `zeros` holds what is at most `1e-3`.
    """

    relative_error: float = RELATIVE_ERROR
    zeros: Count = 0
    buckets: Annotated[dict[int, Count], Meta(max_length=HISTOGRAM_BUCKETS_MAX)] = {}
