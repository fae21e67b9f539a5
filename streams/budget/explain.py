"""Why a cell was crossed, and the sentence that says so to people and agents.

Source: budget model, "Breach explanations". The thresholds are the policy's.
"""

from dataclasses import dataclass
from fractions import Fraction

from schemas.fields import Cause, Metric, Number, Scope
from schemas.outputs import Cell as CellRef
from streams.budget.amounts import MILLI_PER_TOKEN, NANO_PER_DOLLAR, dollars, number
from streams.budget.ladder import BLOCK, CONTINUE, NOTICE, REVIEW, WARN
from streams.budget.limits import LATENCY, METRICS
from streams.budget.policy import Explanations
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
    found = _counted(counters)
    return {name: found.get(name, 0) for name in COUNTER_NAMES} if zeros else found


def _counted(counters: Counters) -> dict[str, Number]:
    """Written out: every batch does it for every phase of all that it touched."""
    found: dict[str, Number] = {}
    if amount := counters.model_calls:
        found["model_calls"] = amount
    if amount := counters.input_tokens:
        found["input_tokens"] = amount
    if amount := counters.cache_read_tokens:
        found["cache_read_tokens"] = amount
    if amount := counters.cache_write_tokens:
        found["cache_write_tokens"] = amount
    if amount := counters.output_tokens:
        found["output_tokens"] = amount
    if amount := counters.reasoning_tokens:
        found["reasoning_tokens"] = amount
    if amount := counters.cost_usd:
        found["cost_usd"] = dollars(amount)
    if amount := counters.duration_ms:
        found["duration_ms"] = amount
    if amount := counters.tool_calls:
        found["tool_calls"] = amount
    if amount := counters.files_read:
        found["files_read"] = amount
    if amount := counters.output_chars:
        found["output_chars"] = amount
    if amount := counters.unknown_usage:
        found["unknown_usage"] = amount
    if amount := counters.estimated_usage:
        found["estimated_usage"] = amount
    return found


@dataclass(frozen=True, slots=True)
class Spent:
    """What a cell's own executions have used; `repeated` of it in attempt 2 and later."""

    counters: Counters
    attempts: int
    metered: int  # milli-tokens
    repeated: int


def spent(task: Task, name: str | None) -> Spent:
    """Return what a phase's executions have used, or all of a task's."""
    if name is None:
        executions = [one for phase in task.phases.values() for one in phase.executions]
    else:
        executions = task.phases[name].executions
    return Spent(
        counters_of(executions),
        max((one.attempt for one in executions), default=0),
        sum(one.metered for one in executions),
        sum(one.metered for one in executions if one.attempt > 1),
    )


def evidence(task: Task, name: str | None, index: int, used: Spent) -> dict[str, Number]:
    """Return the figures that a cause rests on."""
    found = counters_json(used.counters, zeros=False)
    found["metered_tokens"] = number(used.metered, Metric.TOKENS)
    found["attempts"] = used.attempts
    if used.repeated:
        found["repeated_tokens"] = number(used.repeated, Metric.TOKENS)
    line = task.cell(name, index).line
    if line is not None and line.computed is not None:
        found["computed_limit"] = number(line.computed, METRICS[index])
    return found


def cause(task: Task, name: str | None, index: int, used: Spent) -> Cause:
    """Return why a cell was crossed."""
    line = task.cell(name, index).line
    if line is not None and line.computed is not None and line.limit < line.computed:
        return Cause.OVERRIDE_TOO_LOW
    is_slow = index == LATENCY and _within(task.cell(name, 0))
    return usage_cause(task.policy.explanations, used, is_slow=is_slow)


def usage_cause(rules: Explanations, used: Spent, *, is_slow: bool) -> Cause:
    """Return what stands out of what was used.

    Args:
        rules: what a cause needs.
        used: by what is to be explained.
        is_slow: it took longer than its limit while it used no more tokens than theirs.
    """
    counters = used.counters
    missing = counters.unknown_usage + counters.estimated_usage
    if missing and _reaches(missing, rules.missing_share, counters.model_calls):
        return Cause.MISSING_USAGE
    if is_slow:
        return Cause.SLOW_MODEL
    if used.metered and _reaches(used.repeated, rules.backtracking_share, used.metered):
        return Cause.BACKTRACKING
    output = counters.output_tokens * MILLI_PER_TOKEN
    share = rules.inefficient_output_share
    if used.metered and output * share.denominator <= share.numerator * used.metered:
        return Cause.INEFFICIENT
    if counters.files_read >= rules.research_files_read:
        return Cause.EXTENSIVE_RESEARCH
    if counters.model_calls >= rules.iteration_model_calls:
        return Cause.ITERATION
    return Cause.UNCLASSIFIED


def _reaches(part: int, share: Fraction, whole: int) -> bool:
    """Tell whether part ≥ share × whole, in whole numbers: a product of fractions takes ten times as long."""
    return part * share.denominator >= share.numerator * whole


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
