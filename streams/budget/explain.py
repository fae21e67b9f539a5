"""Why a cell was crossed, and the sentence that says so to people and agents.

Source: budget model, "Breach explanations". The thresholds are the policy's.
"""

from fractions import Fraction

from schemas.fields import Cause, Metric, Number, Scope
from schemas.outputs import Cell as CellRef
from streams.budget.amounts import NANO_PER_DOLLAR, number
from streams.budget.ladder import BLOCK, CONTINUE, NOTICE, REVIEW, WARN
from streams.budget.limits import LATENCY, METRICS
from streams.budget.state import COUNTER_NAMES, Cell, Counters, Execution, Task

ADVICE = {
    CONTINUE: "within its limits: go on",
    NOTICE: "consider wrapping up",
    WARN: "go on; this is logged",
    REVIEW: "go on, and write down why: an explanation is owed",
    BLOCK: "stop until someone investigates or grants more",
}


def cell_ref(name: str | None, index: int) -> CellRef:
    """Return how a cell is named on the wire."""
    scope = Scope.TASK if name is None else Scope.PHASE
    return CellRef(scope, METRICS[index], name)


def counters_of(executions: list[Execution]) -> Counters:
    """Return the sum of what some executions used."""
    if len(executions) == 1:
        return executions[0].counters
    total = Counters()
    for execution in executions:
        total.add(execution.counters)
    return total


def counters_json(counters: Counters, *, zeros: bool) -> dict[str, Number]:
    """Return counters by name, the cost in dollars; without `zeros` only what there is."""
    found: dict[str, Number] = {}
    for name in COUNTER_NAMES:
        amount = getattr(counters, name)
        if amount or zeros:
            found[name] = number(amount, Metric.COST_USD) if name == "cost_usd" else amount
    return found


def explanation(task: Task, name: str | None, index: int) -> tuple[Cause, dict[str, Number]]:
    """Return the cause of a crossing and its evidence, from the cell's own executions."""
    executions = [
        execution
        for phase_name, phase in task.phases.items()
        if name in (None, phase_name)
        for execution in phase.executions
    ]
    counters = counters_of(executions)
    repeated = sum(execution.metered for execution in executions if execution.attempt > 1)
    metered = sum(execution.metered for execution in executions)
    evidence = counters_json(counters, zeros=False)
    evidence["metered_tokens"] = number(metered, Metric.TOKENS)
    evidence["attempts"] = max((execution.attempt for execution in executions), default=0)
    if repeated:
        evidence["repeated_tokens"] = number(repeated, Metric.TOKENS)
    line = task.cell(name, index).line
    if line is not None and line.computed is not None:
        evidence["computed_limit"] = number(line.computed, METRICS[index])
    return _cause(task, name, index, counters, metered, repeated), evidence


def _cause(
    task: Task, name: str | None, index: int, counters: Counters, metered: int, repeated: int
) -> Cause:
    rules = task.policy.explanations
    line = task.cell(name, index).line
    if line is not None and line.computed is not None and line.limit < line.computed:
        return Cause.OVERRIDE_TOO_LOW
    missing = counters.unknown_usage + counters.estimated_usage
    if missing and missing >= Fraction(rules.missing_share) * counters.model_calls:
        return Cause.MISSING_USAGE
    if index == LATENCY and _within(task.cell(name, 0)):
        return Cause.SLOW_MODEL
    if metered and repeated >= Fraction(rules.backtracking_share) * metered:
        return Cause.BACKTRACKING
    output = counters.output_tokens * 1_000
    if metered and output <= Fraction(rules.inefficient_output_share) * metered:
        return Cause.INEFFICIENT
    if counters.files_read >= rules.research_files_read:
        return Cause.EXTENSIVE_RESEARCH
    if counters.model_calls >= rules.iteration_model_calls:
        return Cause.ITERATION
    return Cause.UNCLASSIFIED


def _within(cell: Cell) -> bool:
    return cell.line is None or cell.used < cell.line.limit


def message(name: str | None, index: int, used: int, limit: int, level: int) -> str:
    """Return one line: what is used of which budget, and what to do."""
    metric = METRICS[index]
    subject = "the task" if name is None else name
    percent = used * 100 // limit
    return (
        f"{subject} at {percent} % of its {_BUDGET[metric]} "
        f"({amount_text(used, metric)} of {amount_text(limit, metric)}{_UNIT[metric]}): "
        f"{ADVICE[level]}"
    )


_BUDGET = {
    Metric.TOKENS: "token budget",
    Metric.LATENCY_MS: "time budget",
    Metric.COST_USD: "cost budget",
}


_UNIT = {Metric.TOKENS: " tokens", Metric.LATENCY_MS: " s", Metric.COST_USD: ""}


def amount_text(amount: int, metric: Metric) -> str:
    """Return a folded amount for people, its unit left out: `5,520`, `92.0`, `$1.25`."""
    if metric is Metric.TOKENS:
        return f"{amount // 1_000:,}"
    if metric is Metric.LATENCY_MS:
        return f"{amount // 1_000:,}.{amount % 1_000 // 100}"
    return f"${amount // NANO_PER_DOLLAR:,}.{amount % NANO_PER_DOLLAR // 10_000_000:02d}"
