"""What `baselines` holds: what finished executions used, as quantile sketches."""

from msgspec import Struct

from schemas.fields import Complexity, Count, Importance, Metric, Name
from schemas.sketches import Histogram


class MetricBaseline(Struct, frozen=True, kw_only=True):
    """One metric, in its own unit: how often it was measured, its sum and its quantiles.

    `p50` and so on have 1 % relative error; they follow from `sketch`, which merges exactly.
    """

    count: Count
    sum: float
    p50: float
    p75: float
    p90: float
    p99: float
    sketch: Histogram


class Baseline(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One phase of one class of tasks (key `phase/complexity/importance`)."""

    phase: Name
    complexity: Complexity
    importance: Importance
    executions: Count
    metrics: dict[Metric, MetricBaseline]


BASELINE_TYPES: dict[str, type[Struct]] = {"stoploss.baseline": Baseline}
