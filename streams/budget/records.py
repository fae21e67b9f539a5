"""Builds what is published about a task and its executions from the state."""

from dataclasses import dataclass, field

import msgspec

from schemas.envelope import rfc3339
from schemas.fields import ExecutionOutcome, Importance, Metric
from schemas.outputs import ExecutionRecord, Lifecycle, Overshoot
from schemas.topics import Topic
from streams.budget.amounts import number
from streams.budget.explain import cell_ref, counters_json
from streams.budget.ladder import LEVELS
from streams.budget.latency import used_ms
from streams.budget.limits import LATENCY, METRICS, limits_json
from streams.budget.state import Execution, PartitionState, Phase, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What an event says of a change, beside the values that hold afterwards."""

    by: str | None = None
    reason: str | None = None
    text: str | None = None
    phase: str | None = None
    approved: bool | None = None
    action: str | None = None
    outcome: str | None = None
    previous: dict[str, str] = field(default_factory=dict)
    overshoot: Overshoot | None = None


def budgeted_importance(task: Task) -> Importance:
    """Return the importance that the limits follow from: critical has to be justified.

    Source: budget model, "Governance".
    """
    if task.importance is not Importance.CRITICAL or (
        task.justification is not None
        and task.approved is not False
        and (task.approved is True or not task.policy.governance.critical_requires_review)
    ):
        return task.importance
    return Importance.HIGH


def emit_execution(
    state: PartitionState, task: Task, name: str, phase: Phase, execution: Execution
) -> None:
    """Publish one run of a phase, with the next revision."""
    execution.revision += 1
    state.emit(
        Topic.EXECUTIONS,
        "stoploss.execution",
        task.task_id,
        ExecutionRecord(
            task_id=task.task_id,
            phase=name,
            attempt=execution.attempt,
            revision=execution.revision,
            outcome=execution.outcome or ExecutionOutcome.OPEN_AT_END,
            started=None if execution.started_ms is None else rfc3339(execution.started_ms),
            ended=None if execution.ended_ms is None else rfc3339(execution.ended_ms),
            latency_ms=execution.latency_ms,
            metered_tokens=number(execution.metered, Metric.TOKENS),
            counters=counters_json(execution.counters, zeros=True),
            limits=limits_json((phase.tokens.line, phase.latency.line, phase.cost.line)),
            complexity=task.complexity,
            importance=task.importance,
            owner=task.owner,
            team=task.team,
            task_type=task.task_type,
            flags=execution_flags(execution),
        ),
    )


def execution_flags(execution: Execution) -> list[str]:
    """Return what a reader of an execution should know about its numbers."""
    return [
        name
        for name, applies in (
            ("inferred", execution.opened_ms is None),
            ("historical", execution.historical),
            ("clock_skew", execution.skewed),
            ("unknown_usage", execution.counters.unknown_usage > 0),
            ("estimated_usage", execution.counters.estimated_usage > 0),
        )
        if applies
    ]


def emit_lifecycle(
    state: PartitionState, task: Task, change: str, told: Told | None = None
) -> None:
    """Publish that a task started, changed or ended, with the values that hold now."""
    told = told or Told()
    state.emit(
        Topic.LIFECYCLE,
        "stoploss.lifecycle",
        task.task_id,
        Lifecycle(
            change=change,
            task_id=task.task_id,
            complexity=task.complexity,
            importance=task.importance,
            budgeted_importance=budgeted_importance(task),
            justification=task.justification,
            limits=task.limits.told,
            limits_version=task.limits_version,
            policy=task.policy_ref(),
            parent_task_id=task.parent_id,
            planned_phases=list(task.limits.planned),
            owner=task.owner,
            team=task.team,
            task_type=task.task_type,
            labels=msgspec.json.decode(task.labels) if task.labels else {},
            flags=list(task.flags),
            verdict=LEVELS[task.verdict],
            input=state.input_ref(),
            by=told.by,
            reason=told.reason,
            text=told.text,
            phase=told.phase,
            approved=told.approved,
            action=told.action,
            outcome=told.outcome,
            previous=told.previous,
            overshoot=told.overshoot,
        ),
    )


def overshoot(state: PartitionState, task: Task) -> Overshoot | None:
    """Return what a blocked task has used since the crossing that blocked it.

    Of several cells at block, it is about the one that came there first and still stands there.
    """
    if not task.blocks:
        return None
    block = task.blocks[0]
    cell = task.cell(block.phase, block.metric)
    used = cell.used
    if block.metric == LATENCY:
        used = used_ms(task, block.phase, cell, state.clock_ms)
    metric = METRICS[block.metric]
    return Overshoot(
        cell=cell_ref(block.phase, block.metric),
        at_block=number(block.used, metric),
        used=number(used, metric),
        overshoot=number(max(used - block.used, 0), metric),
    )
