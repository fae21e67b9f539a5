"""The state as records of `tasks`: what a restart needs, and nothing else; `restore` reads it.

A batch writes each task it changed once, then the partition with the next offset.
"""

from decimal import Decimal

import msgspec

from schemas.envelope import rfc3339
from schemas.events import partition_subject
from schemas.fields import Number, Scope
from schemas.outputs import PolicyRef
from schemas.state import (
    CellState,
    Dedupe,
    ExecutionState,
    PartitionStateData,
    PhaseState,
    TaskStateData,
)
from schemas.state import Grant as GrantState
from schemas.topics import Topic
from streams.budget.amounts import number
from streams.budget.clock import first_deadline_ms
from streams.budget.effects import Effect
from streams.budget.explain import counters_json, counters_of
from streams.budget.ladder import LEVELS, Line
from streams.budget.latency import used_ms
from streams.budget.limits import LATENCY, METRICS, Grant, NamedAmounts
from streams.budget.state import (
    Cell,
    Execution,
    PartitionState,
    Phase,
    Task,
)

HISTORICAL, SKEWED, TIMED = 1, 2, 4  # bits of `ExecutionState.flags`


def drain_changes(state: PartitionState) -> list[Effect]:
    """Return the records of what changed since the last call: tasks, then the partition.

    Their ids follow from the last input that changed each, not from where the batch ended.
    """
    found: list[Effect] = []
    for task in state.changed:
        task.is_changed = False
        data = task_state(task)
        found.append(
            Effect(
                Topic.TASKS,
                "stoploss.task.state",
                task.task_id,
                data,
                task.last_offset,
                task.last_index,
            )
        )
    state.changed.clear()
    key = partition_subject(state.partition)
    found.append(
        Effect(
            Topic.TASKS,
            "stoploss.partition.state",
            key,
            partition_state(state),
            state.offset,
            state.index,
        )
    )
    return found


def partition_state(state: PartitionState) -> PartitionStateData:
    """Return the state of a partition as it is stored."""
    policy = state.policy
    return PartitionStateData(
        partition=state.partition,
        next_offset=state.next_offset,
        clock=rfc3339(state.clock_ms),
        clock_ms=state.clock_ms,
        mode=state.mode,
        mode_by=state.mode_by,
        previous_mode=state.previous_mode,
        policy=None if policy is None else PolicyRef(policy.version, policy.hash),
        dedupe=Dedupe(dict(state.sequences), list(state.recent or ())),
        checkpoint_ms=state.checkpoint_ms,
    )


def task_state(task: Task) -> TaskStateData:
    """Return the state of a task as it is stored."""
    sources = list(task.sequences)
    blocks = [(block.phase, block.metric, block.used) for block in task.blocks]
    return TaskStateData(
        task_id=task.task_id,
        status="ended" if task.is_ended else "open",
        verdict=LEVELS[task.verdict],
        cells=_cells(task),
        phases={name: _phase(phase, sources) for name, phase in task.phases.items()},
        flags=list(task.flags),
        last_offset=task.last_offset,
        last_index=task.last_index,
        limits_version=task.limits_version,
        policy=task.policy_ref(),
        dedupe=Dedupe(dict(task.sequences), list(task.recent or ())),
        complexity=task.complexity,
        importance=task.importance,
        justification=task.justification,
        justification_approved=task.approved,
        known=task.known,
        parent_task_id=task.parent_id,
        planned_phases=None if task.planned is None else list(task.planned),
        budget_multiplier=task.multiplier,
        budget_overrides=_amounts_json(task.overrides) if task.overrides else None,
        grants=[_grant(grant) for grant in task.grants],
        owner=task.owner,
        team=task.team,
        task_type=task.task_type,
        labels=msgspec.json.decode(task.labels) if task.labels else {},
        open_phase=task.open_phase,
        inherited_from=task.inherited_from,
        decisions=task.decisions,
        started_ms=task.started_ms,
        last_ms=task.last_ms,
        seen_ms=task.seen_ms,
        ended_ms=task.ended_ms,
        outcome=None if task.outcome is None else task.outcome.value,
        block=blocks[0] if blocks else None,
        later_blocks=blocks[1:],
        rolled=_rolled(task),
        due_ms=first_deadline_ms(task),
    )


def _cells(task: Task) -> list[CellState]:
    found = [
        _cell(task, name, index, cell, cell.line)
        for name, index, cell in task.cells()
        if cell.line is not None
    ]
    for name, cells in task.limits.unused.items():
        if name not in task.phases:
            found += cells
    return found


def _cell(task: Task, name: str | None, index: int, cell: Cell, limit: Line) -> CellState:
    metric = METRICS[index]
    used, firm = cell.used, None
    if index == LATENCY:
        used = used_ms(task, name, cell, task.seen_ms)
        firm = None if cell.firm == cell.level else LEVELS[cell.firm]
    return CellState(
        Scope.TASK if name is None else Scope.PHASE,
        metric,
        number(used, metric),
        number(limit.limit, metric),
        LEVELS[cell.level],
        name,
        firm,
    )


def _phase(phase: Phase, sources: list[str]) -> PhaseState:
    is_single = len(phase.executions) == 1
    return PhaseState(
        attempts=max((one.attempt for one in phase.executions), default=0),
        counters=counters_json(counters_of(phase.executions), zeros=False),
        executions=[_execution(one, sources, is_single=is_single) for one in phase.executions],
    )


def _execution(execution: Execution, sources: list[str], *, is_single: bool) -> ExecutionState:
    source = execution.source
    return ExecutionState(
        attempt=execution.attempt,
        outcome=None if execution.outcome is None else execution.outcome.value,
        revision=execution.revision,
        opened_ms=execution.opened_ms,
        started_ms=execution.started_ms,
        source=sources.index(source) if source in sources else source,
        ended_ms=execution.ended_ms,
        latency_ms=execution.latency_ms,
        flags=execution.historical * HISTORICAL
        | execution.skewed * SKEWED
        | execution.timed * TIMED,
        counters=None if is_single else counters_json(execution.counters, zeros=False),
    )


def _amounts_json(named: NamedAmounts) -> dict[str, dict[str, Number]]:
    return {
        name: {
            metric.value: number(amount, metric)
            for metric, amount in zip(METRICS, amounts, strict=True)
            if amount is not None
        }
        for name, amounts in named
    }


def _grant(grant: Grant) -> GrantState:
    if grant.multiplier is None:
        return GrantState(limits=_amounts_json(grant.limits))
    exact = Decimal(grant.multiplier.numerator) / grant.multiplier.denominator
    return GrantState(multiplier=format(exact, "f"))


def _rolled(task: Task) -> tuple[int, int] | None:
    phases = task.phases.values()
    tokens = task.tokens.used - sum(phase.tokens.used for phase in phases)
    cost = task.cost.used - sum(phase.cost.used for phase in phases)
    return (tokens, cost) if tokens or cost else None
