"""What finished executions used, by phase and class of task: what a baseline is made of.

An execution becomes a `Measure`. Measures are folded into entries of two kinds: a `ClassOfTasks`, which
has the counts of one baseline, and a `Recent`, which remembers what some executions were counted as, so
that a later revision takes the place of the earlier one.

A measure may come twice, and a crash may have kept some of the entries that it changed and lost others:
- each entry holds the highest origin that is in it, by partition; of one partition, measures come in order
  the first time that they come;
- entries are kept in the order of their keys, a prefix of them at least. `class/…` stands before
  `recent/…`: where the execution is remembered, it has been counted as well.

Sums are whole numbers of a small unit, so that they do not depend on the order of the measures.
"""

from collections.abc import Iterable, MutableMapping
from decimal import Decimal
from hashlib import blake2b
from typing import Annotated

from msgspec import Meta, Struct

from schemas.alerts import Origin
from schemas.baselines import Baseline, MetricBaseline
from schemas.fields import Complexity, ExecutionOutcome, Importance, Metric, Number, PhaseName
from schemas.outputs import ExecutionRecord
from schemas.quantiles import count, quantiles, with_value
from schemas.sketches import Histogram

# The outcomes of a phase that somebody has worked through. One that was superseded or abandoned says
# little of what a phase takes. What was open when its task ended has ended with it: logs of agents that
# have no enforcer know no other end of a phase.
COUNTED = frozenset(
    {
        ExecutionOutcome.COMPLETED,
        ExecutionOutcome.FAILED,
        ExecutionOutcome.BACKTRACKED,
        ExecutionOutcome.OPEN_AT_END,
    }
)
UNITS: dict[Metric, int] = {
    Metric.TOKENS: 1_000,
    Metric.LATENCY_MS: 1,
    Metric.COST_USD: 1_000_000_000,
}
CLASSES_MAX = 4_096
# Together 8,192 executions are remembered; a revision of an older one cannot be corrected.
BUCKETS = 512
BUCKET_MAX = 16

CLASS, RECENT = "class/", "recent/"
assert CLASS < RECENT


class Measure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an execution used, in the unit of each metric times `UNITS`; empty where it does not count.

    `execution` is a digest of what names it: task, phase and attempt.
    """

    execution: str
    revision: Annotated[int, Meta(ge=1)]
    phase: PhaseName
    complexity: Complexity
    importance: Importance
    amounts: dict[Metric, int]
    at_ms: int
    origin: Origin

    @property
    def name(self) -> str:
        """Return the key of its baseline."""
        return f"{self.phase}/{self.complexity}/{self.importance}"


class Sketch(Struct, omit_defaults=True):
    """One metric of a class: `total` in the small unit, the histogram in the metric's own."""

    total: int = 0
    zeros: int = 0
    buckets: dict[int, int] = {}


class ClassOfTasks(Struct, tag="class", kw_only=True, omit_defaults=True):
    """What was counted of a phase of one class of tasks.

    `changes` counts what has changed it; `uncorrected` the revisions that came when the execution
    was no longer remembered.
    """

    phase: str
    complexity: Complexity
    importance: Importance
    origins: dict[int, int] = {}
    executions: int = 0
    metrics: dict[Metric, Sketch] = {}
    changes: int = 0
    uncorrected: int = 0
    at_ms: int = 0


class Remembered(Struct, frozen=True, array_like=True):
    """What an execution was counted as; `name` is that of its class, None where it was not."""

    execution: str
    revision: int
    name: str | None
    amounts: dict[Metric, int]


class Recent(Struct, tag="recent", omit_defaults=True):
    """Some of the last executions, the oldest first; `dropped` counts what no class was left for."""

    origins: dict[int, int] = {}
    remembered: list[Remembered] = []
    dropped: int = 0


Entry = ClassOfTasks | Recent
Entries = MutableMapping[str, Entry]


def measure_of(record: ExecutionRecord, origin: Origin, at_ms: int) -> Measure:
    """Return what an execution used.

    What is not known is left out, not zero: tokens and cost where a call's usage is unknown, a cost
    that nobody told, a latency of which the clocks make nothing, or that nobody has measured.
    """
    text = f"{record.task_id}\0{record.phase}\0{record.attempt}"
    return Measure(
        execution=blake2b(text.encode(), digest_size=8).hexdigest(),
        revision=record.revision,
        phase=record.phase,
        complexity=record.complexity,
        importance=record.importance,
        amounts=amounts_of(record) if record.outcome in COUNTED else {},
        at_ms=at_ms,
        origin=origin,
    )


def amounts_of(record: ExecutionRecord) -> dict[Metric, int]:
    """Return what is known of an execution's use, in the unit of each metric times `UNITS`."""
    return dict(_amounts(record))


def _amounts(record: ExecutionRecord) -> Iterable[tuple[Metric, int]]:
    cost = record.counters.get("cost_usd", 0)
    if "unknown_usage" not in record.flags:
        yield Metric.TOKENS, small_units(Metric.TOKENS, record.metered_tokens)
        if cost:
            yield Metric.COST_USD, small_units(Metric.COST_USD, cost)
    is_untimed = "inferred" in record.flags and not record.latency_ms
    if "clock_skew" not in record.flags and not is_untimed:
        yield Metric.LATENCY_MS, record.latency_ms


def small_units(metric: Metric, amount: Number) -> int:
    """Return an amount in the metric's unit times `UNITS`, as a whole number."""
    return round(Decimal(amount) * UNITS[metric])


def fold_measure(entries: Entries, measure: Measure) -> None:
    """Count a measure, in the place of the earlier revision of its execution."""
    key = f"{RECENT}{int(measure.execution, 16) % BUCKETS:03}"
    recent = _recent(entries, key)
    origin = measure.origin
    if recent.origins.get(origin.partition, -1) >= origin.offset:
        return
    known = next((one for one in recent.remembered if one.execution == measure.execution), None)
    if known is None and measure.revision > 1:
        if _has_room(entries, measure.name):
            _change(entries, measure, measure.name, uncorrected=1)
        else:
            recent.dropped += 1
    elif known is None or known.revision < measure.revision:
        name = _replace(entries, measure, known)
        recent.dropped += name is None and bool(measure.amounts)
        if known is not None:
            recent.remembered.remove(known)
        recent.remembered.append(
            Remembered(measure.execution, measure.revision, name, measure.amounts)
        )
        del recent.remembered[:-BUCKET_MAX]
    recent.origins[origin.partition] = origin.offset
    entries[key] = recent


def _replace(entries: Entries, measure: Measure, known: Remembered | None) -> str | None:
    """Count a measure instead of what is known; return the class that it counts in."""
    before = None if known is None else known.name
    after = measure.name if measure.amounts else None
    if after is not None and after != before and not _has_room(entries, after):
        after = None
    for name in sorted({one for one in (before, after) if one is not None}):
        assert known is not None or name == after
        _change(
            entries,
            measure,
            name,
            less=known.amounts if known is not None and name == before else {},
            more=measure.amounts if name == after else {},
        )
    return after


def _change(
    entries: Entries,
    measure: Measure,
    name: str,
    *,
    less: dict[Metric, int] | None = None,
    more: dict[Metric, int] | None = None,
    uncorrected: int = 0,
) -> None:
    """Change one class, unless the measure is in it already."""
    one = _class(entries, measure, name)
    origin = measure.origin
    if one.origins.get(origin.partition, -1) >= origin.offset:
        return
    one.origins[origin.partition] = origin.offset
    one.uncorrected += uncorrected
    for amounts, by in ((less, -1), (more, 1)):
        if amounts:
            one.executions += by
            for metric, amount in amounts.items():
                _add(one, metric, amount, by)
    one.changes += 1
    one.at_ms = max(one.at_ms, measure.at_ms)
    entries[f"{CLASS}{name}"] = one


def _add(one: ClassOfTasks, metric: Metric, amount: int, by: int) -> None:
    sketch = one.metrics.setdefault(metric, Sketch())
    place = with_value(Histogram(), amount / UNITS[metric])
    sketch.total += by * amount
    sketch.zeros += by * place.zeros
    for index in place.buckets:
        left = sketch.buckets.get(index, 0) + by
        if left:
            sketch.buckets[index] = left
        else:
            del sketch.buckets[index]


def _has_room(entries: Entries, name: str) -> bool:
    if f"{CLASS}{name}" in entries:
        return True
    return sum(key.startswith(CLASS) for key in entries) < CLASSES_MAX


def _recent(entries: Entries, key: str) -> Recent:
    found = entries.get(key)
    if found is None:
        return Recent()
    assert isinstance(found, Recent)
    return found


def _class(entries: Entries, measure: Measure, name: str) -> ClassOfTasks:
    found = entries.get(f"{CLASS}{name}")
    if found is None:
        return ClassOfTasks(
            phase=measure.phase, complexity=measure.complexity, importance=measure.importance
        )
    assert isinstance(found, ClassOfTasks)
    return found


def baseline_of(one: ClassOfTasks) -> Baseline:
    """Return what is published of a class."""
    return Baseline(
        phase=one.phase,
        complexity=one.complexity,
        importance=one.importance,
        executions=one.executions,
        metrics={
            metric: _metric(sketch, UNITS[metric])
            for metric in Metric
            if (sketch := one.metrics.get(metric)) is not None and (sketch.zeros or sketch.buckets)
        },
    )


def _metric(sketch: Sketch, unit: int) -> MetricBaseline:
    histogram = Histogram(zeros=sketch.zeros, buckets=dict(sorted(sketch.buckets.items())))
    p50, p75, p90, p99 = (value or 0.0 for value in quantiles((histogram,), (0.5, 0.75, 0.9, 0.99)))
    return MetricBaseline(
        count=count(histogram),
        sum=sketch.total / unit,
        p50=p50,
        p75=p75,
        p90=p90,
        p99=p99,
        sketch=histogram,
    )
