"""The state as records of `tasks`, and back: what a restart needs, and nothing else.

A batch writes each task it changed once, then the partition with the next offset. What can be
derived is not stored: sums of latency, deadlines, the index of children.
"""

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from sys import intern
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from schemas.envelope import rfc3339
from schemas.errors import InvalidFieldError, Remedy, StoplossError
from schemas.events import partition_subject
from schemas.fields import ExecutionOutcome, Metric, Number, Scope, TaskOutcome
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
from streams.budget.amounts import folded, metered_milli, number
from streams.budget.clock import schedule_all
from streams.budget.effects import Effect
from streams.budget.explain import counters_json, counters_of
from streams.budget.ladder import LEVEL_OF, LEVELS, Line, line
from streams.budget.latency import used_ms
from streams.budget.lifecycle import limits_of
from streams.budget.limits import LATENCY, METRICS, Grant, NamedAmounts, TaskClass, by_metric
from streams.budget.policy import InvalidPolicyError, Policy, policy_from_json
from streams.budget.state import (
    POLICY_KEY,
    Block,
    Cell,
    Counters,
    Execution,
    PartitionState,
    Phase,
    Task,
    new_partition,
)

PARTITION_KEY = "partition/"
HISTORICAL, SKEWED, TIMED = 1, 2, 4  # bits of `ExecutionState.flags`


class TornStateError(StoplossError):
    """A record of `tasks` is not what the ledger has written."""

    remedy = Remedy.STOP

    def __init__(self, partition: int, key: str, reason: str) -> None:
        super().__init__(
            f"tasks, partition {partition}, key {key}: {reason}; "
            f"`stoploss recover {key}` rebuilds it from events"
        )
        self.partition, self.key, self.reason = partition, key, reason


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
    block = task.block
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
        parent_task_id=None if task.parent is None else task.parent.task_id,
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
        block=None if block is None else (block.phase, block.metric, block.used),
        rolled=_rolled(task),
    )


def restore(
    partition: int, records: Iterable[tuple[str, bytes]], default_policy: Policy
) -> PartitionState:
    """Return the state that the last record of each key describes.

    Args:
        records: key and value, tombstones and overwritten records left out.

    Raises:
        TornStateError: names the key of a record that is torn or not ours.
    """
    state = new_partition(partition, default_policy)
    policies: dict[str, Policy] = {}
    stored: list[TaskStateData] = []
    own: PartitionStateData | None = None
    for key, value in records:
        if key.startswith(POLICY_KEY):
            policy = _read_policy(partition, key, value)
            policies[policy.hash] = policy
        elif key.startswith(PARTITION_KEY):
            own = _decoded(partition, key, value, _PARTITION)
        else:
            stored.append(_decoded(partition, key, value, _TASK))
    if own is not None:
        _restore_partition(state, own, policies)
    for data in stored:
        try:
            state.tasks[data.task_id] = _restore_task(state, data, policies)
        except (InvalidFieldError, LookupError, ValueError) as error:
            raise TornStateError(partition, data.task_id, f"{error!r}") from error
    for data in stored:
        _relate(state, data)
    return state


Data = TypeVar("Data")


class _Stored(Struct, Generic[Data], frozen=True):
    """The part of a CloudEvent that is read back."""

    data: Data


class _StoredPolicy(Struct, frozen=True):
    """Its numbers are read exactly, from the text."""

    policy: msgspec.Raw


_TASK = msgspec.json.Decoder(_Stored[TaskStateData])
_PARTITION = msgspec.json.Decoder(_Stored[PartitionStateData])
_POLICY = msgspec.json.Decoder(_Stored[_StoredPolicy])


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


def _amounts(stored: dict[str, dict[str, Number]]) -> NamedAmounts:
    return tuple(
        (
            name,
            by_metric(
                folded(named[metric.value], metric) if metric.value in named else None
                for metric in METRICS
            ),
        )
        for name, named in stored.items()
    )


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


def _decoded(
    partition: int, key: str, value: bytes, decoder: msgspec.json.Decoder[_Stored[Data]]
) -> Data:
    try:
        return decoder.decode(value).data
    except (msgspec.MsgspecError, RecursionError) as error:
        raise TornStateError(partition, key, str(error)) from error


def _read_policy(partition: int, key: str, value: bytes) -> Policy:
    document = _decoded(partition, key, value, _POLICY).policy
    try:
        return policy_from_json(bytes(document), key)
    except InvalidPolicyError as error:
        raise TornStateError(partition, key, str(error.errors[0])) from error


def _restore_partition(
    state: PartitionState, data: PartitionStateData, policies: dict[str, Policy]
) -> None:
    key = partition_subject(state.partition)
    if data.partition != state.partition:
        raise TornStateError(state.partition, key, f"it is partition {data.partition}'s")
    state.next_offset = data.next_offset
    state.clock_ms = data.clock_ms
    state.mode, state.mode_by, state.previous_mode = data.mode, data.mode_by, data.previous_mode
    state.sequences = data.dedupe.sequences
    state.recent = data.dedupe.recent or None
    state.checkpoint_ms = data.checkpoint_ms or 0
    if data.policy is not None:
        state.policy = _policy_of(state, key, data.policy.hash, policies)


def _policy_of(
    state: PartitionState, key: str, policy_hash: str, policies: dict[str, Policy]
) -> Policy:
    policy = policies.get(policy_hash)
    if policy is None:
        reason = f"its policy {policy_hash} is not there"
        raise TornStateError(state.partition, key, reason)
    state.policies[policy_hash] = state.policies.get(policy_hash, 0) + 1
    return policy


def _restore_task(state: PartitionState, data: TaskStateData, policies: dict[str, Policy]) -> Task:
    policy = _policy_of(state, data.task_id, data.policy.hash, policies)
    task = Task(
        task_id=data.task_id,
        policy=policy,
        limits=state.limits_for(policy, TaskClass()),
        started_ms=data.started_ms,
        last_ms=data.last_ms,
        seen_ms=data.seen_ms,
        last_offset=data.last_offset,
        last_index=data.last_index,
        known=data.known,
        complexity=data.complexity,
        importance=data.importance,
        justification=data.justification,
        approved=data.justification_approved,
        planned=None if data.planned_phases is None else tuple(map(intern, data.planned_phases)),
        multiplier=data.budget_multiplier,
        overrides=_amounts(data.budget_overrides or {}),
        grants=tuple(
            Grant(
                multiplier=None if grant.multiplier is None else Fraction(grant.multiplier),
                limits=_amounts(grant.limits or {}),
            )
            for grant in data.grants
        ),
        owner=data.owner,
        team=data.team,
        task_type=data.task_type,
        labels=msgspec.json.encode(data.labels) if data.labels else b"",
        flags=tuple(data.flags),
        limits_version=data.limits_version,
        tokens=Cell(),
        latency=Cell(),
        cost=Cell(),
        open_phase=None if data.open_phase is None else intern(data.open_phase),
        verdict=LEVEL_OF[data.verdict],
        inherited_from=data.inherited_from,
        decisions=data.decisions,
        outcome=None if data.outcome is None else TaskOutcome(data.outcome),
        ended_ms=data.ended_ms,
        block=None if data.block is None else Block(*data.block),
        sequences={intern(source): highest for source, highest in data.dedupe.sequences.items()},
        recent=data.dedupe.recent or None,
    )
    for name, stored in data.phases.items():
        task.phases[intern(name)] = _restore_phase(task, stored)
    _sum(task, data.rolled or (0, 0))
    _restore_lines(state, task, data)
    return task


def _restore_phase(task: Task, data: PhaseState) -> Phase:
    executions = []
    sources = list(task.sequences)
    for stored in data.executions:
        counters = _counters(data.counters if stored.counters is None else stored.counters)
        source = stored.source
        executions.append(
            Execution(
                attempt=stored.attempt,
                counters=counters,
                metered=metered_milli(
                    task.policy.weights_milli,
                    counters.input_tokens,
                    counters.cache_read_tokens,
                    counters.cache_write_tokens,
                    counters.output_tokens,
                ),
                outcome=None if stored.outcome is None else ExecutionOutcome(stored.outcome),
                revision=stored.revision,
                opened_ms=stored.opened_ms,
                started_ms=stored.started_ms,
                source=sources[source] if isinstance(source, int) else source,
                ended_ms=stored.ended_ms,
                latency_ms=stored.latency_ms,
                historical=bool(stored.flags & HISTORICAL),
                skewed=bool(stored.flags & SKEWED),
                timed=bool(stored.flags & TIMED),
            )
        )
    phase = Phase(Cell(), Cell(), Cell(), executions)
    phase.current = phase.open or phase.find(1)
    phase.tokens.used = sum(one.metered for one in executions)
    phase.latency.used = sum(one.latency_ms for one in executions)
    phase.cost.used = sum(one.counters.cost_usd for one in executions)
    return phase


def _counters(stored: dict[str, Number]) -> Counters:
    cost = folded(stored.get("cost_usd", 0), Metric.COST_USD)
    whole = {name: int(value) for name, value in stored.items() if name != "cost_usd"}
    return Counters(cost_usd=cost, **whole)


def _sum(task: Task, rolled: tuple[int, int]) -> None:
    phases = list(task.phases.values())
    task.tokens.used = rolled[0] + sum(phase.tokens.used for phase in phases)
    task.latency.used = sum(phase.latency.used for phase in phases)
    task.cost.used = rolled[1] + sum(phase.cost.used for phase in phases)


def _restore_lines(state: PartitionState, task: Task, data: TaskStateData) -> None:
    """Take the limits as they were stored; they are shared where the formula still gives them."""
    task.limits = limits_of(state, task)
    for stored in data.cells:
        index = METRICS.index(stored.metric)
        lines = task.limits.task if stored.phase is None else task.limits.phases[stored.phase]
        limit, shared = folded(stored.limit, stored.metric), lines[index]
        if shared is None or shared.limit != limit:
            shares = task.policy.ladders[stored.scope, stored.metric]
            shared = line(limit, shares, None if shared is None else shared.computed)
        if stored.phase is not None and stored.phase not in task.phases:
            continue
        cell = task.cell(stored.phase, index)
        cell.line = shared
        cell.level = LEVEL_OF[stored.level]
        cell.firm = cell.level if stored.firm is None else LEVEL_OF[stored.firm]
        cell.aim()
    task.own = max(cell.level for _, _, cell in task.cells())


def _relate(state: PartitionState, data: TaskStateData) -> None:
    task = state.tasks[data.task_id]
    if data.parent_task_id is not None:
        parent = state.tasks.get(data.parent_task_id)
        if parent is None:
            reason = f"its parent {data.parent_task_id} is not there"
            raise TornStateError(state.partition, data.task_id, reason)
        task.parent = parent
        state.children.setdefault(parent.task_id, {})[task.task_id] = task
    if not task.is_ended:
        state.open_tasks += 1
    schedule_all(state, task)
