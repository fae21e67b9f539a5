"""The state as records of `tasks`: what a restart needs, and nothing else; `restore` reads it.

A batch writes each task it changed once, then the partition with the next offset.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import cast

import msgspec

from schemas.envelope import rfc3339
from schemas.events import partition_subject
from schemas.fields import Metric, Number, Scope
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
from streams.budget.amounts import dollars, number, tokens
from streams.budget.clock import first_deadline_ms
from streams.budget.effects import Effect
from streams.budget.explain import counters_json, counters_of
from streams.budget.ladder import LEVELS
from streams.budget.latency import estimate_ms, open_execution
from streams.budget.limits import METRICS, Grant, NamedAmounts
from streams.budget.state import (
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
    return list(each_change(state))


def each_change(state: PartitionState) -> Iterator[Effect]:
    """Yield what `drain_changes` returns; to be taken to its end before anything else is folded.

    Who makes bytes of each at once has no more than one state at a time as objects. Of all states
    of a batch together there were so many that the garbage collector went through everything that
    is awake, again and again.
    """
    for task in state.changed:
        task.is_changed = False
        yield Effect(
            Topic.TASKS,
            "stoploss.task.state",
            task.task_id,
            task_state(task),
            task.last_offset,
            task.last_index,
        )
    state.changed.clear()
    yield Effect(
        Topic.TASKS,
        "stoploss.partition.state",
        partition_subject(state.partition),
        partition_state(state),
        state.offset,
        state.index,
    )


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
    """Return the state of a task as it is stored; what is the same for many tasks, as its bytes."""
    cells: list[CellState] = []
    phases: dict[str, PhaseState] = {}
    sources = list(task.sequences)
    running_ms = estimate_ms(task, open_execution(task), task.seen_ms)
    rolled_tokens, rolled_cost = task.tokens.used, task.cost.used
    _add_cells(cells, Scope.TASK, None, task, running_ms)
    for name, phase in task.phases.items():
        rolled_tokens -= phase.tokens.used
        rolled_cost -= phase.cost.used
        _add_cells(cells, Scope.PHASE, name, phase, running_ms if name == task.open_phase else 0)
        phases[name] = _phase(phase, sources)
    for name, unused in task.limits.unused.items():
        if name not in phases:
            cells += cast("list[CellState]", unused)
    blocks = [(block.phase, block.metric, block.used) for block in task.blocks]
    return TaskStateData(
        task_id=task.task_id,
        status="ended" if task.is_ended else "open",
        verdict=LEVELS[task.verdict],
        cells=cells,
        phases=phases,
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
        outcome=task.outcome,
        block=blocks[0] if blocks else None,
        later_blocks=blocks[1:],
        rolled=(rolled_tokens, rolled_cost) if rolled_tokens or rolled_cost else None,
        due_ms=first_deadline_ms(task),
    )


def _add_cells(
    found: list[CellState], scope: Scope, name: str | None, owner: Task | Phase, running_ms: int
) -> None:
    """Add what a task or phase has of limits; of its latency `running_ms` are not counted yet."""
    cell = owner.tokens
    if (line := cell.line) is not None:
        used, limit = tokens(cell.used), tokens(line.limit)
        found.append(CellState(scope, Metric.TOKENS, used, limit, LEVELS[cell.level], name))
    cell = owner.latency
    if (line := cell.line) is not None:
        used, level = cell.used + running_ms, LEVELS[cell.level]
        firm = None if cell.firm == cell.level else LEVELS[cell.firm]
        found.append(CellState(scope, Metric.LATENCY_MS, used, line.limit, level, name, firm))
    cell = owner.cost
    if (line := cell.line) is not None:
        used, limit = dollars(cell.used), dollars(line.limit)
        found.append(CellState(scope, Metric.COST_USD, used, limit, LEVELS[cell.level], name))


def _phase(phase: Phase, sources: list[str]) -> PhaseState:
    executions = phase.executions
    if len(executions) == 1:
        only = executions[0]
        return PhaseState(
            only.attempt,
            counters_json(only.counters, zeros=False),
            [_execution(only, sources, None)],
        )
    return PhaseState(
        max((one.attempt for one in executions), default=0),
        counters_json(counters_of(executions), zeros=False),
        [_execution(one, sources, counters_json(one.counters, zeros=False)) for one in executions],
    )


def _execution(
    execution: Execution, sources: list[str], counters: dict[str, Number] | None
) -> ExecutionState:
    source = execution.source
    return ExecutionState(
        execution.attempt,
        execution.outcome,
        execution.revision,
        execution.opened_ms,
        execution.started_ms,
        sources.index(source) if source in sources else source,
        execution.ended_ms,
        execution.latency_ms,
        execution.historical * HISTORICAL | execution.skewed * SKEWED | execution.timed * TIMED,
        counters,
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
