"""What similar tasks used: the comparison that tells whether a number is unusual.

Similar is the same phase of tasks of the same complexity and importance; where too few of those have
ended, of the same complexity.
"""

from collections.abc import Iterable, Mapping

from schemas.baselines import Baseline, MetricBaseline
from schemas.fields import Complexity, Importance, Metric, Number
from schemas.quantiles import quantiles
from schemas.reports import Similar

# Below, one task that ran away is half of the mean.
SIMILAR_MIN = 5
PLACES = 3


class Baselines:
    """The last record of each cell of `baselines`."""

    def __init__(self, found: Iterable[Baseline] = ()) -> None:
        self._cells: dict[tuple[str, Complexity], dict[Importance, Baseline]] = {}
        for each in found:
            self.take(each)

    def __len__(self) -> int:
        return sum(map(len, self._cells.values()))

    def take(self, baseline: Baseline) -> None:
        """Replace what was known of a cell."""
        alike = self._cells.setdefault((baseline.phase, baseline.complexity), {})
        alike[baseline.importance] = baseline

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
            (its_importance, known)
            for its_importance, each in self._cells.get((phase, complexity), {}).items()
            if (known := each.metrics.get(metric)) is not None
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
    if len(cells) == 1:
        p50, p90 = cells[0].p50, cells[0].p90
    else:
        sketches = [known.sketch for known in cells]
        p50, p90 = (value or 0.0 for value in quantiles(sketches, (0.5, 0.9)))
    return Similar(
        of=of,
        count=count,
        mean=round(mean, PLACES),
        p50=round(p50, PLACES),
        p90=round(p90, PLACES),
        ratio=round(used / mean, PLACES),
    )
