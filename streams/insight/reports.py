"""How a task went, or goes: three lines first, then phases, causes, comparison.

Source: budget model, "Reports".
"""

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

import msgspec
from msgspec import Struct

from schemas.fields import Metric, Number, Scope, Verdict
from schemas.outputs import Cell
from schemas.reports import (
    BlockReport,
    CauseReport,
    ExplanationReport,
    MetricReport,
    PhaseReport,
    Report,
)
from schemas.state import CellState, TaskStateData
from streams.insight.similar import Baselines
from streams.insight.summary import cause_text, findings, summary, unusual
from streams.insight.task_facts import NOWHERE, Crossing, Run, TaskFacts, cell_key, used_by

ASKED_FROM_SHARE = 1.5  # of a limit: why so much? Source: budget model, "Reports"
LEVELS = tuple(Verdict)
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
    metrics = _task_metrics(material)
    phases = _phases(material)
    causes = _causes(facts)
    explanation = _explanation(facts, [metrics, *(phase.metrics for phase in phases)])
    report = Report(
        task_id=facts.task_id,
        revision=material.revision,
        final=facts.is_ended,
        status=facts.status,
        outcome=facts.outcome,
        verdict=facts.verdict if state is None else state.verdict,
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
    """Whether the task came to review or block, and nobody has written why since."""
    return all(each.place <= facts.owed for each in facts.explanations) and facts.owed > NOWHERE


def _task_metrics(material: Material) -> dict[Metric, MetricReport]:
    facts = material.facts
    used = _sum(facts.runs.values())
    below = used_below(material.children) if material.below is None else material.below
    used[Metric.TOKENS] += below.tokens
    used[Metric.COST_USD] += below.cost_usd
    return _metrics(material, None, used, facts.limits.get(Scope.TASK.value, {}))


def _phases(material: Material) -> list[PhaseReport]:
    """Return the phases in the order in which they ran, those that have not ended last."""
    facts, state = material.facts, material.state
    names = [run.phase for run in facts.runs.values()]
    names += [each.cell.phase for each in _standing(facts) if each.cell.phase is not None]
    names += state.phases if state is not None else []
    return [_phase(material, name) for name in dict.fromkeys(names)]


def _phase(material: Material, name: str) -> PhaseReport:
    facts = material.facts
    runs = [run for run in facts.runs.values() if run.phase == name]
    last = max(runs, key=lambda run: run.attempt, default=None)
    known = None if material.state is None else material.state.phases.get(name)
    limits = facts.limits.get(name) or (last.limits if last else {})
    metrics = _metrics(material, name, _sum(runs), limits)
    return PhaseReport(
        phase=name,
        attempts=max(len(runs), 1) if known is None else known.attempts,
        outcome=None if last is None else last.outcome,
        metrics=metrics,
        counters=_counters(runs) if known is None else known.counters,
        unusual=unusual(name, metrics, has_ended=last is not None),
    )


def _metrics(
    material: Material,
    phase: str | None,
    used: Mapping[Metric, Number],
    limits: Mapping[str, Number],
) -> dict[Metric, MetricReport]:
    """Return what is used of each metric of a phase or task; what `tasks` says of it goes first."""
    facts = material.facts
    scope = Scope.TASK if phase is None else Scope.PHASE
    cells = {metric: Cell(scope, metric, phase) for metric in Metric}
    states = {metric: _cell_state(material.state, cell) for metric, cell in cells.items()}
    values = {
        metric: _at_least(facts, cells[metric], used[metric]) if state is None else state.used
        for metric, state in states.items()
    }
    similar = {}
    if phase is not None:
        similar = material.baselines.similar(phase, facts.complexity, facts.importance, values)
    found = {}
    for metric, state in states.items():
        limit = limits.get(metric.value) if state is None else state.limit
        if values[metric] or limit is not None:
            found[metric] = MetricReport(
                used=values[metric],
                limit=limit,
                share=round(float(values[metric] / limit), 4) if limit else None,
                level=_level(facts, cells[metric]) if state is None else state.level,
                similar=similar.get(metric),
            )
    return found


def _cell_state(state: TaskStateData | None, cell: Cell) -> CellState | None:
    if state is None:
        return None
    named = (cell.scope, cell.metric, cell.phase)
    cells = (each for each in state.cells if (each.scope, each.metric, each.phase) == named)
    return next(cells, None)


def _at_least(facts: TaskFacts, cell: Cell, used: Number) -> Number:
    """Return what a cell has used: a run that has not ended is known from what it crossed alone."""
    crossed = [each.used for each in _standing(facts) if cell_key(each.cell) == cell_key(cell)]
    return max(used, *crossed) if crossed else used


def _level(facts: TaskFacts, cell: Cell) -> Verdict:
    """Return the highest level that a cell has come to under its present limits."""
    levels = [
        crossing.level
        for crossing in _standing(facts)
        if cell_key(crossing.cell) == cell_key(cell)
        and crossing.limits_version == facts.limits_version
    ]
    return max(levels, key=LEVELS.index, default=Verdict.CONTINUE)


def _standing(facts: TaskFacts) -> list[Crossing]:
    return [crossing for crossing in facts.crossings.values() if not crossing.withdrawn]


def _causes(facts: TaskFacts) -> list[CauseReport]:
    """Return the highest crossing of each cell that has a cause, the most serious first."""
    highest: dict[str, Crossing] = {}
    for crossing in sorted(_standing(facts), key=lambda each: LEVELS.index(each.level)):
        if crossing.cause is not None:
            highest[cell_key(crossing.cell)] = crossing
    ordered = sorted(highest.values(), key=lambda each: (-LEVELS.index(each.level), each.place))
    return [
        CauseReport(
            cell=each.cell,
            level=each.level,
            cause=each.cause,
            evidence=each.evidence,
            text=cause_text(each),
        )
        for each in ordered
        if each.cause is not None
    ]


def _explanation(facts: TaskFacts, metrics: Iterable[Mapping[Metric, MetricReport]]) -> str:
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
