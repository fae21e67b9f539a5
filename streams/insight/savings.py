"""What a block would have saved on runs that failed, against the honest work that it would have cost.

The same history under every share of the limit at which a task could be blocked: with a low one much is
saved and much honest work is stopped, with a high one neither. The share that saves most while fewer than
5 % are wrongly blocked is chosen on one part of the history, and judged on the other.

**Assumption.** Where a task's calls are known it is stopped with the crossing one. Where only its totals
are, its usage is taken as spent evenly, and stopped at the crossing.
"""

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from schemas.fields import Metric, Number
from streams.budget.ladder import SHARE_PLACES
from streams.insight.gate import (
    WRONG_SHARE_MAX,
    Judged,
    JudgedTasks,
    Stop,
    WouldBe,
    amounts_json,
)
from streams.insight.intervals import Interval, wilson
from streams.insight.numbers import tenths
from streams.insight.split import HoldOut, parted

# Shares of the limit that are tried, in ten-thousandths: from half of it to the most a policy can say.
SHARES = tuple(
    round(times * SHARE_PLACES)
    for times in (
        *(0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.35, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3, 3.5, 4, 5),
        *(6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100),
    )
)
# With fewer tasks of a kind no share is chosen for it: 1 of 19 would be over 5 %.
TYPE_MIN = 20
ALL_TYPES = "all"
EVENLY = (
    "where only totals of a run are known, its usage is spent evenly and stopped at the crossing"
)


class Point(Struct, frozen=True, kw_only=True):
    """What a block at `times` the limit would have done to some tasks.

    `saved` is what the blocked ones of the failed runs would not have used, in the metrics' units; time
    and money are left out where they are known of none of them.
    `saved_share` is of the tokens that all failed runs used. `wrong` as in the gate.
    """

    times: float
    tasks: int
    blocked: int
    wrong: int
    wrong_share: float
    interval: Interval
    saved: dict[Metric, Number]
    saved_share: float


class Savings(Struct, frozen=True, kw_only=True):
    """The curve of one kind of work, on the judged part, and the share that was chosen.

    `chosen` is None where the part to choose on has too few tasks, nothing that failed, or no share that
    is allowed; `why` says which. `hindsight` is the best share that there is for the judged part;
    `perfect` is what stopping exactly the failed runs, at once, would save: all that they used.
    `evenly` counts the judged runs of which only totals are known.
    """

    task_type: str
    chosen_on: int
    judged_on: int
    failed: int
    evenly: int
    perfect: dict[Metric, Number]
    curve: list[Point]
    chosen: Point | None
    why: str
    hindsight: Point | None


class AllSavings(Struct, frozen=True, kw_only=True):
    """The curves of all tasks and of each kind of work, the assumption, and which part was held out."""

    assumption: str = EVENLY
    hold_out: HoldOut
    total: Savings
    by_task_type: list[Savings]


def savings(found: JudgedTasks, hold_out: HoldOut) -> AllSavings:
    """Return the curves of tasks that were folded with their `stops`.

    Args:
        found: the tasks of both parts.
        hold_out: which part is judged; on the other one is chosen.
    """
    kept, held_out = parted(found.tasks, hold_out, lambda each: each.task.group)
    names = sorted({each.task_type for each in found.tasks})
    return AllSavings(
        hold_out=hold_out,
        total=_savings(ALL_TYPES, kept, held_out),
        by_task_type=[
            _savings(name, _of_type(kept, name), _of_type(held_out, name)) for name in names
        ],
    )


def _of_type(tasks: Sequence[Judged], name: str) -> list[Judged]:
    return [each for each in tasks if each.task_type == name]


def _savings(task_type: str, kept: Sequence[Judged], held_out: Sequence[Judged]) -> Savings:
    share, why = _choice(kept)
    failed = [each for each in held_out if each.has_failed]
    curve = curve_of(held_out)
    allowed = [point for point in curve if _is_allowed(point) and point.saved_share > 0]
    return Savings(
        task_type=task_type,
        chosen_on=len(kept),
        judged_on=len(held_out),
        failed=len(failed),
        evenly=sum(each.would_be.is_total_only for each in held_out),
        perfect=amounts_json(_sums(failed, lambda each: each.used)),
        curve=curve,
        chosen=None if share is None else point_at(share, held_out),
        why=why,
        hindsight=max(allowed, key=_worth) if allowed else None,
    )


def _choice(tasks: Sequence[Judged]) -> tuple[int | None, str]:
    """Return the share that saves most on these tasks while few are wrongly blocked, and why it is."""
    if len(tasks) < TYPE_MIN:
        return None, f"{len(tasks)} tasks to choose on, and it takes {TYPE_MIN}"
    if not any(each.has_failed for each in tasks):
        return None, "no run is known to have failed: a block can save nothing that is known"
    allowed = [point for point in curve_of(tasks) if _is_allowed(point)]
    best = max(allowed, key=_worth, default=None)
    if best is None or not best.saved_share:
        return None, "no share saves anything with fewer than 5 % wrongly blocked"
    why = (
        f"saves {tenths(best.saved_share)} of what failed runs used where it was chosen, and "
        f"{tenths(best.wrong_share)} are wrongly blocked"
    )
    return round(best.times * SHARE_PLACES), why


def _is_allowed(point: Point) -> bool:
    return point.tasks > 0 and point.wrong_share < WRONG_SHARE_MAX


def _worth(point: Point) -> tuple[float, float]:
    """Of two that save as much, the one that blocks later."""
    return point.saved_share, point.times


def curve_of(tasks: Sequence[Judged]) -> list[Point]:
    """Return what a block at each of `SHARES` would have done."""
    return [point_at(share, tasks) for share in SHARES]


def point_at(share: int, tasks: Sequence[Judged]) -> Point:
    """Return what a block at one of `SHARES` of the limit would have done."""
    stopped = [each for each in tasks if share in each.would_be.stops]
    wrong = sum(not each.has_failed for each in stopped)
    failed = [each for each in stopped if each.has_failed]
    saved = _sums(failed, lambda each: saved_by(each, each.stops[share]))
    spent = _sums((each for each in tasks if each.has_failed), lambda each: each.used)
    whole = spent[Metric.TOKENS]
    return Point(
        times=share / SHARE_PLACES,
        tasks=len(tasks),
        blocked=len(stopped),
        wrong=wrong,
        wrong_share=wrong / len(tasks) if tasks else 0.0,
        interval=wilson(wrong, len(tasks)),
        saved=amounts_json(saved),
        saved_share=saved[Metric.TOKENS] / whole if whole else 0.0,
    )


def saved_by(would_be: WouldBe, stop: Stop) -> dict[Metric, int]:
    """Return what a run would not have used, in folded units; see the assumption above."""
    if not would_be.is_total_only:
        return {metric: used - stop.used[metric] for metric, used in would_be.used.items()}
    whole = would_be.used[stop.metric]
    return {metric: used * (whole - stop.at) // whole for metric, used in would_be.used.items()}


def _sums(
    runs: Iterable[Judged], amounts_of: Callable[[WouldBe], dict[Metric, int]]
) -> dict[Metric, int]:
    """Return sums by metric; time and money only of runs of which they are known, or none at all."""
    sums = {Metric.TOKENS: 0}
    for run in runs:
        for metric, amount in amounts_of(run.would_be).items():
            if metric is Metric.TOKENS or metric in run.task.used:
                sums[metric] = sums.get(metric, 0) + amount
    return sums
