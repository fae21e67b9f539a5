"""What was used is added: to its run, its phase, its task and every ancestor.

This is the hot path: nearly all events pass here. Source: budget model, "Words", "Attempts".
"""

from schemas.events import PhaseUsage, PhaseUsageData
from schemas.fields import ExecutionOutcome
from streams.budget.amounts import check_usage, metered_milli, nano_dollars
from streams.budget.decide import settle
from streams.budget.evaluate import raise_level
from streams.budget.executions import inferred_execution, phase_of
from streams.budget.families import roll_up
from streams.budget.records import emit_execution
from streams.budget.state import Execution, PartitionState, Phase, Task

TOKENS, LATENCY, COST = 0, 1, 2


def check_amounts(data: PhaseUsageData) -> int:
    """Return the cost in nano-dollars.

    Raises:
        InvalidFieldError: a part larger than its whole, or a cost that is no amount of money.
    """
    if data.cache_read_tokens or data.cache_write_tokens or data.reasoning_tokens:
        check_usage(data)
    return 0 if data.cost_usd is None else nano_dollars("data.cost_usd", data.cost_usd)


def fold_usage(state: PartitionState, task: Task, event: PhaseUsage, cost: int) -> None:
    """Add one report of usage; `cost` is what `check_amounts` returned."""
    data = event.data
    name = data.phase
    phase = task.phases.get(name)
    if phase is None:
        phase = phase_of(task, name)
    attempt = data.attempt
    execution = phase.current if attempt is None else phase.find(attempt)
    if execution is None:
        execution = inferred_execution(phase, attempt or 1)
    metered = metered_milli(
        task.policy.weights_milli,
        data.input_tokens or 0,
        data.cache_read_tokens or 0,
        data.cache_write_tokens or 0,
        data.output_tokens or 0,
    )
    execution.metered += metered
    latency_ms = _count(task, execution, data, cost)
    has_crossed = _add(state, task, name, phase, metered, latency_ms, cost)
    if task.parent is not None and (metered or cost):
        has_crossed |= roll_up(state, task, metered, cost)
    if execution.revision or task.is_ended:
        execution.outcome = execution.outcome or ExecutionOutcome.OPEN_AT_END
        emit_execution(state, task, name, phase, execution)
    if has_crossed:
        settle(state, task)
        for ancestor in task.ancestors():
            settle(state, ancestor)


def _count(task: Task, execution: Execution, data: PhaseUsageData, cost: int) -> int:
    """Add to the run's counters; return what counts as latency (of a run without a start)."""
    counters = execution.counters
    calls = 1 if data.model_calls is None else data.model_calls
    counters.model_calls += calls
    if data.input_tokens:
        counters.input_tokens += data.input_tokens
    if data.cache_read_tokens:
        counters.cache_read_tokens += data.cache_read_tokens
    if data.cache_write_tokens:
        counters.cache_write_tokens += data.cache_write_tokens
    if data.output_tokens:
        counters.output_tokens += data.output_tokens
    if data.reasoning_tokens:
        counters.reasoning_tokens += data.reasoning_tokens
    if data.tool_calls:
        counters.tool_calls += data.tool_calls
    if data.files_read:
        counters.files_read += data.files_read
    if data.output_chars:
        counters.output_chars += data.output_chars
    counters.cost_usd += cost
    if data.usage_known is False:
        counters.unknown_usage += max(calls, 1)
        task.flag("unknown_usage")
    if data.estimated:
        counters.estimated_usage += max(calls, 1)
        task.flag("estimated_usage")
    return _count_duration(task, execution, data.duration_ms) if data.duration_ms else 0


def _count_duration(task: Task, execution: Execution, duration_ms: int) -> int:
    if not 0 <= duration_ms <= task.policy.clock.execution_max_ms:
        execution.skewed = True
        task.flag("clock_skew")
        return 0
    execution.counters.duration_ms += duration_ms
    if execution.opened_ms is not None or execution.ended_ms is not None:
        return 0
    execution.latency_ms += duration_ms
    return duration_ms


def _add(
    state: PartitionState,
    task: Task,
    name: str,
    phase: Phase,
    metered: int,
    latency_ms: int,
    cost: int,
) -> bool:
    """Add to the cells; tell whether one of them may have crossed a level."""
    has_crossed = False
    phase.tokens.used += metered
    if phase.tokens.used >= phase.tokens.next_at:
        raise_level(state, task, name, TOKENS, phase.tokens.used)
        has_crossed = True
    if latency_ms:
        phase.latency.used += latency_ms
        task.latency.used += latency_ms
        if phase.latency.used >= phase.latency.next_at:
            raise_level(state, task, name, LATENCY, phase.latency.used)
            has_crossed = True
        if task.latency.used >= task.latency.next_at:
            raise_level(state, task, None, LATENCY, task.latency.used)
            has_crossed = True
    if cost:
        phase.cost.used += cost
        task.cost.used += cost
        if phase.cost.used >= phase.cost.next_at:
            raise_level(state, task, name, COST, phase.cost.used)
            has_crossed = True
    task.tokens.used += metered
    if task.tokens.used >= task.tokens.next_at:
        raise_level(state, task, None, TOKENS, task.tokens.used)
        has_crossed = True
    if cost and task.cost.used >= task.cost.next_at:
        raise_level(state, task, None, COST, task.cost.used)
        has_crossed = True
    return has_crossed
