"""Tasks that ran away: those that used more than twice what three in four of their kind do.

A kind is a task type: what agents and models differ by most. Only root tasks are judged, with all that
the tasks below them used, since a limit is theirs. Of a kind with few tasks the 75th percentile is a
guess, and nothing of it is judged. Source: budget model, "Calibration and promotion".
"""

from collections.abc import Iterable

from msgspec import Struct

from schemas.fields import Cause, Metric
from schemas.quantiles import histogram_of, quantile
from streams.insight.baselines import UNITS
from streams.insight.history import Run, TaskHistory, families
from streams.insight.intervals import Interval, wilson

RUNAWAY_RATIO = 2.0
USUAL_SHARE = 0.75
TASKS_MIN = 20


class Runaway(Struct, frozen=True, kw_only=True):
    """One task that ran away, in the metric's unit.

    `phase` is the one that went furthest beyond what is usual in it, `cause` what stands out there.
    """

    task_id: str
    task_type: str | None
    used: float
    p75: float
    ratio: float
    phase: str | None
    cause: Cause | None
    success: bool | None
    finished: bool | None


class KindOfTasks(Struct, frozen=True, kw_only=True):
    """The tasks of one type: how many, of how many the use is known, and how many ran away.

    `p75` None: nothing is known; `is_judged` False: too few for it to mean anything.
    """

    task_type: str | None
    tasks: int
    known: int
    p75: float | None
    is_judged: bool
    runaways: int
    share: float
    interval: Interval


class RunawayAnswer(Struct, frozen=True, kw_only=True):
    """How many of the judged tasks ran away, the worst first, and each kind of tasks."""

    metric: Metric
    tasks: int
    runaways: int
    share: float
    interval: Interval
    kinds: list[KindOfTasks]
    named: list[Runaway]


Family = list[TaskHistory]


def find_runaways(tasks: Iterable[TaskHistory], metric: Metric = Metric.TOKENS) -> RunawayAnswer:
    """Return which root tasks ran away by a metric; tasks of which it is not known are left out."""
    kinds: dict[str | None, list[Family]] = {}
    for family in families(tasks).values():
        kinds.setdefault(family[0].task_type, []).append(family)
    found = []
    named: list[Runaway] = []
    for task_type in sorted(kinds, key=lambda name: (-len(kinds[name]), name or "")):
        kind, its_runaways = _kind(task_type, kinds[task_type], metric)
        found.append(kind)
        named += its_runaways
    judged = sum(kind.known for kind in found if kind.is_judged)
    return RunawayAnswer(
        metric=metric,
        tasks=judged,
        runaways=len(named),
        share=len(named) / judged if judged else 0.0,
        interval=wilson(len(named), judged),
        kinds=found,
        named=sorted(named, key=lambda one: (-one.ratio, one.task_id)),
    )


def _kind(
    task_type: str | None, kind: list[Family], metric: Metric
) -> tuple[KindOfTasks, list[Runaway]]:
    unit = UNITS[metric]
    known = [family for family in kind if metric in family[0].used]
    p75 = quantile(histogram_of(family[0].used[metric] / unit for family in known), USUAL_SHARE)
    is_judged = len(known) >= TASKS_MIN
    found = []
    if is_judged:
        assert p75 is not None
        usual = _usual_by_phase(known, metric)
        found = [
            _runaway(family, metric, p75, usual)
            for family in known
            if family[0].used[metric] / unit > RUNAWAY_RATIO * p75
        ]
    judged = len(known) if is_judged else 0
    return KindOfTasks(
        task_type=task_type,
        tasks=len(kind),
        known=len(known),
        p75=p75,
        is_judged=is_judged,
        runaways=len(found),
        share=len(found) / judged if judged else 0.0,
        interval=wilson(len(found), judged),
    ), found


def _usual_by_phase(kind: list[Family], metric: Metric) -> dict[str, float]:
    by_phase: dict[str, list[int]] = {}
    for family in kind:
        for phase, runs in _by_phase(family).items():
            by_phase.setdefault(phase, []).append(_sum(runs, metric))
    return {
        phase: quantile(histogram_of(amounts), USUAL_SHARE) or 0.0
        for phase, amounts in by_phase.items()
    }


def _runaway(family: Family, metric: Metric, p75: float, usual: dict[str, float]) -> Runaway:
    root = family[0]
    phases = _by_phase(family)
    phase = max(phases, key=lambda name: _sum(phases[name], metric) - usual[name], default=None)
    longest = None
    if phase is not None:
        longest = max(phases[phase], key=lambda run: run.amounts.get(metric, 0))
    used = root.used[metric] / UNITS[metric]
    return Runaway(
        task_id=root.task_id,
        task_type=root.task_type,
        used=used,
        p75=p75,
        ratio=used / p75 if p75 else 0.0,
        phase=phase,
        cause=None if longest is None else longest.cause,
        success=root.success,
        finished=root.finished,
    )


def _by_phase(family: Family) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for task in family:
        for run in task.runs:
            found.setdefault(run.phase, []).append(run)
    return found


def _sum(runs: list[Run], metric: Metric) -> int:
    return sum(run.amounts.get(metric, 0) for run in runs)
