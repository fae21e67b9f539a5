"""What `tasks` holds: everything the ledger needs to go on after a restart, as plain JSON.

The named fields are for readers in any language; what only the ledger needs (`executions`) stands
in arrays without names, because a task's state is written again with every batch.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from schemas.fields import (
    Complexity,
    Importance,
    Metric,
    Mode,
    Number,
    Offset,
    Ordinal,
    Partition,
    Scope,
    Verdict,
)
from schemas.outputs import PolicyRef


class CellState(Struct, omit_defaults=True, gc=False):
    """One limit and how far it is used, in the metric's unit."""

    scope: Scope
    metric: Metric
    used: Number
    limit: Number
    level: Verdict
    phase: str | None = None
    firm: Verdict | None = None  # latency: the level that a measured duration has confirmed


class ExecutionState(Struct, array_like=True, gc=False):
    """One run of a phase; `counters` only where its phase has several, else they are the phase's."""

    attempt: int
    outcome: str | None
    revision: int
    opened_ms: int | None
    started_ms: int | None
    source: int | str | None  # of phase.started: its place among the task's sequences, or its name
    ended_ms: int | None
    latency_ms: int
    flags: int
    counters: dict[str, Number] | None = None


class PhaseState(Struct, omit_defaults=True, gc=False):
    """A phase of a task: its attempts so far, and what they used together."""

    attempts: int
    counters: dict[str, Number]
    executions: list[ExecutionState] = []


class Dedupe(Struct, omit_defaults=True, gc=False):
    """Highest sequence by source; `recent`: 64-bit hashes of (source, id) of events without one."""

    sequences: dict[str, int] = {}
    recent: list[int] = []


class Grant(Struct, omit_defaults=True, gc=False):
    """A multiplier (decimal text), or absolute limits by phase or "task", then metric."""

    multiplier: str | None = None
    limits: dict[str, dict[str, Number]] | None = None


class TaskStateData(Struct, omit_defaults=True, kw_only=True, gc=False):
    """The whole state of one task."""

    task_id: str
    status: Annotated[str, Meta(extra_json_schema={"enum": ["open", "ended"]})]
    verdict: Verdict
    cells: list[CellState]
    phases: dict[str, PhaseState]
    flags: list[str]
    last_offset: Offset
    last_index: int = 0
    limits_version: Ordinal
    policy: PolicyRef
    dedupe: Dedupe
    complexity: Complexity = Complexity.MEDIUM
    importance: Importance = Importance.MEDIUM
    justification: str | None = None
    justification_approved: bool | None = None
    known: bool = True
    parent_task_id: str | None = None
    planned_phases: list[str] | None = None
    budget_multiplier: str | None = None
    budget_overrides: dict[str, dict[str, Number]] | None = None
    grants: list[Grant] = []
    owner: str | None = None
    team: str | None = None
    task_type: str | None = None
    labels: dict[str, str] = {}
    open_phase: str | None = None
    inherited_from: str | None = None
    decisions: int = 0
    started_ms: int
    last_ms: int
    seen_ms: int
    ended_ms: int | None = None
    outcome: str | None = None
    block: tuple[str | None, int, int] | None = None  # phase, index of metric, used at the crossing
    later_blocks: list[
        tuple[str | None, int, int]
    ] = []  # of other cells that came to block after it
    rolled: tuple[int, int] | None = None  # milli-tokens and nano-dollars of descendants
    due_ms: int | None = None  # when time alone decides something about it, if nothing else happens


class PartitionStateData(Struct, omit_defaults=True, kw_only=True):
    """Where a partition stands; `next_offset` is what decides where the next owner goes on."""

    partition: Partition
    next_offset: Offset
    clock: str
    clock_ms: int
    mode: Mode
    mode_by: str
    previous_mode: Mode | None = None
    policy: PolicyRef | None = None
    dedupe: Dedupe
    checkpoint_ms: int | None = None


class PolicyStateData(Struct, kw_only=True):
    """A policy that a task refers to, normalised."""

    hash: str
    version: str
    policy: dict[str, Any]


STATE_TYPES: dict[str, type[Struct]] = {
    "stoploss.task.state": TaskStateData,
    "stoploss.partition.state": PartitionStateData,
    "stoploss.policy.state": PolicyStateData,
}
