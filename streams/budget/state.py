"""The state of one partition: everything that the next event is folded into.

Plain data; the rules are in `fold` and the files it calls. What every event changes is a dataclass
with slots: writing a field of a msgspec Struct takes four times as long, reading one the same.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from msgspec import Struct

from schemas.fields import (
    Complexity,
    ExecutionOutcome,
    Importance,
    Mode,
    TaskOutcome,
)
from schemas.outputs import InputRef, PolicyRef
from schemas.state import PolicyStateData
from schemas.topics import Topic
from streams.budget.effects import Effect
from streams.budget.ladder import CONTINUE, NEVER, Line, next_at
from streams.budget.limits import Grant, Limits, NamedAmounts, TaskClass, compute_limits
from streams.budget.policy import Policy
from streams.budget.tasks import Tasks

BREAKER = "breaker"  # the `by` of a mode that the circuit breaker has set
POLICY_KEY = "policy/"
LIMITS_CACHE_MAX = 4_096


@dataclass(slots=True, eq=False)
class Cell:
    """One metric of a phase or task: what was used, and the level it stands at.

    `used` of a latency cell is that of ended executions; an open one is added when it is asked
    for. `firm` (latency) is the highest level that does not rest on an estimate. `next_at` is where
    the next level begins, so that the common case is one comparison.
    """

    used: int = 0
    level: int = CONTINUE
    next_at: int = NEVER
    line: Line | None = None
    firm: int = CONTINUE

    def aim(self) -> None:
        """Set `next_at` after `line` or `level` changed."""
        self.next_at = NEVER if self.line is None else next_at(self.line.at, self.level)


@dataclass(slots=True)
class Counters:
    """What an execution used, by the fields of `phase.usage`; cost in nano-dollars."""

    model_calls: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: int = 0
    duration_ms: int = 0
    tool_calls: int = 0
    files_read: int = 0
    output_chars: int = 0
    unknown_usage: int = 0
    estimated_usage: int = 0

    def add(self, other: "Counters") -> None:
        """Add another execution's counters to these."""
        for name in COUNTER_NAMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))


COUNTER_NAMES = tuple(one.name for one in fields(Counters))


@dataclass(slots=True, eq=False)
class Execution:
    """One run of a phase. Times are milliseconds since 1970, each absent until it is known.

    `opened_ms` is the append time of `phase.started`, absent while only usage was seen
    (`inferred`). `started_ms` and `source` are the event's own, for durations within one source.
    """

    attempt: int
    counters: Counters
    metered: int = 0  # milli-tokens
    outcome: ExecutionOutcome | None = None
    revision: int = 0
    opened_ms: int | None = None
    started_ms: int | None = None
    source: str | None = None
    ended_ms: int | None = None
    latency_ms: int = 0
    historical: bool = False
    skewed: bool = False
    timed: bool = False  # its phase.ended brought a duration

    @property
    def is_open(self) -> bool:
        """Whether its phase.started was seen, and no end yet."""
        return self.opened_ms is not None and self.outcome is None


@dataclass(slots=True, eq=False)
class Phase:
    """A phase of a task with its runs, in the order they were first seen.

    `current` is where usage without an attempt belongs: the open run, else attempt 1.
    """

    tokens: Cell
    latency: Cell
    cost: Cell
    executions: list[Execution]
    current: Execution | None = None

    def find(self, attempt: int) -> Execution | None:
        """Return the run with this number, if it was seen."""
        for execution in self.executions:
            if execution.attempt == attempt:
                return execution
        return None

    @property
    def open(self) -> Execution | None:
        """The run that is going on, if any."""
        for execution in reversed(self.executions):
            if execution.is_open:
                return execution
        return None

    @property
    def newest(self) -> Execution:
        """The run with the highest attempt."""
        return max(self.executions, key=lambda execution: execution.attempt)


@dataclass(frozen=True, slots=True)
class Block:
    """A crossing that blocks a task, as long as its cell stands at block."""

    phase: str | None
    metric: int
    used: int


@dataclass(slots=True, kw_only=True, eq=False)
class Task:
    """One task of the partition."""

    task_id: str
    policy: Policy
    limits: Limits
    started_ms: int
    last_ms: int  # the clock at its last event
    seen_ms: int  # the clock when it was last changed, by an event or a deadline
    last_offset: int = -1
    last_index: int = 0
    is_changed: bool = False
    known: bool = False  # its task.started was seen
    complexity: Complexity = Complexity.MEDIUM
    importance: Importance = Importance.MEDIUM
    justification: str | None = None
    approved: bool | None = None
    parent_id: str | None = None
    planned: tuple[str, ...] | None = None
    multiplier: str | None = None
    overrides: NamedAmounts = ()
    grants: tuple[Grant, ...] = ()
    owner: str | None = None
    team: str | None = None
    task_type: str | None = None
    labels: bytes = b""  # JSON: a dict costs 500 bytes a task
    flags: tuple[str, ...] = ()
    limits_version: int = 1
    tokens: Cell
    latency: Cell
    cost: Cell
    phases: dict[str, Phase] = field(default_factory=dict)
    open_phase: str | None = None
    verdict: int = CONTINUE
    own: int = CONTINUE
    inherited_from: str | None = None
    decisions: int = 0
    outcome: TaskOutcome | None = None
    ended_ms: int | None = None
    blocks: tuple[Block, ...] = ()  # in the order of their crossings
    sequences: dict[str, int] = field(default_factory=dict)
    recent: list[int] | None = None

    @property
    def is_ended(self) -> bool:
        """Whether task.ended was folded, or the task was given up."""
        return self.ended_ms is not None

    def flag(self, name: str) -> bool:
        """Add a flag; tell whether it is new."""
        if name in self.flags:
            return False
        self.flags = (*self.flags, name)
        return True

    def unflag(self, name: str) -> None:
        """Remove a flag, if it is there."""
        if name in self.flags:
            self.flags = tuple(flag for flag in self.flags if flag != name)

    @property
    def level(self) -> int:
        """The highest level that one of its cells stands at."""
        level = max(self.tokens.level, self.latency.level, self.cost.level)
        for phase in self.phases.values():
            level = max(level, phase.tokens.level, phase.latency.level, phase.cost.level)
        return level

    def cells(self) -> Iterator[tuple[str | None, int, Cell]]:
        """Yield (phase or None, index into METRICS, cell): the task's first, then by phase."""
        yield None, 0, self.tokens
        yield None, 1, self.latency
        yield None, 2, self.cost
        for name, phase in self.phases.items():
            yield name, 0, phase.tokens
            yield name, 1, phase.latency
            yield name, 2, phase.cost

    def cell(self, name: str | None, index: int) -> Cell:
        """Return one cell: of phase `name`, or of the task where it is None."""
        owner = self if name is None else self.phases[name]
        return (owner.tokens, owner.latency, owner.cost)[index]

    def policy_ref(self) -> PolicyRef:
        """Return the policy that this task started under."""
        return PolicyRef(self.policy.version, self.policy.hash)


@dataclass(slots=True, kw_only=True, eq=False)
class PartitionState:
    """One partition. `next_offset` is part of it, and commits with what the events caused."""

    partition: int
    default_policy: Policy
    next_offset: int = 0
    clock_ms: int = 0
    mode: Mode = Mode.OBSERVE
    mode_by: str = ""
    previous_mode: Mode | None = None
    policy: Policy | None = None  # the last policy.set; none yet: `default_policy`
    policies: dict[str, int] = field(default_factory=dict)  # by hash: references of tasks and ours
    tasks: Tasks = field(default_factory=Tasks)
    children: dict[str, set[str]] = field(default_factory=dict)  # ids, by the parent's
    sequences: dict[str, int] = field(default_factory=dict)  # of events for the whole partition
    recent: list[int] | None = None
    checkpoint_ms: int = 0
    # Below: derived, or of one fold only; not part of what is stored.
    offset: int = -1
    append_ms: int = 0
    index: int = 0
    event_id: str | None = None
    effects: list[Effect] = field(default_factory=list)
    changed: list[Task] = field(default_factory=list)
    due: list[tuple[int, str, str, int]] = field(default_factory=list)  # see `clock`
    next_due_ms: int = NEVER
    open_tasks: int = 0
    known_policies: dict[str, Policy] = field(default_factory=dict)  # what `policies` counts
    checkpoint_due_ms: int = 0
    limits_cache: dict[tuple[str, TaskClass], Limits] = field(default_factory=dict)

    @property
    def active_policy(self) -> Policy:
        """The policy that a task which starts now gets."""
        return self.policy or self.default_policy

    def ancestors(self, task: Task) -> Iterator[Task]:
        """Yield the parent of a task, its parent, and so on."""
        while task.parent_id is not None:
            task = self.tasks[task.parent_id]
            yield task

    def root(self, task: Task) -> Task:
        """Return the head of a task's family, by whose id its events are keyed."""
        return [task, *self.ancestors(task)][-1]

    def descendants(self, task_id: str) -> Iterator[str]:
        """Yield the ids of all below a task, in no order; nobody is woken."""
        waiting = [task_id]
        while waiting:
            below = self.children.get(waiting.pop(), set())
            yield from below
            waiting += below

    def limits_for(self, policy: Policy, task: TaskClass, named: tuple[str, ...] = ()) -> Limits:
        """Return the limits of a class, computed once for all of its tasks."""
        if named:
            return compute_limits(policy, task, named)
        key = (policy.hash, task)
        found = self.limits_cache.get(key)
        if found is None:
            if len(self.limits_cache) >= LIMITS_CACHE_MAX:
                self.limits_cache.clear()
            found = self.limits_cache[key] = compute_limits(policy, task)
        return found

    def emit(self, topic: Topic, kind: str, key: str, data: Struct | None) -> None:
        """Add what the event being folded causes."""
        self.effects.append(Effect(topic, kind, key, data, self.offset, self.index))
        self.index += 1

    def retain(self, policy: Policy) -> None:
        """Count a reference to a policy; the first one stores it whole."""
        count = self.policies.get(policy.hash, 0)
        self.policies[policy.hash] = count + 1
        self.known_policies[policy.hash] = policy
        if not count:
            data = PolicyStateData(hash=policy.hash, version=policy.version, policy=policy.document)
            self.emit(Topic.TASKS, "stoploss.policy.state", POLICY_KEY + policy.hash, data)

    def release(self, policy: Policy) -> None:
        """Drop a reference; the last one removes the stored policy."""
        self.policies[policy.hash] -= 1
        if not self.policies[policy.hash]:
            del self.policies[policy.hash], self.known_policies[policy.hash]
            self.emit(Topic.TASKS, "stoploss.policy.state", POLICY_KEY + policy.hash, None)

    def touch(self, task: Task) -> None:
        """Note that the event being folded changed a task: its state is written with the batch."""
        if task.last_offset != self.offset:
            task.last_offset = self.offset
            task.last_index = self.index
            self.index += 1
        task.seen_ms = self.clock_ms
        if not task.is_changed:
            task.is_changed = True
            self.changed.append(task)

    def schedule(self, due_ms: int, task_id: str, phase: str = "", kind: int = 0) -> None:
        """Remember that something is decided when the clock reaches `due_ms`."""
        heapq.heappush(self.due, (due_ms, task_id, phase, kind))
        self.next_due_ms = self.due[0][0]

    def input_ref(self) -> InputRef:
        """Return the record being folded."""
        return InputRef(self.partition, self.offset)


def new_partition(partition: int, default_policy: Policy) -> PartitionState:
    """Return the state of a partition from which nothing was folded yet."""
    return PartitionState(partition=partition, default_policy=default_policy)


def new_phase(lines: tuple[Line | None, Line | None, Line | None]) -> Phase:
    """Return a phase of which nothing was used."""
    cells = [Cell(line=line) for line in lines]
    for cell in cells:
        cell.aim()
    return Phase(cells[0], cells[1], cells[2], [])
