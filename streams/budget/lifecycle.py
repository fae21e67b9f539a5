"""A task begins and ends, and leaves memory when it is forgotten.

Source: budget model, "Rules", "Late and repeated starts".
"""

from sys import intern

import msgspec

from schemas.envelope import epoch_ms
from schemas.errors import InvalidFieldError
from schemas.events import TaskEnded, TaskStarted, TaskStartedData
from schemas.fields import Complexity, ExecutionOutcome, Importance, TaskOutcome
from schemas.outputs import DeadLetterDetail, Overshoot
from schemas.topics import Topic
from streams.budget.decide import settle
from streams.budget.effects import Refused
from streams.budget.evaluate import judge_task_cells, relevel
from streams.budget.executions import beyond_policy, close_open, task_class
from streams.budget.families import check_parent, check_task_id, link, unlink
from streams.budget.latency import ABANDONED_DUE, REMOVAL_DUE, schedule_latency
from streams.budget.limits import (
    Limits,
    Lines,
    NamedAmounts,
    TaskClass,
    check_multiplier,
    read_overrides,
)
from streams.budget.policy import Policy
from streams.budget.records import (
    Told,
    budgeted_importance,
    emit_execution,
    emit_lifecycle,
    overshoot,
)
from streams.budget.state import Cell, PartitionState, Task

CRITICAL_FLAGS = ("critical_unjustified", "critical_unreviewed", "critical_refused")


def open_task(state: PartitionState, task_id: str) -> Task:
    """Add a task that something else than its task.started has named: medium, `inferred`."""
    task = _new_task(state, task_id)
    task.flag("inferred")
    emit_lifecycle(state, task, "started")
    return task


def fold_task_started(state: PartitionState, task: Task | None, event: TaskStarted) -> Task:
    """Begin a task, or complete one that something else has opened.

    Raises:
        InvalidFieldError: nothing was changed then.
    """
    data = event.data
    policy = state.active_policy if task is None else task.policy
    _check_start(state, policy, event)
    overrides, refused = _read_overrides(policy, data)
    is_late = task is not None
    task = task or _new_task(state, event.subject)
    _describe(task, data, overrides)
    if refused is not None:
        task.flag("overrides_refused")
        state.emit(
            Topic.DEAD_LETTERS,
            "stoploss.dead_letter",
            "",
            Refused(
                "invalid_field",
                DeadLetterDetail(refused.field, f"{refused.value}"[:80], refused.allowed),
                task.task_id,
            ),
        )
    if is_late:
        task.unflag("inferred")
        task.limits_version += 1
    over = set_limits(state, task)
    if data.parent_task_id is not None and task.parent_id is None:
        parent = state.tasks.get(data.parent_task_id) or open_task(state, data.parent_task_id)
        link(state, task, parent)
    emit_lifecycle(state, task, "started", Told(by=data.by, overshoot=over))
    return task


def limits_of(state: PartitionState, task: Task) -> Limits:
    """Return the limits that follow from what the task is now."""
    return state.limits_for(task.policy, task_class(task), beyond_policy(task))


def set_limits(state: PartitionState, task: Task) -> Overshoot | None:
    """Compute the limits from what the task is now, and judge its cells by them.

    Returns:
        The overshoot of a block that these limits lift, also where another cell stays at block.
    """
    over, first = overshoot(state, task), task.blocks[:1]
    task.limits = limits_of(state, task)
    _aim((task.tokens, task.latency, task.cost), task.limits.task)
    for name, phase in task.phases.items():
        _aim((phase.tokens, phase.latency, phase.cost), task.limits.phases[name])
    flag_class(task)
    relevel(state, task)
    schedule_latency(state, task)
    return None if first == task.blocks[:1] else over


def fold_task_ended(state: PartitionState, task: Task, event: TaskEnded) -> None:
    """End a task; a second end is only flagged."""
    if task.is_ended:
        task.flag("repeated_end")
        return
    outcome = event.data.outcome or TaskOutcome.COMPLETED
    end_task(state, task, outcome, event.source, epoch_ms(event.time))


def end_task(
    state: PartitionState,
    task: Task,
    outcome: TaskOutcome,
    source: str,
    own_ms: int,
    *,
    by: str | None = None,
    reason: str | None = None,
) -> None:
    """End a task: what is open ends with it, its overshoot is published, removal is due."""
    if task.open_phase is not None:
        close_open(state, task, ExecutionOutcome.OPEN_AT_END, source, own_ms)
    for name, phase in task.phases.items():
        for execution in phase.executions:
            if execution.outcome is None:
                execution.outcome = ExecutionOutcome.OPEN_AT_END
                emit_execution(state, task, name, phase, execution)
    judge_task_cells(state, task)
    settle(state, task)
    task.ended_ms = state.clock_ms
    task.outcome = outcome
    state.open_tasks -= 1
    emit_lifecycle(
        state,
        task,
        "ended",
        Told(outcome=outcome.value, overshoot=overshoot(state, task), by=by, reason=reason),
    )
    task.blocks = ()
    state.schedule(state.clock_ms + task.policy.clock.retention_ms, task.task_id, kind=REMOVAL_DUE)


def forget(state: PartitionState, task: Task) -> None:
    """Remove an ended task from memory, `tasks` and `decisions`; then a parent that waited for it.

    A parent stays as long as any child is remembered: late usage of a child still rolls up.
    """
    if task.task_id in state.children:
        return
    unlink(state, task)
    del state.tasks[task.task_id]
    state.emit(Topic.TASKS, "stoploss.task.state", task.task_id, None)
    if task.decisions:
        state.emit(Topic.DECISIONS, "stoploss.decision", task.task_id, None)
    if task.is_changed:
        state.changed.remove(task)
    state.release(task.policy)
    parent = None if task.parent_id is None else state.tasks[task.parent_id]
    if parent is not None and parent.ended_ms is not None:
        due_ms = parent.ended_ms + parent.policy.clock.retention_ms
        if due_ms <= state.clock_ms:
            forget(state, parent)


def _new_task(state: PartitionState, task_id: str) -> Task:
    policy = state.active_policy
    limits = state.limits_for(policy, TaskClass())
    now_ms = state.clock_ms
    task = Task(
        task_id=task_id,
        policy=policy,
        limits=limits,
        started_ms=now_ms,
        last_ms=now_ms,
        seen_ms=now_ms,
        tokens=Cell(),
        latency=Cell(),
        cost=Cell(),
    )
    _aim((task.tokens, task.latency, task.cost), limits.task)
    state.tasks[task_id] = task
    state.open_tasks += 1
    state.retain(policy)
    state.touch(task)
    state.schedule(now_ms + policy.clock.abandoned_after_ms, task_id, kind=ABANDONED_DUE)
    return task


def _check_start(state: PartitionState, policy: Policy, event: TaskStarted) -> None:
    data = event.data
    for phase in data.planned_phases or ():
        policy.check_listed("data.planned_phases", phase)
    if data.budget_multiplier is not None:
        check_multiplier("data.budget_multiplier", data.budget_multiplier, above=0)
    if data.parent_task_id is not None:
        check_task_id("data.parent_task_id", data.parent_task_id)
        check_parent(state, event.subject, data.parent_task_id)


def _read_overrides(
    policy: Policy, data: TaskStartedData
) -> tuple[NamedAmounts, InvalidFieldError | None]:
    try:
        return read_overrides(data.budget_overrides, policy), None
    except InvalidFieldError as refused:
        return (), refused


def _describe(task: Task, data: TaskStartedData, overrides: NamedAmounts) -> None:
    task.known = True
    task.complexity = data.complexity or Complexity.MEDIUM
    task.importance = data.importance or Importance.MEDIUM
    task.justification = (data.importance_justification or "").strip() or None
    if data.planned_phases is not None:
        task.planned = tuple(dict.fromkeys(map(intern, data.planned_phases)))
    if data.budget_multiplier is not None:
        task.multiplier = format(data.budget_multiplier, "f")
    task.overrides = overrides
    task.owner, task.team, task.task_type = data.owner, data.team, data.task_type
    task.labels = msgspec.json.encode(data.labels) if data.labels else b""


def _aim(cells: tuple[Cell, Cell, Cell], lines: Lines) -> None:
    for cell, line in zip(cells, lines, strict=True):
        cell.line = line
        cell.aim()


def flag_class(task: Task) -> None:
    """Set the flags that say why a task is not budgeted as it asked for."""
    for name in CRITICAL_FLAGS:
        task.unflag(name)
    if budgeted_importance(task) is not task.importance:
        if task.justification is None:
            task.flag("critical_unjustified")
        else:
            task.flag("critical_refused" if task.approved is False else "critical_unreviewed")
    task.unflag("override_below_limit")
    if task.limits.low_overrides:
        task.flag("override_below_limit")
