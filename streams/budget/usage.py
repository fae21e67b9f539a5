"""What was used is added: to its run, its phase, its task and every ancestor.

This is the hot path: nearly all events pass here, hence few calls and the amounts in one place.
Source: budget model, "Words", "Attempts".
"""

from decimal import Decimal
from typing import cast

from msgspec.structs import astuple

from schemas.events import PhaseUsage
from schemas.fields import ExecutionOutcome
from streams.budget.amounts import check_usage, metered_milli, nano_dollars
from streams.budget.decide import settle
from streams.budget.evaluate import raise_level
from streams.budget.executions import check_phase, inferred_execution, phase_of
from streams.budget.families import roll_up
from streams.budget.latency import schedule_latency, used_ms
from streams.budget.lifecycle import open_task
from streams.budget.limits import LATENCY
from streams.budget.records import emit_execution
from streams.budget.state import Execution, PartitionState, Phase, Task

N = int | None  # how many
# The fields of `PhaseUsageData`, in its order.
Reported = tuple[
    str, N, str | None, N, N, N, N, N, Decimal | None, N, N, N, N, N, bool | None, bool | None
]


def fold_usage(state: PartitionState, task: Task | None, event: PhaseUsage) -> Task:
    """Add one report of usage; return its task, opened where nothing named it before.

    Raises:
        InvalidFieldError: an unlisted phase, a part larger than its whole, a cost that is no
            amount of money; nothing was changed then.
    """
    data = event.data
    # In one call: as machine code, asking a Struct for a field takes longer than adding it.
    (
        name,
        attempt,
        _,  # the model
        input_tokens,
        cache_read,
        cache_write,
        output_tokens,
        reasoning_tokens,
        cost_usd,
        duration_ms,
        model_calls,
        tool_calls,
        files_read,
        output_chars,
        estimated,
        usage_known,
    ) = cast("Reported", astuple(data))
    phase = None if task is None else task.phases.get(name)
    if phase is None or attempt is not None:
        policy = state.active_policy if task is None else task.policy
        check_phase(task, policy, name, attempt)
    whole, output, reasoning = input_tokens or 0, output_tokens or 0, reasoning_tokens or 0
    read, written = cache_read or 0, cache_write or 0
    if read + written > whole or reasoning > output:
        check_usage(data)
    cost = 0 if cost_usd is None else nano_dollars("data.cost_usd", cost_usd)

    if task is None:
        task = open_task(state, event.subject)
    state.touch(task)
    task.last_ms = state.clock_ms
    if phase is None:
        phase = phase_of(task, name)
    execution = phase.current if attempt is None else phase.find(attempt)
    is_new = execution is None
    if execution is None:
        execution = inferred_execution(phase, attempt or 1)
    calls = 1 if model_calls is None else model_calls
    if estimated or usage_known is False:
        calls = _doubtful_calls(
            task, execution, calls, estimated=bool(estimated), known=usage_known is not False
        )
    counters = execution.counters
    counters.model_calls += calls
    counters.input_tokens += whole
    counters.cache_read_tokens += read
    counters.output_tokens += output
    if written or reasoning or cost:
        counters.cache_write_tokens += written
        counters.reasoning_tokens += reasoning
        counters.cost_usd += cost
    if tool_calls or files_read or output_chars:
        counters.tool_calls += tool_calls or 0
        counters.files_read += files_read or 0
        counters.output_chars += output_chars or 0
    latency_ms = _count_duration(task, execution, duration_ms) if duration_ms else 0
    metered = metered_milli(task.policy.weights_milli, whole, read, written, output)
    execution.metered += metered
    # A run that was not known: its task may be almost done no more, and is blocked sooner then.
    _spend(state, task, name, phase, execution, latency_ms, cost, metered, has_crossed=is_new)
    return task


def _spend(
    state: PartitionState,
    task: Task,
    name: str,
    phase: Phase,
    execution: Execution,
    latency_ms: int,
    cost: int,
    metered: int,
    *,
    has_crossed: bool,
) -> None:
    """Add amounts to the cells of the phase, the task and every ancestor; decide what follows."""
    cell, total = phase.tokens, task.tokens
    cell.used += metered
    total.used += metered
    has_crossed = has_crossed or cell.used >= cell.next_at or total.used >= total.next_at
    if latency_ms or cost:
        has_crossed |= _add(task, phase, latency_ms, cost)
    if has_crossed:
        _raise_levels(state, task, name, phase)
    if latency_ms:
        schedule_latency(state, task)
    if task.parent_id is not None:
        has_crossed |= roll_up(state, task, metered, cost)
    if execution.revision or task.is_ended:
        execution.outcome = execution.outcome or ExecutionOutcome.OPEN_AT_END
        emit_execution(state, task, name, phase, execution)
    if has_crossed:
        settle(state, task, *state.ancestors(task))


def _doubtful_calls(
    task: Task, execution: Execution, calls: int, *, estimated: bool, known: bool
) -> int:
    """Count and flag calls of which usage is unknown or estimated; return how many calls it were."""
    counters = execution.counters
    if not known:
        calls = max(calls, 1)
        counters.unknown_usage += calls
        task.flag("unknown_usage")
    if estimated:
        counters.estimated_usage += max(calls, 1)
        task.flag("estimated_usage")
    return calls


def _count_duration(task: Task, execution: Execution, duration_ms: int) -> int:
    """Add what a report took; return what of it counts as latency (of a run without a start)."""
    if not 0 < duration_ms <= task.policy.clock.execution_max_ms:
        execution.skewed = True
        task.flag("clock_skew")
        return 0
    execution.counters.duration_ms += duration_ms
    if execution.opened_ms is not None or execution.timed:
        return 0
    execution.latency_ms += duration_ms
    return duration_ms


def _add(task: Task, phase: Phase, latency_ms: int, cost: int) -> bool:
    """Add latency and cost to the cells; tell whether one of them has come to its next level."""
    is_due = latency_ms > 0 and task.open_phase is not None  # an open run counts as well
    for cell, amount in (
        (phase.latency, latency_ms),
        (task.latency, latency_ms),
        (phase.cost, cost),
        (task.cost, cost),
    ):
        cell.used += amount
        is_due = is_due or (amount > 0 and cell.used >= cell.next_at)
    return is_due


def _raise_levels(state: PartitionState, task: Task, name: str, phase: Phase) -> None:
    for owner, cells in (
        (name, (phase.tokens, phase.latency, phase.cost)),
        (None, (task.tokens, task.latency, task.cost)),
    ):
        for index, cell in enumerate(cells):
            used = used_ms(task, owner, cell, state.clock_ms) if index == LATENCY else cell.used
            if used >= cell.next_at:
                raise_level(state, task, owner, index, used)
