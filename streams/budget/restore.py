"""From the records of `tasks` back to a partition's state, after a restart.

What can be derived is not stored: sums of latency, deadlines, the index of children.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from sys import intern
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from schemas.errors import InvalidFieldError, Remedy, StoplossError
from schemas.events import PARTITION_PREFIX, partition_subject
from schemas.fields import ExecutionOutcome, Metric, Number, TaskOutcome
from schemas.refusal import UNREADABLE
from schemas.state import PartitionStateData, PhaseState, TaskStateData
from streams.budget.amounts import folded, metered_milli
from streams.budget.clock import lay_down, schedule_all
from streams.budget.evaluate import keep_standing
from streams.budget.ladder import LEVEL_OF, REVIEW, line
from streams.budget.lifecycle import limits_of
from streams.budget.limits import METRICS, Grant, NamedAmounts, TaskClass, by_metric
from streams.budget.policy import InvalidPolicyError, Policy, builtin_policy, policy_from_json
from streams.budget.snapshot import HISTORICAL, SKEWED, TIMED
from streams.budget.state import (
    COUNTER_NAMES,
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
from streams.budget.tasks import pack, unpack


class TornStateError(StoplossError):
    """A record of `tasks` is not what the ledger has written."""

    remedy = Remedy.STOP

    def __init__(self, partition: int, key: str, reason: str) -> None:
        super().__init__(
            f"tasks, partition {partition}, key {key}: {reason}; "
            f"`stoploss recover {key} --reason …` rebuilds it from events"
        )
        self.partition, self.key, self.reason = partition, key, reason


class Restoring:
    """Takes the records of `tasks` in their order; makes a state of the last one of each key.

    Records are kept packed, and tasks come asleep where they may: a million of them fit in memory,
    and are ready in well under a minute.
    """

    def __init__(self, partition: int, default_policy: Policy) -> None:
        self._partition = partition
        self._tasks: dict[str, bytes] = {}
        self._others: dict[str, bytes] = {}
        self.state = new_partition(partition, default_policy)

    def __repr__(self) -> str:
        return f"<Restoring partition {self._partition}, {len(self._tasks)} tasks>"

    def put(self, key: str, value: bytes | None) -> None:
        """Take one record; None forgets what came before under the same key."""
        is_task = not key.startswith((POLICY_KEY, PARTITION_PREFIX))
        records = self._tasks if is_task else self._others
        if value is None:
            records.pop(key, None)
        else:
            records[key] = pack(value) if is_task else value

    def finish(self) -> Iterator[None]:
        """Make `state`; yields after each task, so that others get their turn.

        Raises:
            TornStateError: names the key of a record that is torn or not ours.
        """
        state = self.state
        state.tasks.wake = lambda task_id: wake(state, task_id)
        for key, value in self._others.items():
            if key.startswith(POLICY_KEY):
                policy = read_policy(self._partition, key, value)
                state.known_policies[policy.hash] = policy
        is_owned = False
        for key, value in self._others.items():
            if key.startswith(PARTITION_PREFIX):
                own = _decoded(self._partition, key, value, _PARTITION)
                _restore_partition(state, key, own)
                is_owned = True
        if self._tasks and not is_owned:
            # Begun at offset 0, the tasks that are there would be folded a second time.
            key = partition_subject(self._partition)
            raise TornStateError(self._partition, key, "it is not there, and tasks are")
        parents: dict[str, str] = {}
        while self._tasks:
            key, packed = self._tasks.popitem()
            data = _decoded(self._partition, key, unpack(packed), _TASK)
            if data.task_id != key:
                raise TornStateError(self._partition, key, f"it is the state of {data.task_id}")
            if data.last_offset >= state.next_offset:
                # An older record of the partition has come after the newer one: from there on
                # everything would be folded a second time.
                own_key = partition_subject(self._partition)
                reason = f"it goes on at offset {state.next_offset}; {key} is at {data.last_offset}"
                raise TornStateError(self._partition, own_key, reason)
            _hold_policy(state, key, data.policy.hash)
            _place(state, data, packed)
            if data.parent_task_id is not None:
                parents[key] = data.parent_task_id
                state.children.setdefault(data.parent_task_id, set()).add(key)
            yield
        for key, parent_id in parents.items():
            if parent_id not in state.tasks:
                raise TornStateError(self._partition, key, f"its parent {parent_id} is not there")
        state.known_policies = {one: state.known_policies[one] for one in state.policies}


def restore(
    partition: int, records: Iterable[tuple[str, bytes]], default_policy: Policy
) -> PartitionState:
    """Return the state that the last record of each key describes.

    Args:
        partition: whose state it is.
        records: key and value, tombstones and overwritten records left out.
        default_policy: holds until a policy was set.

    Raises:
        TornStateError: names the key of a record that is torn or not ours.
    """
    restoring = Restoring(partition, default_policy)
    for key, value in records:
        restoring.put(key, value)
    for _ in restoring.finish():
        pass
    return restoring.state


def restore_awake(
    partition: int, records: Iterable[tuple[str, bytes]], default_policy: Policy
) -> PartitionState:
    """As `restore`, with every task built: whatever is torn is found."""
    state = restore(partition, records, default_policy)
    for task_id in sorted(state.tasks):
        state.tasks.get(task_id)
    return state


def torn_in(partition: int, records: Iterable[tuple[str, bytes]]) -> TornStateError | None:
    """Return what a restore from these records stops at, if it does."""
    try:
        restore_awake(partition, records, builtin_policy())
    except TornStateError as torn:
        return torn
    return None


def wake(state: PartitionState, task_id: str) -> Task:
    """Build a task that is asleep; all that is due for it is in the heap then.

    Raises:
        TornStateError: its record fits the types, but not its policy.
    """
    data = _decoded(state.partition, task_id, unpack(state.tasks.asleep[task_id]), _TASK)
    task = _build(state, data)
    del state.tasks.asleep[task_id]
    return task


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


def _decoded(
    partition: int, key: str, value: bytes, decoder: msgspec.json.Decoder[_Stored[Data]]
) -> Data:
    try:
        value.decode()  # the decoder does not look into what it passes over, a torn field's name as well
        return decoder.decode(value).data
    except UNREADABLE as error:
        raise TornStateError(partition, key, str(error)) from error


def read_policy(partition: int, key: str, value: bytes) -> Policy:
    """Return the policy in a record of `tasks`.

    Raises:
        TornStateError: there is none, or it is not whole.
    """
    document = _decoded(partition, key, value, _POLICY).policy
    try:
        return policy_from_json(bytes(document), key)
    except InvalidPolicyError as error:
        raise TornStateError(partition, key, str(error.errors[0])) from error


def _restore_partition(state: PartitionState, key: str, data: PartitionStateData) -> None:
    own_key = partition_subject(state.partition)
    if key != own_key:
        raise TornStateError(
            state.partition, own_key, f"another partition's {key} stands beside it"
        )
    if data.partition != state.partition:
        raise TornStateError(state.partition, key, f"it is partition {data.partition}'s")
    state.next_offset = data.next_offset
    state.clock_ms = data.clock_ms
    state.mode, state.mode_by, state.previous_mode = data.mode, data.mode_by, data.previous_mode
    state.sequences = data.dedupe.sequences
    state.recent = data.dedupe.recent or None
    state.checkpoint_ms = data.checkpoint_ms or 0
    if data.policy is not None:
        state.policy = _hold_policy(state, key, data.policy.hash)


def _place(state: PartitionState, data: TaskStateData, packed: bytes) -> None:
    """Put a task where it belongs; what needs it at once, or soon, is built."""
    is_open = data.ended_ms is None
    state.open_tasks += is_open
    if data.due_ms is None or (is_open and LEVEL_OF[data.verdict] >= REVIEW):
        _build(state, data)
    else:
        lay_down(state, data.task_id, packed, data.due_ms)


def _build(state: PartitionState, data: TaskStateData) -> Task:
    try:
        task = _restore_task(state, data)
        state.tasks[data.task_id] = task
        schedule_all(state, task)  # an open phase, for one, that the task does not have
    except (InvalidFieldError, LookupError, ValueError, ArithmeticError) as error:
        raise TornStateError(state.partition, data.task_id, f"{error!r}") from error
    return task


def _hold_policy(state: PartitionState, key: str, policy_hash: str) -> Policy:
    policy = state.known_policies.get(policy_hash)
    if policy is None:
        reason = f"its policy {policy_hash} is not there"
        raise TornStateError(state.partition, key, reason)
    state.policies[policy_hash] = state.policies.get(policy_hash, 0) + 1
    return policy


def _restore_task(state: PartitionState, data: TaskStateData) -> Task:
    policy = state.known_policies[data.policy.hash]
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
        parent_id=data.parent_task_id,
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
        blocks=_blocks(data),
        sequences={intern(source): highest for source, highest in data.dedupe.sequences.items()},
        recent=data.dedupe.recent or None,
    )
    for name, stored in data.phases.items():
        task.phases[intern(name)] = _restore_phase(task, stored)
    _sum(task, data.rolled or (0, 0))
    _restore_lines(state, task, data)
    keep_standing(task)  # earlier versions kept a block that had fallen beside another one
    return task


def _blocks(data: TaskStateData) -> tuple[Block, ...]:
    if data.block is None:
        return ()
    return (Block(*data.block), *(Block(*later) for later in data.later_blocks))


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
    if unknown := whole.keys() - COUNTER_NAMES:
        raise InvalidFieldError("counters", min(unknown), f"one of {', '.join(COUNTER_NAMES)}")
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
    task.own = task.level
