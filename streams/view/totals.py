"""What is added up by day: what finished executions used, and how many tasks ended.

A published execution may be published again, with the next revision: then the earlier one is taken
away from its day, and the new one added to its own. So each day holds the executions whose last word
is of that day, however the records were cut into reads, and however often they are read anew.

All amounts are integers, so that their sums do not depend on the order. They have no bound: a call may
cost a million dollars, and Redis counts up to nine billion of them (`apply.lua`).
"""

import enum
from collections import Counter

from msgspec import Struct

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
# Far above what accepted events come to; up to here a Decimal counts exactly.
AMOUNT_MAX = 10**24

Class = tuple[str | None, ...]  # in the order of Dimension; None where it does not apply
# A task has no phase of its own, and no owner is an owner nobody has named.
NO_PHASE = None


class Counted(Struct, frozen=True):
    """What an execution adds: `amounts` in the order of `MEASURES`, `place` by `utilisation_bin`."""

    day: str
    of: Class
    amounts: tuple[int, ...]
    place: int | None


class Totals:
    """What one read adds to the totals, by day and class; few classes, many executions."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._amounts: dict[tuple[str, Class], list[int]] = {}
        self._bins: Counter[tuple[str, int]] = Counter()
        self._tasks: Counter[tuple[str, Class]] = Counter()

    def __repr__(self) -> str:
        return f"<Totals of {len(self._amounts)} classes>"

    def execution(self, now: Counted, earlier: Counted | None) -> None:
        """Count an execution in place of what was published of it before, if anything."""
        if earlier is not None:
            self._add(earlier, -1)
        self._add(now, 1)

    def ended(self, record: Envelope[Lifecycle]) -> None:
        """Count a task that has ended."""
        data = record.data
        of = (data.task_type, data.owner, data.team, NO_PHASE, data.complexity, data.importance)
        self._tasks[record.time[:10], of] += 1

    def _add(self, counted: Counted, sign: int) -> None:
        sums = self._amounts.setdefault((counted.day, counted.of), [0] * len(MEASURES))
        for index, amount in enumerate(counted.amounts):
            sums[index] += sign * amount
        if counted.place is not None:
            self._bins[counted.day, counted.place] += sign

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


def counted(record: Envelope[ExecutionRecord]) -> Counted:
    """Return what an execution adds.

    Raises:
        ValueError: an amount is above `AMOUNT_MAX`, which no ledger has written.
    """
    data, counters = record.data, record.data.counters
    amounts: tuple[Number, ...] = (
        1,
        data.metered_tokens * MILLI,
        counters.get(COST, 0) * NANO,
        data.latency_ms,
        *(counters.get(name, 0) for name in COUNTERS),
    )
    if not all(-AMOUNT_MAX <= amount <= AMOUNT_MAX for amount in amounts):
        raise ValueError(f"an amount above {AMOUNT_MAX:.0e}")
    of = (data.task_type, data.owner, data.team, data.phase, data.complexity, data.importance)
    return Counted(record.time[:10], of, tuple(map(int, amounts)), utilisation_bin(data))


def utilisation_bin(data: ExecutionRecord) -> int | None:
    """Return which tenth of its phase's token limit was used; None where there is no limit."""
    limit = data.limits.get(Metric.TOKENS)
    return share_bin(data.metered_tokens, limit) if limit else None


def share_bin(used: Number, limit: Number) -> int:
    """Return 0 for less than a tenth, 1 for less than two, up to `BINS` - 1 for all above."""
    tenths = used * 10
    # Compared first: of a huge share a Decimal has no quotient.
    return BINS - 1 if tenths >= limit * (BINS - 1) else int(tenths // limit)
