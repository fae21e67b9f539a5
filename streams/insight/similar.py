"""What similar tasks used: the comparison that tells whether a number is unusual.

Similar is the same phase of tasks of the same complexity and importance; where too few of those have
ended, of the same complexity.
"""

from collections.abc import Iterable, Mapping

from schemas.baselines import Baseline, MetricBaseline
from schemas.fields import Complexity, Importance, Metric, Number
from schemas.reports import Similar
from streams.insight.quantiles import merged, quantile

# Below, one task that ran away is half of the mean.
SIMILAR_MIN = 5
PLACES = 3


class Baselines:
    """The last record of each cell of `baselines`."""

    def __init__(self, found: Iterable[Baseline] = ()) -> None:
        self._cells: dict[tuple[str, Complexity, Importance], Baseline] = {}
        for each in found:
            self.take(each)

    def __len__(self) -> int:
        return len(self._cells)

    def take(self, baseline: Baseline) -> None:
        """Replace what was known of a cell."""
        cell = (baseline.phase, baseline.complexity, baseline.importance)
        self._cells[cell] = baseline

    def similar(
        self,
        phase: str,
        complexity: Complexity,
        importance: Importance,
        used: Mapping[Metric, Number],
    ) -> dict[Metric, Similar]:
        """Return, for each metric that is known well enough, how `used` compares."""
        found = {}
        for metric, value in used.items():
            if (
                comparison := self._compare(phase, complexity, importance, metric, value)
            ) is not None:
                found[metric] = comparison
        return found

    def _compare(
        self,
        phase: str,
        complexity: Complexity,
        importance: Importance,
        metric: Metric,
        used: Number,
    ) -> Similar | None:
        alike = [
            (each.importance, known)
            for each in self._cells.values()
            if (each.phase, each.complexity) == (phase, complexity)
            and (known := each.metrics.get(metric)) is not None
        ]
        exact = [known for its_importance, known in alike if its_importance is importance]
        tasks = f"{complexity.value} tasks"
        for of, cells in (
            (f"{tasks} of {importance.value} importance", exact),
            (tasks, [known for _, known in alike]),
        ):
            count = sum(known.count for known in cells)
            mean = sum(known.sum for known in cells) / count if count else 0.0
            if count >= SIMILAR_MIN and mean > 0:
                return _similar(of, count, mean, cells, float(used))
        return None


def _similar(of: str, count: int, mean: float, cells: list[MetricBaseline], used: float) -> Similar:
    sketch = merged(*(known.sketch for known in cells))
    return Similar(
        of=of,
        count=count,
        mean=round(mean, PLACES),
        p50=round(quantile(sketch, 0.5) or 0.0, PLACES),
        p90=round(quantile(sketch, 0.9) or 0.0, PLACES),
        ratio=round(used / mean, PLACES),
    )
