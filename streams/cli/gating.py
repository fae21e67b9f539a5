"""What `replay` says of a policy that is to be held against history: the gate, and what blocks save."""

from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct
from rich.table import Table

from schemas.fields import Metric, Number, Verdict
from schemas.outputs import PolicyRef
from streams.budget.policy import Policy
from streams.cli.curves import draw_curve
from streams.cli.exits import AnswerIsNoError, say_unreadable
from streams.cli.show import console, plain, print_json, table, verdict_text
from streams.cli.tables import shortened
from streams.importers.summary import Unreadable
from streams.insight.gate import Fate, Gate, Group, JudgedTasks, Step, fate_of, gate, judged
from streams.insight.numbers import amount, compact, counted, tenths
from streams.insight.savings import AllSavings, Point, Savings, savings
from streams.insight.split import HoldOut, parted
from streams.replay.judging import judge
from streams.replay.logs import LogEvents

# Of what a threshold is chosen on and judged on, where nothing is said.
CURVE_HOLD_OUT = 0.3


class Asked(Struct, frozen=True, kw_only=True):
    """What is asked of history; `gate`: the answer is no where the gate does not hold."""

    policy: Policy
    against: Policy | None
    gate: bool
    hold_out: HoldOut | None
    curve: Path | None


class PolicyJudged(Struct, frozen=True):
    """A policy, what the gate says of it, and what it would have said of each task."""

    policy: PolicyRef
    gate: Gate
    tasks: list[Fate]


class GateAnswer(Struct, frozen=True, kw_only=True):
    """What history says of a policy: on the part that is held out, or on all of it."""

    hold_out: HoldOut | None
    tasks: int
    judged: PolicyJudged
    against: PolicyJudged | None
    savings: AllSavings | None
    unreadable: int
    unreadable_named: list[Unreadable]


class GateShutError(AnswerIsNoError):
    """The gate does not hold."""

    def __init__(self, step: Step) -> None:
        super().__init__(f"the gate does not hold: {step.why}")


def answer(log: LogEvents, asked: Asked) -> GateAnswer:
    """Return what the events of files say of the policies that are asked about."""
    policies = [asked.policy] if asked.against is None else [asked.policy, asked.against]
    found = judge(log, policies)
    everything = [judged(found.tasks, each.would_be) for each in found.judgements]
    tasks = [_held_out(each, asked.hold_out) for each in everything]
    said = [
        PolicyJudged(
            PolicyRef(policy.version, policy.hash),
            gate(each),
            [fate_of(task) for task in each.tasks],
        )
        for policy, each in zip(policies, tasks, strict=True)
    ]
    saved = None
    if asked.curve is not None:
        saved = savings(everything[0], asked.hold_out or HoldOut(CURVE_HOLD_OUT))
    return GateAnswer(
        hold_out=asked.hold_out,
        tasks=len(everything[0].tasks),
        judged=said[0],
        against=said[1] if asked.against is not None else None,
        savings=saved,
        unreadable=log.summary.unreadable,
        unreadable_named=log.summary.unreadable_named,
    )


def _held_out(found: JudgedTasks, hold_out: HoldOut | None) -> JudgedTasks:
    if hold_out is None:
        return found
    _, tasks = parted(found.tasks, hold_out, lambda each: each.task.group)
    return JudgedTasks(tasks, found.usage_unknown)


def tell(found: GateAnswer, asked: Asked, *, as_json: bool) -> None:
    """Draw and print an answer.

    Raises:
        GateShutError: the gate was asked for, and does not hold.
        StoplossError: the picture cannot be drawn.
    """
    if asked.curve is not None and found.savings is not None:
        draw_curve(found.savings, asked.curve)
    if as_json:
        print_json(found)
    else:
        _show(found, asked.curve)
    if asked.gate and not found.judged.gate.partial.holds:
        raise GateShutError(found.judged.gate.partial)


def _show(found: GateAnswer, curve: Path | None) -> None:
    out = console()
    said = found.judged
    out.print(
        plain(f"policy {said.policy.version} ({said.policy.hash}) on {_which(found)}")
        + _left_out(said.gate)
    )
    if found.against is not None:
        _show_side_by_side(said, found.against)
    _show_groups(said.gate)
    out.print("\nThe tasks to look at first:")
    for each in said.gate.worst:
        out.print(f"  {plain(each.task_id)} {plain(each.text)}")
    if found.savings is not None:
        _show_savings(found.savings)
        out.print(f"drawn in {plain(str(curve))}")
    out.print(f"\n{_step('partial', said.gate.partial)}\n{_step('enforce', said.gate.enforce)}")
    say_unreadable(found.unreadable, found.unreadable_named)


def _which(found: GateAnswer) -> str:
    total = found.judged.gate.total.tasks
    if found.hold_out is None:
        return f"{counted(total, 'task')}: say --hold-out where it was made from them"
    return (
        f"{total:,} of {counted(found.tasks, 'task')}, those held out "
        f"(share {found.hold_out.share:g}, seed {found.hold_out.seed})"
    )


def _left_out(said: Gate) -> str:
    if not said.usage_unknown:
        return ""
    return f"; {counted(said.usage_unknown, 'task')} left out, their usage is not known"


def _step(mode: str, step: Step) -> str:
    return f"{mode}: {'holds' if step.holds else 'does not hold'}; {step.why}"


def _show_side_by_side(one: PolicyJudged, other: PolicyJudged) -> None:
    made = table("", plain(one.policy.version), plain(other.policy.version))
    made.columns[1].justify = made.columns[2].justify = "right"
    groups = one.gate.total, other.gate.total
    for verdict in Verdict:
        made.add_row(verdict_text(verdict), *(f"{each.verdicts[verdict]:,}" for each in groups))
    for name, texts in (
        ("failed, blocked", [f"{each.failed_blocked:,} of {each.failed:,}" for each in groups]),
        ("right, blocked", [f"{each.false_positives:,}" for each in groups]),
        ("finished, blocked", [f"{each.suspected:,}" for each in groups]),
        ("unknown, blocked", [f"{each.unknown:,}" for each in groups]),
        ("wrong", [_wrong(each) for each in groups]),
        ("partial", [_holds(each.gate.partial) for each in (one, other)]),
        ("enforce", [_holds(each.gate.enforce) for each in (one, other)]),
    ):
        made.add_row(name, *texts)
    console().print()
    console().print(made)


def _holds(step: Step) -> str:
    return "holds" if step.holds else "does not hold"


def _show_groups(said: Gate) -> None:
    out = console()
    columns = ("TASKS", "NOTICE", "WARN", "REVIEW", "BLOCK", "FAILED", "RIGHT", "FINISHED")
    made = table("", *columns, "UNKNOWN", "WRONG, 95 %", right=(*columns, "UNKNOWN", "WRONG, 95 %"))
    _add_rows(made, [said.total])
    for name, groups in (
        ("task type", said.by_task_type),
        ("importance/complexity", said.by_tier),
        ("phase", said.by_phase),
    ):
        made.add_row("")
        made.add_row(f"by {name}")
        _add_rows(made, groups)
    out.print()
    out.print(made)
    out.print(
        "FAILED, RIGHT, FINISHED, UNKNOWN: how those ended that would have been blocked; "
        "all but the failed ones count as wrong"
    )


def _add_rows(made: Table, groups: Iterable[Group]) -> None:
    for each in groups:
        made.add_row(
            shortened(each.name),
            f"{each.tasks:,}",
            *(f"{each.verdicts[level]:,}" for level in (*Verdict,)[1:4]),
            f"{each.blocked:,}",
            f"{each.failed_blocked:,}/{each.failed:,}",
            f"{each.false_positives:,}",
            f"{each.suspected:,}",
            f"{each.unknown:,}",
            _wrong(each),
        )


def _wrong(group: Group) -> str:
    interval = group.interval
    return f"{tenths(group.wrong_share)} ({interval.lower * 100:.1f}–{interval.upper * 100:.1f})"


def _show_savings(found: AllSavings) -> None:
    out = console()
    right = ("FAILED", "BLOCK AT", "TOKENS", "COST", "TIME", "OF FAILED", "WRONG", "BEST", "ALL")
    made = table("NOT SPENT ON FAILED RUNS", *right, right=right)
    kinds = [found.total] if len(found.by_task_type) == 1 else [found.total, *found.by_task_type]
    for each in kinds:
        made.add_row(shortened(each.task_type), f"{each.failed:,}", *_saved(each))
    out.print()
    out.print(made)
    out.print(
        "BLOCK AT: times the limit, chosen on the rest of the history; BEST: the best one in "
        "hindsight; ALL: had exactly the failed runs been stopped at once"
    )
    for each in kinds:
        out.print(plain(f"  {each.task_type}: {each.why}"))
    out.print(f"assumed: {found.assumption} ({counted(found.total.evenly, 'run')})")


def _saved(each: Savings) -> tuple[str, ...]:
    perfect = _amount(each.perfect, Metric.TOKENS)
    best = "–" if each.hindsight is None else _brief(each.hindsight)
    point = each.chosen
    if point is None:
        return "–", "", "", "", "", "", best, perfect
    return (
        f"×{point.times:g}",
        _amount(point.saved, Metric.TOKENS),
        _amount(point.saved, Metric.COST_USD),
        _amount(point.saved, Metric.LATENCY_MS),
        tenths(point.saved_share),
        tenths(point.wrong_share),
        best,
        perfect,
    )


def _brief(point: Point) -> str:
    return f"×{point.times:g}: {tenths(point.saved_share)}"


def _amount(amounts: dict[Metric, Number], metric: Metric) -> str:
    value = amounts.get(metric)
    if value is None:
        return "–"
    return compact(value) if metric is Metric.TOKENS else amount(value, metric)
