"""The gate: would a policy have blocked honest work, on tasks that it was not made from?

What would have happened to each task comes from the fold; here it is held against how the task ended.
A task that was right and would have been blocked is a false positive. Of one that finished, and one of
which nothing is known, nobody can say that a block would have been right: they are counted apart, and
against the policy. Source: budget model, "Calibration and promotion".

A task is a root task: what its sub-agents use is in its own use, and a block of theirs is one of it.
"""

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from schemas.fields import Cause, Metric, Number, Verdict
from streams.budget.amounts import number
from streams.insight.history import TaskHistory
from streams.insight.intervals import Interval, wilson
from streams.insight.numbers import amount, compact, counted, tenths

TASKS_MIN = 50
WRONG_SHARE_MAX = 0.05
WORST_MAX = 10
# From here on a breach's cause is that usage is missing: of such a task nobody can say what it used.
UNKNOWN_SHARE_MAX = 0.5
WITHOUT_TYPE = "none"
TOTAL = "all"


class Ended(enum.StrEnum):
    """What is known of how a task ended."""

    RIGHT = "right"
    FINISHED = "finished"  # whether it was right is not known
    UNKNOWN = "unknown"
    FAILED = "failed"
    UNFINISHED = "unfinished"  # and so, in all likelihood, not right


# Work of which a block cannot be called right, the surest first.
HONEST = (Ended.RIGHT, Ended.FINISHED, Ended.UNKNOWN)


class Stop(Struct, frozen=True, kw_only=True):
    """Where a task would have been stopped, amounts in folded units.

    `used` is by the end of the crossing event; `at` is where the level begins, in `metric`. `phase` is
    the one that was worked in.
    """

    used: dict[Metric, int]
    metric: Metric
    at: int
    limit: int
    phase: str | None
    cause: Cause


class WouldBe(Struct, frozen=True, kw_only=True):
    """What a policy would have said of a task, amounts in folded units.

    `reports` counts reports of its usage, those of tasks below it included. `stops` has where it would
    have been stopped if the task's block stood at another share of the limit, in ten-thousandths.
    """

    task_id: str
    peak: Verdict
    limit: dict[Metric, int]
    used: dict[Metric, int]
    reports: int
    block: Stop | None
    stops: dict[int, Stop] = {}

    @property
    def is_total_only(self) -> bool:
        """Whether nothing is known of the order in which it used what it used."""
        return self.reports <= 1


class Judged(Struct, frozen=True):
    """A task, how it ended, and what would have happened to it."""

    task: TaskHistory
    ended: Ended
    would_be: WouldBe

    @property
    def task_type(self) -> str:
        """Its kind of work."""
        return self.task.task_type or WITHOUT_TYPE

    @property
    def tier(self) -> str:
        """Its importance and complexity."""
        return f"{self.task.importance}/{self.task.complexity}"

    @property
    def is_wrong(self) -> bool:
        """Whether it would have been blocked, and nobody can say that this would have been right."""
        return self.would_be.block is not None and self.ended in HONEST

    @property
    def has_failed(self) -> bool:
        """Whether what it used was in vain."""
        return self.ended not in HONEST


class JudgedTasks(Struct, frozen=True):
    """Tasks to judge by; `usage_unknown` are left out, since too much of their usage is not known."""

    tasks: list[Judged]
    usage_unknown: int = 0


class Group(Struct, frozen=True, kw_only=True):
    """What was counted of some tasks; `wrong_share` is of all of them, with its 95 % interval."""

    name: str
    tasks: int
    verdicts: dict[Verdict, int]
    blocked: int
    failed: int
    failed_blocked: int
    false_positives: int
    suspected: int
    unknown: int
    wrong: int
    wrong_share: float
    interval: Interval


class Fate(Struct, frozen=True, kw_only=True):
    """What would have happened to one task: `verdict` is the highest that would have been said.

    `blocked_at` is what it would have used by the end of the crossing event, in the metrics' units; `phase`
    the one that was worked in then, `cause` why.
    """

    task_id: str
    task_type: str | None
    tier: str
    ended: Ended
    verdict: Verdict
    blocked_at: dict[Metric, Number] | None
    phase: str | None
    cause: Cause | None


class Explained(Struct, frozen=True, kw_only=True):
    """One task and what would have happened to it, in a sentence."""

    task_id: str
    ended: Ended
    blocked: bool
    text: str


class Step(Struct, frozen=True):
    """Whether a mode may be entered, and why."""

    holds: bool
    why: str


class Gate(Struct, frozen=True, kw_only=True):
    """What the gate says of a policy. `groups` has the same by task type, tier and phase."""

    tasks_min: int = TASKS_MIN
    wrong_share_max: float = WRONG_SHARE_MAX
    total: Group
    usage_unknown: int
    by_task_type: list[Group]
    by_tier: list[Group]
    by_phase: list[Group]
    worst: list[Explained] = field(default_factory=list)
    partial: Step
    enforce: Step


def judged(
    histories: Iterable[TaskHistory],
    would_be: Mapping[str, WouldBe],
    answers: Mapping[str, bool] | None = None,
) -> JudgedTasks:
    """Return the root tasks with what would have happened to them.

    Args:
        histories: of tasks that have ended.
        would_be: by task; one that is not in it is left out.
        answers: whether a block of a task was a false positive, where somebody has said so.
    """
    known = {each.task_id: each for each in histories if each.task_id in would_be}
    below: dict[str, WouldBe] = {}
    for each in known.values():
        if each.parent_id in known and would_be[each.task_id].block is not None:
            below.setdefault(_root(known, each), would_be[each.task_id])
    found, usage_unknown = [], 0
    for task_id, task in known.items():
        if task.parent_id in known:
            continue
        if task.unknown_share >= UNKNOWN_SHARE_MAX:
            usage_unknown += 1
            continue
        said = would_be[task_id]
        if said.block is None and task_id in below:
            said = replace(said, peak=Verdict.BLOCK, block=below[task_id].block)
        answer = None if answers is None else answers.get(task_id)
        found.append(Judged(task, _ended(task, answer=answer), said))
    return JudgedTasks(found, usage_unknown)


def _root(known: Mapping[str, TaskHistory], task: TaskHistory) -> str:
    seen = {task.task_id}
    while task.parent_id is not None and task.parent_id in known and task.parent_id not in seen:
        task = known[task.parent_id]
        seen.add(task.task_id)
    return task.task_id


def _ended(task: TaskHistory, *, answer: bool | None) -> Ended:
    if answer is not None:
        return Ended.RIGHT if answer else Ended.FAILED
    if task.success is not None:
        return Ended.RIGHT if task.success else Ended.FAILED
    if task.finished is not None:
        return Ended.FINISHED if task.finished else Ended.UNFINISHED
    return Ended.UNKNOWN


def fate_of(each: Judged) -> Fate:
    """Return what would have happened to a task."""
    block = each.would_be.block
    return Fate(
        task_id=each.task.task_id,
        task_type=each.task.task_type,
        tier=each.tier,
        ended=each.ended,
        verdict=each.would_be.peak,
        blocked_at=None if block is None else amounts_json(block.used),
        phase=None if block is None else block.phase,
        cause=None if block is None else block.cause,
    )


def gate(found: JudgedTasks) -> Gate:
    """Return what the gate says of a policy: it never holds on fewer tasks than its minimum."""
    total = group_of(TOTAL, found.tasks)
    return Gate(
        total=total,
        usage_unknown=found.usage_unknown,
        by_task_type=_grouped(found.tasks, lambda each: each.task_type),
        by_tier=_grouped(found.tasks, lambda each: each.tier),
        by_phase=_by_phase(found.tasks),
        worst=[_explained(each) for each in _worst(found.tasks)],
        partial=partial_step(total),
        enforce=enforce_step(total),
    )


def partial_step(total: Group) -> Step:
    """Return whether partial may be entered: enough tasks, and few of them wrongly blocked."""
    if total.tasks < TASKS_MIN:
        return _too_few(total)
    said = f"{total.wrong:,} of {counted(total.tasks, 'task')} would have been wrongly blocked"
    return Step(
        total.wrong_share < WRONG_SHARE_MAX,
        f"{said}: {tenths(total.wrong_share)}, and it must be below {tenths(WRONG_SHARE_MAX)}",
    )


def enforce_step(total: Group) -> Step:
    """Return whether enforce may be entered: also with bad luck in which tasks came, few wrong."""
    if total.tasks < TASKS_MIN:
        return _too_few(total)
    upper = total.interval.upper
    return Step(
        upper < WRONG_SHARE_MAX,
        f"with {total.wrong:,} of {counted(total.tasks, 'task')} the share of wrongly blocked ones is "
        f"up to {tenths(upper)} (95 %), and it must be below {tenths(WRONG_SHARE_MAX)}",
    )


def _too_few(total: Group) -> Step:
    return Step(
        holds=False,
        why=f"{counted(total.tasks, 'task')} to judge by, and it must be at least {TASKS_MIN}",
    )


def group_of(name: str, tasks: Sequence[Judged]) -> Group:
    """Return what is counted of some tasks."""
    return _group(name, tasks, [each for each in tasks if each.would_be.block is not None])


def _group(name: str, tasks: Sequence[Judged], blocked: Sequence[Judged]) -> Group:
    peaks = [each.would_be.peak for each in tasks]
    wrong = [each.ended for each in blocked if each.is_wrong]
    return Group(
        name=name,
        tasks=len(tasks),
        verdicts={verdict: peaks.count(verdict) for verdict in Verdict},
        blocked=len(blocked),
        failed=sum(each.has_failed for each in tasks),
        failed_blocked=sum(each.has_failed for each in blocked),
        false_positives=wrong.count(Ended.RIGHT),
        suspected=wrong.count(Ended.FINISHED),
        unknown=wrong.count(Ended.UNKNOWN),
        wrong=len(wrong),
        wrong_share=len(wrong) / len(tasks) if tasks else 0.0,
        interval=wilson(len(wrong), len(tasks)),
    )


def _grouped(tasks: Sequence[Judged], name_of: Callable[[Judged], str]) -> list[Group]:
    names: dict[str, list[Judged]] = {}
    for each in tasks:
        names.setdefault(name_of(each), []).append(each)
    return [group_of(name, names[name]) for name in sorted(names)]


def _by_phase(tasks: Sequence[Judged]) -> list[Group]:
    """Count each task in all of its phases, and its block in the one in which it would have come."""
    worked: dict[str, list[Judged]] = {}
    stopped: dict[str, list[Judged]] = {}
    for each in tasks:
        block = each.would_be.block
        phases = {run.phase for run in each.task.runs}
        if block is not None and block.phase is not None:
            stopped.setdefault(block.phase, []).append(each)
            phases.add(block.phase)
        for phase in phases:
            worked.setdefault(phase, []).append(each)
    return [_group(phase, worked[phase], stopped.get(phase, ())) for phase in sorted(worked)]


def _worst(tasks: Sequence[Judged]) -> list[Judged]:
    """Return the wrongly blocked tasks, the surest first; then the honest ones nearest to a block."""
    honest = [each for each in tasks if each.ended in HONEST]

    def order(each: Judged) -> tuple[bool, int, float, str]:
        block = each.would_be.block
        if block is None:
            return True, 0, -_ratio(each.would_be, Metric.TOKENS), each.task.task_id
        sure = HONEST.index(each.ended)
        return False, sure, -_ratio(each.would_be, block.metric), each.task.task_id

    return sorted(honest, key=order)[:WORST_MAX]


def _ratio(would_be: WouldBe, metric: Metric) -> float:
    limit = would_be.limit.get(metric, 0)
    return would_be.used[metric] / limit if limit else 0.0


def _explained(each: Judged) -> Explained:
    block = each.would_be.block
    return Explained(
        task_id=each.task.task_id,
        ended=each.ended,
        blocked=block is not None,
        text=_near_text(each) if block is None else _block_text(each, block),
    )


def _block_text(each: Judged, block: Stop) -> str:
    used = each.would_be.used[block.metric]
    where = "" if block.phase is None else f" in {block.phase}"
    # Of a run of which only totals are known the level itself says more than the one report did.
    by_then = block.at if each.would_be.is_total_only else block.used[block.metric]
    stopped = _amount(by_then, block.metric).removesuffix(" tokens")
    return (
        f"{_HOW[each.ended]}, and would have been stopped{where} at {stopped} of the "
        f"{_amount(used, block.metric)} that it used: {block.at / block.limit:.1f} × its limit of "
        f"{_amount(block.limit, block.metric)}; {_WHY[block.cause]}"
    )


def _near_text(each: Judged) -> str:
    said = each.would_be
    used = _amount(said.used[Metric.TOKENS], Metric.TOKENS)
    limit = _amount(said.limit[Metric.TOKENS], Metric.TOKENS)
    return (
        f"{_HOW[each.ended]}, and would not have been stopped: it used {used}, "
        f"{_ratio(said, Metric.TOKENS):.1f} × its limit of {limit}"
    )


_HOW = {
    Ended.RIGHT: "was right",
    Ended.FINISHED: "finished",
    Ended.UNKNOWN: "nobody knows how it ended",
}
_WHY = {
    Cause.EXTENSIVE_RESEARCH: "it read many files",
    Cause.ITERATION: "it went on over many calls",
    Cause.INEFFICIENT: "hardly any of it was output",
    Cause.BACKTRACKING: "most of it in repeated attempts",
    Cause.SLOW_MODEL: "the model was slow",
    Cause.MISSING_USAGE: "much of its usage is not known",
    Cause.OVERRIDE_TOO_LOW: "its limit had been set by hand",
    Cause.UNCLASSIFIED: "nothing else stands out",
}
assert _WHY.keys() == set(Cause)


def amounts_json(amounts: Mapping[Metric, int]) -> dict[Metric, Number]:
    """Return folded amounts in their metrics' units."""
    return {metric: number(amounts[metric], metric) for metric in Metric if metric in amounts}


def _amount(folded: int, metric: Metric) -> str:
    value = number(folded, metric)
    return f"{compact(value)} tokens" if metric is Metric.TOKENS else amount(value, metric)
