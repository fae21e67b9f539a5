"""Phases begin and end: which run an event belongs to, what closes a run, how long it took.

Source: budget model, "Attempts", "Latency" and the rule on a second phase starting.
"""

from fractions import Fraction
from sys import intern

from schemas.envelope import epoch_ms
from schemas.errors import InvalidFieldError
from schemas.events import PhaseEnded, PhaseStarted
from schemas.fields import ExecutionOutcome, PhaseOutcome
from streams.budget.evaluate import judge_task_cells, raise_level, withdraw
from streams.budget.latency import STUCK_DUE, Duration, checked, schedule_latency, used_ms
from streams.budget.limits import LATENCY, TaskClass, compute_limits
from streams.budget.policy import Policy
from streams.budget.records import budgeted_importance, emit_execution
from streams.budget.state import (
    Counters,
    Execution,
    PartitionState,
    Phase,
    Task,
    new_phase,
)

ATTEMPTS_MAX = 256  # runs of one phase that a task remembers
PHASES_MAX = 64  # of one task, where the policy lets events name any


def check_phase(task: Task | None, policy: Policy, phase: str, attempt: int | None) -> None:
    """Refuse a phase that the policy does not list, and more runs than are remembered.

    Raises:
        InvalidFieldError: names the phase, or the attempt.
    """
    known = None if task is None else task.phases.get(phase)
    if known is None:
        policy.check_listed("data.phase", phase)
        if task is not None and len(task.phases) >= PHASES_MAX:
            raise InvalidFieldError("data.phase", phase, f"at most {PHASES_MAX} phases of a task")
        return
    if len(known.executions) >= ATTEMPTS_MAX and (attempt is None or known.find(attempt) is None):
        raise InvalidFieldError("data.attempt", attempt, f"at most {ATTEMPTS_MAX} runs of a phase")


def task_class(task: Task) -> TaskClass:
    """Return what a task's limits follow from, besides its policy."""
    return TaskClass(
        complexity=task.complexity,
        importance=budgeted_importance(task),
        task_type=task.task_type,
        multiplier=Fraction(task.multiplier or 1),
        planned=task.planned,
        overrides=task.overrides,
        grants=task.grants,
    )


def phase_of(task: Task, name: str) -> Phase:
    """Return a task's phase, made when it is first named."""
    phase = task.phases.get(name)
    if phase is None:
        if name not in task.limits.phases:  # the policy lists it by its default alone
            named = (*beyond_policy(task), name)
            task.limits = compute_limits(task.policy, task_class(task), named)
        # Interned: the names that events bring are copies, one for each task.
        phase = task.phases[intern(name)] = new_phase(task.limits.phases[name])
    return phase


def beyond_policy(task: Task) -> tuple[str, ...]:
    """Return the phases that a task has used and its policy does not name."""
    return tuple(name for name in task.phases if name not in task.policy.phases)


def inferred_execution(phase: Phase, attempt: int) -> Execution:
    """Return a run that is known without its phase.started, made when it is first named."""
    execution = phase.find(attempt)
    if execution is None:
        execution = Execution(attempt, Counters())
        phase.executions.append(execution)
        if phase.current is None and attempt == 1:
            phase.current = execution
    return execution


def fold_phase_started(state: PartitionState, task: Task, event: PhaseStarted) -> None:
    """Begin a run of a phase; what was open is superseded."""
    name = event.data.phase
    phase = phase_of(task, name)
    execution = _run_to_start(phase, event.data.attempt)
    if execution is None:
        task.flag("repeated_phase_start")
        return
    if execution not in phase.executions:
        phase.executions.append(execution)
    own_ms = epoch_ms(event.time)
    if task.is_ended:
        execution.outcome = ExecutionOutcome.OPEN_AT_END
        _begin(state, task, phase, execution, event.source, own_ms)
        emit_execution(state, task, name, phase, execution)
    else:
        if task.open_phase is not None:
            task.flag("superseded")
            close_open(state, task, ExecutionOutcome.SUPERSEDED, event.source, own_ms)
        _open(state, task, name, phase, execution, event.source, own_ms)
    judge_task_cells(state, task)


def fold_phase_ended(state: PartitionState, task: Task, event: PhaseEnded) -> None:
    """End a run of a phase; a second end replaces outcome and duration of the first."""
    data = event.data
    phase = phase_of(task, data.phase)
    execution = _run_to_end(phase, data.attempt)
    outcome = ExecutionOutcome((data.outcome or PhaseOutcome.COMPLETED).value)
    limit_ms = task.policy.clock.execution_max_ms
    own_ms = epoch_ms(event.time)
    if data.duration_ms is not None:
        duration = checked(data.duration_ms, limit_ms, is_measured=True)
        execution.timed = True
    else:
        duration = _between(task, execution, event.source, own_ms, state.clock_ms)
    _close(state, task, data.phase, phase, execution, outcome, duration, own_ms)
    judge_task_cells(state, task)


def close_open(
    state: PartitionState, task: Task, outcome: ExecutionOutcome, source: str, own_ms: int
) -> None:
    """End the run that is going on because of something else than its phase.ended."""
    name = task.open_phase
    assert name is not None
    phase = task.phases[name]
    execution = phase.open
    assert execution is not None
    duration = _between(task, execution, source, own_ms, state.clock_ms)
    _close(state, task, name, phase, execution, outcome, duration, own_ms)


def _run_to_start(phase: Phase, attempt: int | None) -> Execution | None:
    """The run that a phase.started begins, or None where it only repeats what is known."""
    if attempt is None:
        if phase.open is not None:
            return None
        return Execution(phase.newest.attempt + 1 if phase.executions else 1, Counters())
    known = phase.find(attempt)
    if known is None:
        return Execution(attempt, Counters())
    return known if known.opened_ms is None and known.outcome is None else None


def _run_to_end(phase: Phase, attempt: int | None) -> Execution:
    if attempt is None:
        open_one = phase.open
        if open_one is not None:
            return open_one
        attempt = phase.newest.attempt if phase.executions else 1
    return inferred_execution(phase, attempt)


def _open(
    state: PartitionState,
    task: Task,
    name: str,
    phase: Phase,
    execution: Execution,
    source: str,
    own_ms: int,
) -> None:
    _begin(state, task, phase, execution, source, own_ms)
    task.open_phase = intern(name)
    phase.current = execution
    schedule_latency(state, task)
    stuck_ms = state.clock_ms + task.policy.clock.stuck_after_ms
    state.schedule(stuck_ms, task.task_id, name, STUCK_DUE)


def _begin(
    state: PartitionState,
    task: Task,
    phase: Phase,
    execution: Execution,
    source: str,
    own_ms: int,
) -> None:
    if execution.latency_ms:  # adopted: its model time was its latency until now
        _set_latency(task, phase, execution, 0)
    execution.opened_ms = state.clock_ms
    execution.started_ms = own_ms
    execution.source = intern(source)
    execution.historical = state.append_ms - own_ms > task.policy.clock.historical_after_ms


def _between(task: Task, execution: Execution, source: str, own_ms: int, clock_ms: int) -> Duration:
    """How long a run took where nobody measured it: by its source's clock, else by the broker's."""
    if execution.opened_ms is None or execution.started_ms is None:
        return Duration(execution.latency_ms, is_measured=False)
    limit_ms = task.policy.clock.execution_max_ms
    if source == execution.source:
        return checked(own_ms - execution.started_ms, limit_ms, is_measured=True)
    if execution.historical:
        return Duration(0, is_measured=False)
    return checked(clock_ms - execution.opened_ms, limit_ms, is_measured=False)


def _close(
    state: PartitionState,
    task: Task,
    name: str,
    phase: Phase,
    execution: Execution,
    outcome: ExecutionOutcome,
    duration: Duration,
    own_ms: int,
) -> None:
    if execution.is_open and task.open_phase == name:
        task.open_phase = None
        task.unflag("stuck")
    execution.outcome = outcome
    execution.ended_ms = own_ms
    execution.skewed = duration.is_skewed
    if duration.is_skewed:
        task.flag("clock_skew")
    phase.current = phase.open or phase.find(1)
    _set_latency(task, phase, execution, duration.duration_ms)
    for owner, cell in ((name, phase.latency), (None, task.latency)):
        used = used_ms(task, owner, cell, state.clock_ms)
        if duration.is_measured:
            withdraw(state, task, owner, used)
        raise_level(state, task, owner, LATENCY, used, is_firm=duration.is_measured)
    schedule_latency(state, task)
    emit_execution(state, task, name, phase, execution)


def _set_latency(task: Task, phase: Phase, execution: Execution, latency_ms: int) -> None:
    change = latency_ms - execution.latency_ms
    execution.latency_ms = latency_ms
    phase.latency.used += change
    task.latency.used += change
