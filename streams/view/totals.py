"""What is added up by day: what finished executions used, and how many tasks ended.

A published execution may be published again, with the next revision: then the earlier one is taken
away from its day, and the new one added to its own. So each day holds the executions whose last word
is of that day, however the records were cut into reads, and however often they are read anew.

All amounts are integers, so that their sums do not depend on the order.
"""

import enum
from collections import Counter

from schemas.envelope import Envelope
from schemas.fields import Metric, Number
from schemas.outputs import ExecutionRecord, Lifecycle
from streams.view.changes import Changes
from streams.view.keys import KEPT_DAYS, Keys, day_end_s


class Dimension(enum.StrEnum):
    """By what totals can be asked for."""

    TASK_TYPE = "task_type"
    OWNER = "owner"
    TEAM = "team"
    PHASE = "phase"
    COMPLEXITY = "complexity"
    IMPORTANCE = "importance"


COUNTERS = (
    "model_calls",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "unknown_usage",
)
MEASURES = ("executions", "milli_tokens", "nano_usd", "latency_ms", *COUNTERS)
TASKS = "tasks"
ALL_MEASURES = (TASKS, *MEASURES)
UTILISATION = "utilisation"
BINS = 20  # of a tenth of the limit each; the last one has no end
COST = "cost_usd"
MILLI, NANO = 1_000, 1_000_000_000

Class = tuple[str | None, ...]  # in the order of Dimension; None where it does not apply
# A task has no phase of its own, and no owner is an owner nobody has named.
NO_PHASE = None


class Totals:
    """What one read adds to the totals, by day and class; few classes, many executions."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._amounts: dict[tuple[str, Class], list[int]] = {}
        self._bins: Counter[tuple[str, int]] = Counter()
        self._tasks: Counter[tuple[str, Class]] = Counter()

    def __repr__(self) -> str:
        return f"<Totals of {len(self._amounts)} classes>"

    def execution(
        self, record: Envelope[ExecutionRecord], earlier: Envelope[ExecutionRecord] | None
    ) -> None:
        """Count an execution in place of what was published of it before.

        Args:
            record: what is published now.
            earlier: the last record of the same task, phase and attempt. The first revision has
                none: one that is found is of an earlier life of the task, and stays counted.
        """
        if earlier is not None and record.data.revision > 1:
            self._add(earlier, -1)
        self._add(record, 1)

    def ended(self, record: Envelope[Lifecycle]) -> None:
        """Count a task that has ended."""
        data = record.data
        of = (data.task_type, data.owner, data.team, NO_PHASE, data.complexity, data.importance)
        self._tasks[record.time[:10], of] += 1

    def _add(self, record: Envelope[ExecutionRecord], sign: int) -> None:
        data, day = record.data, record.time[:10]
        of = (data.task_type, data.owner, data.team, data.phase, data.complexity, data.importance)
        sums = self._amounts.setdefault((day, of), [0] * len(MEASURES))
        for index, amount in enumerate(amounts(data)):
            sums[index] += sign * amount
        if (place := utilisation_bin(data)) is not None:
            self._bins[day, place] += sign

    def into(self, changes: Changes) -> None:
        """Say what changes in Redis."""
        for (day, of), sums in self._amounts.items():
            for name, amount in zip(MEASURES, sums, strict=True):
                self._count(changes, day, of, name, amount)
        for (day, of), count in self._tasks.items():
            self._count(changes, day, of, TASKS, count)
        for (day, place), count in self._bins.items():
            key = self._keys.totals(day, UTILISATION)
            changes.count(key, b"%d" % place, count)
            changes.expire(key, day_end_s(day, KEPT_DAYS))

    def _count(self, changes: Changes, day: str, of: Class, name: str, amount: int) -> None:
        for dimension, value in zip(Dimension, of, strict=True):
            if amount and not (dimension is Dimension.PHASE and value is NO_PHASE):
                key = self._keys.totals(day, dimension)
                changes.count(key, f"{name}/{value or ''}".encode(), amount)
                changes.expire(key, day_end_s(day, KEPT_DAYS))


def amounts(data: ExecutionRecord) -> tuple[int, ...]:
    """Return what an execution adds, in the order of `MEASURES`."""
    counters = data.counters
    return (
        1,
        int(data.metered_tokens * MILLI),
        int(counters.get(COST, 0) * NANO),
        data.latency_ms,
        *(int(counters.get(name, 0)) for name in COUNTERS),
    )


def utilisation_bin(data: ExecutionRecord) -> int | None:
    """Return which tenth of its phase's token limit was used; None where there is no limit."""
    limit = data.limits.get(Metric.TOKENS)
    return share_bin(data.metered_tokens, limit) if limit else None


def share_bin(used: Number, limit: Number) -> int:
    """Return 0 for less than a tenth, 1 for less than two, up to `BINS` - 1 for all above."""
    return min(int(used * 10 // limit), BINS - 1)
