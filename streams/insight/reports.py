"""How a task went, or goes: three lines first, then phases, causes, comparison.

Source: budget model, "Reports".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import msgspec
from msgspec import Struct

from schemas.fields import Cause, Metric, Number, Scope, Verdict
from schemas.outputs import Cell
from schemas.reports import (
    BlockReport,
    CauseReport,
    ExplanationReport,
    LimitsChange,
    MetricReport,
    PhaseReport,
    Report,
)
from schemas.state import CellState, TaskStateData
from streams.insight.numbers import ratio_of
from streams.insight.similar import Baselines
from streams.insight.summary import cause_text, findings, summary, unusual
from streams.insight.task_facts import (
    LEVELS,
    NOWHERE,
    Crossing,
    Place,
    Run,
    TaskFacts,
    cell_key,
    used_by,
)

ASKED_FROM_SHARE = 1.5  # of a limit: why so much? Source: budget model, "Reports"
NONE, ASKED, OWED = "none", "asked", "owed"
TASK_ID = "{task_id}"


class Below(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What all tasks below one have used: it counts for that one as well."""

    tokens: Number = 0
    cost_usd: Number = 0


class Material(Struct, frozen=True, kw_only=True):
    """What a report is made of.

    `state` is what `tasks` says, where it is at hand: it knows what open runs have used so far, and
    the limits of all cells. `children` are all tasks below this one, or `below` says what they have
    used together: their tokens and cost count for it too. `link` leads to the report.
    """

    facts: TaskFacts
    baselines: Baselines
    children: Sequence[TaskFacts] = ()
    below: Below | None = None
    state: TaskStateData | None = None
    revision: int = 1
    link: str | None = None


def compose(material: Material) -> Report:
    """Return the report of a task as far as it is known."""
    facts, state = material.facts, material.state
    told = _sorted(material)
    metrics = _task_metrics(told)
    phases = _phases(told)
    changes = _limits_changes(facts)
    causes = _causes(told, changes, {None: metrics} | {each.phase: each.metrics for each in phases})
    explanation = _explanation(told, [metrics, *(phase.metrics for phase in phases)])
    report = Report(
        task_id=facts.task_id,
        revision=material.revision,
        final=facts.is_ended,
        status=facts.status,
        outcome=facts.outcome,
        verdict=facts.verdict if state is None else state.verdict,
        inherited_from=_inherited_from(told),
        complexity=facts.complexity,
        importance=facts.importance,
        task_type=facts.task_type,
        owner=facts.owner,
        team=facts.team,
        started=facts.started,
        ended=facts.ended,
        summary=["", "", ""],
        metrics=metrics,
        phases=phases,
        causes=causes,
        explanation=explanation,
        explanations=[
            ExplanationReport(by=each.by, text=each.text, time=each.time, phase=each.phase)
            for each in facts.explanations
        ],
        limits_changes=changes,
        blocks=[
            BlockReport(
                decision_id=each.decision_id,
                time=each.time,
                message=each.message,
                enforced=each.enforced,
                false_positive=each.false_positive,
                answered_by=each.answered_by,
            )
            for each in facts.blocks.values()
        ],
        flags=facts.flags,
        link=material.link,
    )
    report = msgspec.structs.replace(report, findings=findings(report))
    return msgspec.structs.replace(report, summary=summary(report))


def used_below(tasks: Iterable[TaskFacts]) -> Below:
    """Return what tasks have used together, as far as it counts for whoever is above them."""
    tokens: Number = 0
    cost_usd: Number = 0
    for each in tasks:
        used = _sum(each.runs.values())
        tokens += used[Metric.TOKENS]
        cost_usd += used[Metric.COST_USD]
    return Below(tokens=tokens, cost_usd=cost_usd)


def report_link(template: str | None, task_id: str) -> str | None:
    """Return where a report is to be read: the template with the id for `{task_id}`, quoted."""
    return None if template is None else template.replace(TASK_ID, quote(task_id, safe=""))


def owes_explanation(facts: TaskFacts) -> bool:
    """Whether the task itself came to review or block, and nobody has written why since."""
    owed = max((facts.owed, *_crossed_unsaid(facts)))
    return all(each.place <= owed for each in facts.explanations) and owed > NOWHERE


def _crossed_unsaid(facts: TaskFacts) -> Iterable[Place]:
    """Yield where a task came to review or block while it inherits one: no decision says so then."""
    if facts.inherited_from is None:
        return
    for each in facts.crossings.values():
        is_owed = each.level in (Verdict.REVIEW, Verdict.BLOCK) and not each.withdrawn
        if is_owed and each.place > facts.decided:
            yield each.place


@dataclass(frozen=True)
class _Told:
    """The material, by what it is about: a report has hundreds of cells, and of runs and crossings."""

    material: Material
    runs: Mapping[str, Sequence[Run]]  # by phase, in the order in which they ran
    crossings: Mapping[str, Sequence[Crossing]]  # by cell, those that are not withdrawn
    states: Mapping[str, CellState]  # by cell


def _sorted(material: Material) -> _Told:
    facts, state = material.facts, material.state
    runs: dict[str, list[Run]] = {}
    for run in facts.runs.values():
        runs.setdefault(run.phase, []).append(run)
    crossings: dict[str, list[Crossing]] = {}
    for each in facts.crossings.values():
        if not each.withdrawn:
            crossings.setdefault(cell_key(each.cell), []).append(each)
    cells = [] if state is None else state.cells
    states = {cell_key(Cell(each.scope, each.metric, each.phase)): each for each in cells}
    return _Told(material, runs, crossings, states)


def _task_metrics(told: _Told) -> dict[Metric, MetricReport]:
    material = told.material
    used = _sum(material.facts.runs.values())
    below = used_below(material.children) if material.below is None else material.below
    used[Metric.TOKENS] += below.tokens
    used[Metric.COST_USD] += below.cost_usd
    return _metrics(told, None, used, material.facts.limits.get(Scope.TASK.value, {}))


def _phases(told: _Told) -> list[PhaseReport]:
    """Return the phases in the order in which they ran, those that have not ended last."""
    state = told.material.state
    names = list(told.runs)
    crossed = (each.cell.phase for found in told.crossings.values() for each in found)
    names += [phase for phase in crossed if phase is not None]
    names += state.phases if state is not None else []
    return [_phase(told, name) for name in dict.fromkeys(names)]


def _phase(told: _Told, name: str) -> PhaseReport:
    facts, state = told.material.facts, told.material.state
    runs = told.runs.get(name, ())
    last = max(runs, key=lambda run: run.attempt, default=None)
    known = None if state is None else state.phases.get(name)
    limits = facts.limits.get(name) or (last.limits if last else {})
    metrics = _metrics(told, name, _sum(runs), limits)
    return PhaseReport(
        phase=name,
        attempts=max(len(runs), 1) if known is None else known.attempts,
        outcome=None if last is None else last.outcome,
        metrics=metrics,
        counters=_counters(runs) if known is None else known.counters,
        unusual=unusual(name, metrics, has_ended=last is not None),
    )


def _metrics(
    told: _Told,
    phase: str | None,
    used: Mapping[Metric, Number],
    limits: Mapping[str, Number],
) -> dict[Metric, MetricReport]:
    """Return what is used of each metric of a phase or task; what `tasks` says of it goes first."""
    facts = told.material.facts
    scope = Scope.TASK if phase is None else Scope.PHASE
    keys = {metric: cell_key(Cell(scope, metric, phase)) for metric in Metric}
    states = {metric: told.states.get(key) for metric, key in keys.items()}
    values = {
        metric: _at_least(told, keys[metric], used[metric]) if state is None else state.used
        for metric, state in states.items()
    }
    similar = {}
    if phase is not None:
        similar = told.material.baselines.similar(phase, facts.complexity, facts.importance, values)
    found = {}
    for metric, state in states.items():
        limit = limits.get(metric.value) if state is None else state.limit
        if values[metric] or limit is not None:
            found[metric] = MetricReport(
                used=values[metric],
                limit=limit,
                share=ratio_of(values[metric], limit),
                level=_level(told, keys[metric]) if state is None else state.level,
                similar=similar.get(metric),
            )
    return found


def _at_least(told: _Told, cell: str, used: Number) -> Number:
    """Return what a cell has used: a run that has not ended is known from what it crossed alone."""
    return max((used, *(each.used for each in told.crossings.get(cell, ()))))


def _level(told: _Told, cell: str) -> Verdict:
    """Return the highest level that a cell has come to under its present limits."""
    version = told.material.facts.limits_version
    levels = [each.level for each in told.crossings.get(cell, ()) if each.limits_version == version]
    return max(levels, key=LEVELS.index, default=Verdict.CONTINUE)


def _limits_changes(facts: TaskFacts) -> list[LimitsChange]:
    return [
        LimitsChange(
            change=each.change,
            by=each.by,
            reason=each.reason,
            time=each.time,
            limits_version=each.limits_version,
        )
        for each in facts.limits_changes
    ]


def _causes(
    told: _Told,
    changes: Sequence[LimitsChange],
    metrics: Mapping[str | None, Mapping[Metric, MetricReport]],
) -> list[CauseReport]:
    """Return the highest crossing of each cell that has a cause, the most serious first.

    Args:
        told: the material.
        changes: of the limits, in their order.
        metrics: what is used and allowed now, by phase; None is the task.
    """
    highest = []
    for crossings in told.crossings.values():
        caused = [each for each in crossings if each.cause is not None]
        highest += sorted(caused, key=lambda each: LEVELS.index(each.level))[-1:]
    ordered = sorted(highest, key=lambda each: (-LEVELS.index(each.level), each.place))
    return [
        _cause(each, each.cause, changes, metrics[each.cell.phase][each.cell.metric])
        for each in ordered
        if each.cause is not None
    ]


def _cause(
    crossing: Crossing, cause: Cause, changes: Sequence[LimitsChange], now: MetricReport
) -> CauseReport:
    """Return a crossing as it was in its own moment, beside what is used and allowed now."""
    changed = None
    if now.limit not in (None, crossing.limit):
        later = (each for each in changes if each.limits_version > crossing.limits_version)
        changed = next(reversed(list(later)), None)
    found = CauseReport(
        cell=crossing.cell,
        level=crossing.level,
        cause=cause,
        evidence=crossing.evidence,
        used=crossing.used,
        limit=crossing.limit,
        used_now=now.used,
        limit_now=now.limit,
        changed=changed,
        text="",
    )
    return msgspec.structs.replace(found, text=cause_text(found))


def _inherited_from(told: _Told) -> str | None:
    """Return whose block holds the task; None where none does, or it is at block itself.

    That it comes to block itself while it inherits one is no decision, only a crossing.
    """
    facts, state = told.material.facts, told.material.state
    if state is not None:
        is_own = any(each.level is Verdict.BLOCK for each in state.cells)
        return None if is_own else state.inherited_from
    is_own = any(_level(told, cell) is Verdict.BLOCK for cell in told.crossings)
    return None if is_own else facts.inherited_from


def _explanation(told: _Told, metrics: Iterable[Mapping[Metric, MetricReport]]) -> str:
    facts = told.material.facts
    if owes_explanation(facts):
        return OWED
    shares = [each.share or 0 for found in metrics for each in found.values()]
    is_high = max(shares, default=0) > ASKED_FROM_SHARE
    return ASKED if is_high and not facts.explanations else NONE


def _sum(runs: Iterable[Run]) -> dict[Metric, Number]:
    total: dict[Metric, Number] = dict.fromkeys(Metric, 0)
    for run in runs:
        for metric, used in used_by(run).items():
            total[metric] += used
    return total


def _counters(runs: Iterable[Run]) -> dict[str, Number]:
    total: dict[str, Number] = {}
    for run in runs:
        for name, count in run.counters.items():
            total[name] = total.get(name, 0) + count
    return total
