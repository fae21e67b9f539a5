"""A policy from what tasks used: the numbers that data supports, and why the others are left.

A limit is base × complexity × importance × weight × task type, and a task's the sum over its planned
phases. So three things are fitted, in this order:

1. **Factors**, of task type, complexity and importance. Tasks of the same three are a cell. The 75th
   percentile of what a cell's tasks used, over what their planned phases have as bases, is taken for a
   product of three factors and fitted by least squares of its logarithm, weighted by tasks. So a level is
   compared with others of the same surroundings, and what is seldom used together does no harm. The level
   with the most tasks keeps the factor it has, and so gives the scale. A level of fewer than `COUNT_MIN`
   tasks is left alone, and so is one that shows only together with a level of a kind that stands before:
   whose doing the difference is, nobody can tell.
2. **Bases**: the 75th percentile of what runs of a phase used, each divided by its task's factors and the
   phase's weight, by the same sketches as the live baselines. A phase with fewer than `COUNT_MIN` runs of
   which it is known keeps its base.
3. **The sum**. The 75th percentiles of phases do not add up to that of tasks: few tasks are unusual in all
   of their phases, or have all phases. So the new bases of a metric are multiplied by one number, with
   which the new limits of three in four root tasks, each with its own planned phases, add up to no less
   than it used. It is near 1 (0.93 to 1.05 in real sessions of one agent), and a block at 2.0 then stops a
   task at twice what three in four need, as the ladder means it. What a task plans and nobody has been
   seen to use comes on top with its old base: a log of an agent plans all phases and knows four. To have
   that within the sum would take it from the phases that were seen: of the time of a session, most.

Tasks and runs of which the use is not known are counted, and decide nothing. Nothing depends on the order
of the tasks. Source: budget model, "Limits", "Calibration and promotion".
"""

import copy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from hashlib import blake2b
from math import ceil, exp, fsum, log, prod
from typing import Any

import msgspec
from msgspec import Struct

from schemas.fields import Metric, Number
from schemas.quantiles import histogram_of, quantile
from streams.budget.ladder import BLOCK
from streams.budget.limits import METRICS, TaskClass, compute_limits
from streams.budget.policy import (
    COST_PLACES,
    DECIMAL_PLACES,
    FACTORS_MAX,
    LATENCY_MS_MAX,
    MULTIPLIER_MAX,
    TOKENS_MAX,
    Policy,
    policy_from_json,
)
from streams.insight.baselines import UNITS
from streams.insight.history import TaskHistory
from streams.insight.numbers import amount, counted

COUNT_MIN = 20  # of runs for a base, of tasks for a factor
SHARED_MIN = 5  # tasks of two levels in the same surroundings, to tell them apart
USUAL_SHARE = 0.75
ROUNDS_MAX, MEANS_MAX = 10, 1_000
SETTLED = 1e-6
FACTOR_PLACE = Decimal(1).scaleb(-DECIMAL_PLACES)
COST_PLACE = Decimal(1).scaleb(-COST_PLACES)

TASK_TYPE, COMPLEXITY, IMPORTANCE = "task_type", "complexity", "importance"
KINDS = (TASK_TYPE, COMPLEXITY, IMPORTANCE)

Factors = dict[str, dict[str, float]]  # by kind and level
Surroundings = tuple[str | None, ...]


class Change(Struct, frozen=True, kw_only=True):
    """One number of a policy: what it was, what it would be, and what that rests on.

    `field` is its path in the policy. `count` are the runs (of a base) or tasks (of a factor) of which
    the use is known, `unknown_share` those of which it is not. `p75` is in the metric's unit, of runs
    without their factors; of a factor it is the ratio to the level that gives the scale. `reason` says
    in words where the number comes from, or why it stays.
    """

    field: str
    old: Number
    new: Number
    count: int
    p75: float | None
    unknown_share: float
    reason: str

    @property
    def is_changed(self) -> bool:
        """Whether the number is another one than before."""
        return self.old != self.new


class Proposal(Struct, frozen=True, kw_only=True):
    """A policy and every number that was looked at. `sums` is what step 3 multiplied bases by."""

    policy: Policy
    document: dict[str, Any]
    changes: list[Change]
    sums: dict[Metric, float]
    tasks: int


class Blocked(Struct, frozen=True, kw_only=True):
    """How many root tasks of known use came to block by all that they used, of how many."""

    tasks: int
    blocked: int


def calibrate(tasks: Iterable[TaskHistory], old: Policy) -> Proposal:
    """Return the policy that history supports; what it says nothing about is the old one's."""
    sample = _Sample(tasks, old)
    factors = _factors(sample)
    changes = _factor_changes(sample, factors)
    rounded = {
        kind: {level: float(factor) for level, factor in levels.items()}
        for kind, levels in _as_decimals(factors.found).items()
    }
    sums: dict[Metric, float] = {}
    base_changes = []
    for metric in METRICS:
        found = _bases(sample, rounded, metric)
        times, why = _sum(sample, rounded, metric, found)
        if any(each.is_known for each in found.values()):
            sums[metric] = times
        base_changes += [
            _base_change(phase, metric, each, times, why) for phase, each in found.items()
        ]
    changes = [*base_changes, *changes]
    document = _document(old, changes, len(sample.tasks))
    encoded = msgspec.json.Encoder(decimal_format="number").encode(document)
    return Proposal(
        policy=policy_from_json(encoded, "the proposal"),
        document=document,
        changes=changes,
        sums=sums,
        tasks=len(sample.tasks),
    )


def would_block(tasks: Iterable[TaskHistory], policy: Policy) -> Blocked:
    """Return how many root tasks used what a policy blocks at, tokens or cost, whenever that was."""
    known = blocked = 0
    for task in tasks:
        if task.parent_id is not None or not task.used.keys() & {Metric.TOKENS, Metric.COST_USD}:
            continue
        known += 1
        planned = tuple(phase for phase in task.planned if policy.lists(phase))
        limits = compute_limits(
            policy,
            TaskClass(
                complexity=task.complexity,
                importance=task.importance,
                task_type=task.task_type,
                planned=planned or None,
            ),
        )
        blocked += any(
            line is not None and task.used.get(metric, 0) >= line.at[BLOCK - 1]
            for metric, line in zip(METRICS, limits.task, strict=True)
        )
    return Blocked(tasks=known, blocked=blocked)


class _Sample:
    """What is fitted to, and the policy that it begins with."""

    def __init__(self, tasks: Iterable[TaskHistory], old: Policy) -> None:
        self.old = old
        self.tasks = list(tasks)
        self.roots = [task for task in self.tasks if task.parent_id is None]
        # By what factors are fitted: tokens, which block; time, where too few are known of.
        enough = len(self.known(Metric.TOKENS)) >= COUNT_MIN
        self.metric = Metric.TOKENS if enough else Metric.LATENCY_MS

    def known(self, metric: Metric) -> list[TaskHistory]:
        """Return the root tasks of which the use of a metric is known."""
        return [task for task in self.roots if metric in task.used]

    def planned(self, task: TaskHistory) -> tuple[str, ...]:
        """Return the phases that a task's limits are the sum of, as far as the policy names them."""
        planned = tuple(phase for phase in task.planned if phase in self.old.phases)
        return planned or tuple(self.old.phases)

    def old_base(self, phase: str, metric: Metric) -> Number | None:
        """Return what a phase may use before multipliers, None where nothing limits its cost."""
        base = self.old.phases[phase]
        return {
            Metric.TOKENS: base.tokens,
            Metric.LATENCY_MS: base.latency_ms,
            Metric.COST_USD: base.cost_usd,
        }[metric]

    def weight(self, phase: str) -> float:
        """Return a phase's weight, which a limit is multiplied by."""
        return float(self.old.phases[phase].weight)

    def old_factors(self) -> dict[str, dict[str, Decimal]]:
        """Return the factors that the policy has."""
        old = self.old
        return {
            TASK_TYPE: dict(old.task_type),
            COMPLEXITY: dict(old.complexity),
            IMPORTANCE: dict(old.importance),
        }


def _level(kind: str, task: TaskHistory) -> str | None:
    match kind:
        case "task_type":
            return task.task_type
        case "complexity":
            return task.complexity.value
        case _:
            return task.importance.value


def _multiplier(factors: Factors, task: TaskHistory) -> float:
    return prod(factors[kind].get(_level(kind, task) or "", 1.0) for kind in KINDS)


class _Base(Struct, frozen=True):
    """The base of a phase before step 3; `runs` in all, of which `count` are known."""

    old: Number
    value: float
    p75: float | None
    count: int
    runs: int
    weight: float

    @property
    def is_known(self) -> bool:
        """Whether it follows from data."""
        return self.count >= COUNT_MIN and bool(self.p75)


def _bases(sample: _Sample, factors: Factors, metric: Metric) -> dict[str, _Base]:
    """Return step 2: what three in four runs of each phase use, without factors and weight."""
    unit = UNITS[metric]
    runs: Counter[str] = Counter()
    used: dict[str, list[float]] = {}
    for task in sample.tasks:
        multiplier = _multiplier(factors, task)
        for run in task.runs:
            runs[run.phase] += 1
            if metric in run.amounts:
                used.setdefault(run.phase, []).append(run.amounts[metric] / unit / multiplier)
    found = {}
    for phase in sample.old.phases:
        old = sample.old_base(phase, metric)
        if old is None:
            continue
        amounts, weight = used.get(phase, []), sample.weight(phase)
        p75 = quantile(histogram_of(amounts), USUAL_SHARE)
        base = _Base(old, float(old), p75, len(amounts), runs[phase], weight)
        if base.is_known:
            assert p75 is not None
            base = msgspec.structs.replace(base, value=p75 / weight)
        found[phase] = base
    return found


def _planned(sample: _Sample, task: TaskHistory, bases: Mapping[str, _Base]) -> float:
    """Return the sum of what follows from data, over a task's planned phases."""
    return sum(
        bases[phase].value * bases[phase].weight
        for phase in sample.planned(task)
        if phase in bases and bases[phase].is_known
    )


def _sum(
    sample: _Sample, factors: Factors, metric: Metric, bases: Mapping[str, _Base]
) -> tuple[float, str]:
    """Return step 3: the number that new bases are multiplied by, and why it is that."""
    unit = UNITS[metric]
    times = [
        task.used[metric] / unit / _multiplier(factors, task) / planned
        for task in sample.known(metric)
        if (planned := _planned(sample, task, bases))
    ]
    found = _usual(times) if len(times) >= COUNT_MIN else 0.0
    if not found:
        return 1.0, ""
    return found, f" × {found:.3f}: phases add up to tasks"


def _usual(values: Iterable[float]) -> float:
    """Return the smallest value that three in four do not exceed: exactly, where no sketch is kept."""
    ordered = sorted(values)
    return ordered[ceil(USUAL_SHARE * len(ordered)) - 1]


class _Cell(Struct, frozen=True):
    """Tasks of the same levels, by kind: how many, and the logarithm of what three in four use."""

    levels: dict[str, str | None]
    tasks: int
    log_use: float


class _Scales(Struct, frozen=True):
    """Of each kind the level that keeps its factor, those that are fitted, and why others are not."""

    anchors: dict[str, str]
    fitted: dict[str, list[str]]
    reasons: dict[tuple[str, str], str]


class _Fitted(Struct, frozen=True):
    """The factors of all kinds, why some were not fitted, and the ratios that the others follow from."""

    found: Factors
    reasons: dict[tuple[str, str], str]
    ratios: dict[tuple[str, str], float]


def _factors(sample: _Sample) -> _Fitted:
    """Return step 1. Bases and factors need each other where tasks plan different phases."""
    factors = {
        kind: {level: float(factor) for level, factor in levels.items()}
        for kind, levels in sample.old_factors().items()
    }
    scales = _scales(sample)
    ratios: dict[tuple[str, str], float] = {}
    rounds, moved = 0, 1.0
    while moved >= SETTLED and rounds < ROUNDS_MAX:
        found = _fit(_cells(sample, factors), factors, scales)
        moved = max((abs(found[each] / ratios.get(each, 1.0) - 1) for each in found), default=0.0)
        ratios = found
        for (kind, level), ratio in ratios.items():
            factor = factors[kind].setdefault(scales.anchors[kind], 1.0) * ratio
            factors[kind][level] = min(max(factor, float(FACTOR_PLACE)), float(MULTIPLIER_MAX))
        rounds += 1
    return _Fitted(factors, scales.reasons, ratios)


def _scales(sample: _Sample) -> _Scales:
    anchors: dict[str, str] = {}
    fitted: dict[str, list[str]] = {}
    reasons: dict[tuple[str, str], str] = {}
    known = sample.known(sample.metric)
    for place, kind in enumerate(KINDS):
        counts = Counter(level for task in known if (level := _level(kind, task)) is not None)
        enough = sorted(
            (level for level in counts if counts[level] >= COUNT_MIN),
            key=lambda level: (-counts[level], level),
        )
        fitted[kind] = []
        if not enough:
            continue
        anchors[kind] = anchor = enough[0]
        if len(enough) == 1:
            reasons[kind, anchor] = "the only one with enough tasks: it stays"
            continue
        reasons[kind, anchor] = "the one with the most tasks: it stays and gives the scale"
        told_apart = _told_apart(known, kind, KINDS[:place], anchor, enough)
        room = FACTORS_MAX - len(sample.old_factors()[kind])
        fitted[kind] = [level for level in enough if level in told_apart][:room]
        for level in enough:
            if level not in told_apart:
                others = " and ".join(KINDS[:place]).replace("_", " ")
                reasons[kind, level] = f"never beside {anchor} of the same {others}: it stays"
    return _Scales(anchors, fitted, reasons)


def _told_apart(
    tasks: Sequence[TaskHistory],
    kind: str,
    before: Sequence[str],
    anchor: str,
    levels: Sequence[str],
) -> set[str]:
    """Return the levels that share surroundings with the anchor, directly or by way of others."""
    seen: dict[Surroundings, Counter[str]] = {}
    for task in tasks:
        level = _level(kind, task)
        if level is not None:
            around = tuple(_level(each, task) for each in before)
            seen.setdefault(around, Counter())[level] += 1
    together = [
        {level for level in levels if counts[level] >= SHARED_MIN} for counts in seen.values()
    ]
    found = {anchor}
    for _ in levels:
        found = found.union(*(shared for shared in together if shared & found))
    return found


def _cells(sample: _Sample, factors: Factors) -> list[_Cell]:
    """Return what tasks of the same levels use; those of a level of few tasks are left out."""
    bases = _bases(sample, factors, sample.metric)
    known = sample.known(sample.metric)
    counts = Counter((kind, _level(kind, task)) for task in known for kind in KINDS)
    used: dict[Surroundings, list[float]] = {}
    for task in known:
        levels = tuple(_level(kind, task) for kind in KINDS)
        planned = _planned(sample, task, bases) or 1.0
        used.setdefault(levels, []).append(task.used[sample.metric] / planned)
    return [
        _Cell(dict(zip(KINDS, levels, strict=True)), len(values), log(usual))
        for levels, values in sorted(used.items(), key=lambda each: str(each[0]))
        if len(values) >= SHARED_MIN
        and (usual := _usual(values))
        and all(counts[each] >= COUNT_MIN for each in zip(KINDS, levels, strict=True))
    ]


def _fit(cells: list[_Cell], factors: Factors, scales: _Scales) -> dict[tuple[str, str], float]:
    """Return how each fitted level is to the one of its kind that gives the scale.

    Least squares by repeated means: each level in turn takes the mean of what the others leave.
    """
    logs = {
        kind: {level: log(factor) for level, factor in levels.items()}
        for kind, levels in factors.items()
    }

    def left(cell: _Cell, without: str | None = None) -> float:
        others = (logs[kind].get(cell.levels[kind] or "", 0.0) for kind in KINDS if kind != without)
        return cell.log_use - sum(others)

    def mean(of: list[_Cell], without: str | None = None) -> float:
        return fsum(cell.tasks * left(cell, without) for cell in of) / sum(c.tasks for c in of)

    of_level = {
        (kind, level): [cell for cell in cells if cell.levels[kind] == level]
        for kind in KINDS
        for level in scales.fitted[kind]
    }
    of_level = {each: of for each, of in of_level.items() if of}
    for _ in range(MEANS_MAX if of_level else 0):
        middle, moved = mean(cells), 0.0
        for (kind, level), of in of_level.items():
            found = mean(of, kind) - middle
            moved = max(moved, abs(found - logs[kind].get(level, 0.0)))
            logs[kind][level] = found
        if moved < SETTLED:
            break
    return {
        (kind, level): exp(logs[kind][level] - logs[kind][scales.anchors[kind]])
        for kind, level in of_level
        if level != scales.anchors[kind] and (kind, scales.anchors[kind]) in of_level
    }


def _as_decimals(factors: Factors) -> dict[str, dict[str, Decimal]]:
    return {
        kind: {
            level: Decimal(factor).quantize(FACTOR_PLACE, ROUND_HALF_EVEN)
            for level, factor in levels.items()
        }
        for kind, levels in factors.items()
    }


def _factor_changes(sample: _Sample, fitted: _Fitted) -> list[Change]:
    """Return a line for each factor that the policy has, or that was seen."""
    old = sample.old_factors()
    new = _as_decimals(fitted.found)
    found = []
    for kind in (COMPLEXITY, IMPORTANCE, TASK_TYPE):
        seen = Counter(level for task in sample.roots if (level := _level(kind, task)) is not None)
        known = Counter(_level(kind, task) for task in sample.known(sample.metric))
        for level in dict.fromkeys((*old[kind], *sorted(seen))):
            ratio = fitted.ratios.get((kind, level))
            factor = new[kind].get(level, Decimal(1))
            if ratio is not None:
                cut = f", cut to {MULTIPLIER_MAX}" if factor == MULTIPLIER_MAX else ""
                reason = (
                    f"{known[level]:,} tasks use {ratio:.3f} times what those of the scale do{cut}"
                )
            elif not seen[level]:
                reason = "never seen: it stays"
            elif known[level] < COUNT_MIN:
                reason = f"{known[level]} of {COUNT_MIN} tasks of known use: too few, it stays"
            else:
                reason = fitted.reasons.get((kind, level), "cannot be fitted: it stays")
            found.append(
                Change(
                    field=f"multipliers.{kind}.{level}",
                    old=old[kind].get(level, Decimal(1)),
                    new=factor,
                    count=known[level],
                    p75=ratio,
                    unknown_share=1 - known[level] / seen[level] if seen[level] else 0.0,
                    reason=reason,
                )
            )
    return found


def _base_change(phase: str, metric: Metric, base: _Base, times: float, why: str) -> Change:
    reason = f"{counted(base.runs, 'run')}, {base.count:,} known: fewer than {COUNT_MIN}, it stays"
    new = base.old
    if base.is_known:
        assert base.p75 is not None
        new = _rounded(base.value * times, metric)
        usual = amount(Decimal(base.p75), metric)
        weight = "" if base.weight == 1 else f" / weight {base.weight:g}"
        reason = f"p75 of {base.count:,} runs {usual}{weight}{why}"
    elif not base.runs:
        reason = "never seen: it stays"
    elif base.count >= COUNT_MIN:
        reason = f"three in four of {base.count:,} runs used nothing: it stays"
    return Change(
        field=f"phases.{phase}.{metric.value}",
        old=base.old,
        new=new,
        count=base.count,
        p75=base.p75,
        unknown_share=1 - base.count / base.runs if base.runs else 0.0,
        reason=reason,
    )


def _rounded(value: float, metric: Metric) -> Number:
    if metric is Metric.COST_USD:
        return max(Decimal(value).quantize(COST_PLACE, ROUND_CEILING), COST_PLACE)
    most = TOKENS_MAX if metric is Metric.TOKENS else LATENCY_MS_MAX
    return min(max(ceil(value), 1), most)


def _document(old: Policy, changes: Sequence[Change], tasks: int) -> dict[str, Any]:
    document = copy.deepcopy(old.document)
    for change in changes:
        if change.is_changed:
            *path, name = _path(change.field)
            table = document
            for key in path:
                table = table[key]
            table[name] = change.new
    text = "\0".join(f"{change.field}={change.new}" for change in changes)
    digest = blake2b(text.encode(), digest_size=4).hexdigest()
    document["version"] = f"calibrated-{tasks}-{digest}"
    return document


def _path(field: str) -> list[str]:
    """Return the keys of a field: phases and task types may have dots in their names."""
    first, rest = field.split(".", 1)
    if first == "phases":
        return [first, *rest.rsplit(".", 1)]
    return [first, *rest.split(".", 1)]
