"""What people do to a task: grant, reclassify, explain, review, recover.

Each function refuses first and changes afterwards. Source: budget model, "Grants",
"Reclassification" and "Governance".
"""

from typing import assert_never

from schemas.envelope import epoch_ms
from schemas.errors import InvalidFieldError
from schemas.events import (
    JustificationReviewed,
    TaskExplained,
    TaskGranted,
    TaskReclassified,
    TaskRecovered,
)
from schemas.fields import ExecutionOutcome, Importance, RecoverAction, TaskOutcome
from schemas.outputs import Lifecycle
from schemas.topics import Topic
from streams.budget.amounts import number
from streams.budget.evaluate import judge_task_cells, relevel
from streams.budget.executions import PHASES_MAX, close_open, task_class
from streams.budget.latency import schedule_latency
from streams.budget.lifecycle import end_task, flag_class, limits_of, set_limits
from streams.budget.limits import (
    METRICS,
    TASK,
    Amounts,
    Grant,
    TaskClass,
    check_multiplier,
    check_named_limits,
    compute_limits,
    limits_in,
    merged_grants,
)
from streams.budget.policy import Policy
from streams.budget.records import Told, emit_lifecycle, overshoot
from streams.budget.state import PartitionState, Task

GRANTS_MAX = 64  # more are merged


def check_grant(task: Task | None, policy: Policy, event: TaskGranted) -> Grant:
    """Return the grant of an event.

    Raises:
        InvalidFieldError: not exactly one of multiplier and limits, or a limit below the current.
    """
    data = event.data
    if (data.multiplier is None) == (data.limits is None):
        given = "both" if data.limits is not None else "neither"
        raise InvalidFieldError("data.multiplier, data.limits", given, "exactly one of them")
    if data.multiplier is not None:
        return Grant(multiplier=check_multiplier("data.multiplier", data.multiplier, above=1))
    named = check_named_limits("data.limits", data.limits or {}, policy)
    for name, amounts in named:
        for metric, new, current in zip(
            METRICS, amounts, _current(task, policy, name), strict=True
        ):
            if new is not None and current is not None and new < current:
                field = f"data.limits.{name}.{metric}"
                allowed = f"at least the current limit, {number(current, metric)}"
                raise InvalidFieldError(field, number(new, metric), allowed)
    return Grant(limits=named)


def apply_grant(state: PartitionState, task: Task, grant: Grant, by: str, reason: str) -> None:
    """Raise a task's limits; what was used stays, so the verdict may fall."""
    over = overshoot(state, task)
    task.grants = (*task.grants, grant)
    task.limits_version += 1
    set_limits(state, task)
    if len(task.grants) > GRANTS_MAX:
        task.grants = merged_grants(task.policy, task_class(task), _named(task))
    emit_lifecycle(state, task, "granted", Told(by=by, reason=reason, overshoot=over))


def check_reclassified(event: TaskReclassified) -> None:
    """Refuse a reclassification that names nothing.

    Raises:
        InvalidFieldError: neither complexity nor importance is there.
    """
    if event.data.complexity is None and event.data.importance is None:
        raise InvalidFieldError(
            "data.complexity, data.importance", "absent", "at least one of them"
        )


def fold_reclassified(state: PartitionState, task: Task, event: TaskReclassified) -> None:
    """Recompute the limits from the policy stored at the start; overrides and grants are kept."""
    data = event.data
    previous = {"complexity": task.complexity.value, "importance": task.importance.value}
    task.complexity = data.complexity or task.complexity
    if data.importance is not None:
        task.importance = data.importance
        if data.importance is Importance.CRITICAL:
            task.justification, task.approved = data.reason.strip() or None, None
    task.flag("reclassified")
    task.limits_version += 1
    over = set_limits(state, task)
    told = Told(by=data.by, reason=data.reason, previous=previous, overshoot=over)
    emit_lifecycle(state, task, "reclassified", told)


def fold_explained(state: PartitionState, task: Task, event: TaskExplained) -> None:
    """Keep the explanation that a review or block asked for."""
    data = event.data
    task.flag("explained")
    emit_lifecycle(state, task, "explained", Told(by=data.by, text=data.text, phase=data.phase))


def fold_reviewed(state: PartitionState, task: Task, event: JustificationReviewed) -> None:
    """Approve or refuse why a task is critical; its limits follow."""
    data = event.data
    task.approved = data.approved
    if data.approved and task.justification is None:
        task.justification = (data.reason or "").strip() or None
    over = None
    if limits_of(state, task) != task.limits:
        task.limits_version += 1
        over = set_limits(state, task)
    else:  # levels once reached stay: nothing is judged anew
        flag_class(task)
    told = Told(by=data.by, approved=data.approved, reason=data.reason, overshoot=over)
    emit_lifecycle(state, task, "reviewed", told)


def check_recovered(task: Task | None, event: TaskRecovered) -> None:
    """Refuse to mend what is not there.

    Raises:
        InvalidFieldError: no such task, no open phase, or it has ended already.
    """
    action = event.data.action
    if task is None:
        raise InvalidFieldError("subject", event.subject, "a task that is known")
    if action is RecoverAction.CLOSE_PHASE and task.open_phase is None:
        raise InvalidFieldError("data.action", action.value, "end_task: no phase is open")
    if action is RecoverAction.END_TASK and task.is_ended:
        raise InvalidFieldError("data.action", action.value, "refold: the task has ended")


def fold_recovered(state: PartitionState, task: Task, event: TaskRecovered) -> None:
    """Close an open phase, end a task, or derive its cells anew from its executions."""
    data = event.data
    own_ms = epoch_ms(event.time)
    emit_lifecycle(
        state, task, "recovered", Told(by=data.by, reason=data.reason, action=data.action.value)
    )
    match data.action:
        case RecoverAction.CLOSE_PHASE:
            close_open(state, task, ExecutionOutcome.ABANDONED, event.source, own_ms)
            judge_task_cells(state, task)
        case RecoverAction.END_TASK:
            end_task(
                state,
                task,
                TaskOutcome.ABANDONED,
                event.source,
                own_ms,
                by=data.by,
                reason=data.reason,
            )
        case RecoverAction.REFOLD:
            _derive_cells(state, task)
        case _:
            assert_never(data.action)


def fold_partition_recovered(state: PartitionState, event: TaskRecovered) -> None:
    """Publish that an operator rebuilt a record of `tasks` that is no task's; nothing changes.

    Raises:
        InvalidFieldError: what is asked for can be done to a task only.
    """
    data = event.data
    if data.action is not RecoverAction.REFOLD:
        raise InvalidFieldError("data.action", data.action.value, "refold: it is about a partition")
    state.emit(
        Topic.LIFECYCLE,
        "stoploss.lifecycle",
        event.subject,
        Lifecycle(
            change="recovered",
            partition=state.partition,
            key=data.key,
            by=data.by,
            reason=data.reason,
            action=data.action.value,
            input=state.input_ref(),
        ),
    )


def _derive_cells(state: PartitionState, task: Task) -> None:
    """Sum the cells from the executions; what children used, some forgotten by now, is kept."""
    phases = list(task.phases.values())
    tokens = task.tokens.used - sum(phase.tokens.used for phase in phases)
    cost = task.cost.used - sum(phase.cost.used for phase in phases)
    for phase in phases:
        phase.tokens.used = sum(one.metered for one in phase.executions)
        phase.latency.used = sum(one.latency_ms for one in phase.executions)
        phase.cost.used = sum(one.counters.cost_usd for one in phase.executions)
    task.tokens.used = tokens + sum(phase.tokens.used for phase in phases)
    task.cost.used = cost + sum(phase.cost.used for phase in phases)
    task.latency.used = sum(phase.latency.used for phase in phases)
    task.limits_version += 1  # what is crossed is published anew
    relevel(state, task)
    schedule_latency(state, task)


def _current(task: Task | None, policy: Policy, name: str) -> Amounts:
    kind = TaskClass() if task is None else task_class(task)
    limits = compute_limits(policy, kind, () if name == TASK else (name,))
    return limits_in(limits.task if name == TASK else limits.phases[name])


def _named(task: Task) -> tuple[str, ...]:
    """Return the phases that a task has used, then those granted limits, as many as it may use."""
    granted = (name for grant in task.grants for name, _ in grant.limits if name != TASK)
    return tuple(dict.fromkeys((*task.phases, *granted)))[:PHASES_MAX]
