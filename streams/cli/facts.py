"""What people want to know about tasks, whether the topics say it or the view."""

import enum
from collections.abc import Iterable, Mapping
from fractions import Fraction

from msgspec import Struct

from schemas.envelope import Envelope, rfc3339
from schemas.fields import (
    Complexity,
    Importance,
    Metric,
    Mode,
    Number,
    Scope,
    UnenforcedReason,
    Verdict,
)
from schemas.outputs import Breach, Decision, PolicyRef
from schemas.state import CellState, PartitionStateData, TaskStateData
from streams.budget.decide import unenforced_reason
from streams.cli.reading import LedgerView, Seen
from streams.insight.numbers import share_of

ENDED = "ended"


class From(enum.StrEnum):
    """Where an answer comes from."""

    VIEW = "view"
    TOPICS = "topics"


class AnsweredFrom(Struct, frozen=True, kw_only=True, rename={"part": "from"}):
    """Where an answer comes from, and how old it is.

    Everything that was written `age_ms` ago is in it; topics are read to their end, so that it is 0.
    `why`: the topics, and not the view; None where the view has answered.
    """

    part: From
    age_ms: int
    why: str | None = None


class TaskRow(Struct, frozen=True, kw_only=True):
    """One line of `stoploss tasks`. `share` is of the task's token limit."""

    task_id: str
    partition: int
    status: str
    task_type: str | None
    complexity: Complexity
    importance: Importance
    phase: str | None
    used_tokens: Number
    limit_tokens: Number | None
    share: float | None
    verdict: Verdict
    enforced: bool
    unenforced_reason: UnenforcedReason | None


class TasksAnswer(Struct, frozen=True):
    """What `stoploss tasks` shows; `modes` by partition."""

    tasks: list[TaskRow]
    open_count: int
    ended_count: int
    modes: dict[int, Mode]
    source: AnsweredFrom | None = None


class PhaseFacts(Struct, frozen=True):
    """What was done in a phase, in all attempts together."""

    attempts: int
    counters: dict[str, Number]


class TaskAnswer(Struct, frozen=True, kw_only=True):
    """What `stoploss task ID` shows."""

    task_id: str
    partition: int
    status: str
    outcome: str | None
    verdict: Verdict
    enforced: bool
    unenforced_reason: UnenforcedReason | None
    inherited_from: str | None
    complexity: Complexity
    importance: Importance
    justification: str | None
    task_type: str | None
    owner: str | None
    team: str | None
    labels: dict[str, str]
    parent_task_id: str | None
    children: list[str]
    open_phase: str | None
    started: str
    last: str
    ended: str | None
    limits_version: int
    policy: PolicyRef
    flags: list[str]
    cells: list[CellState]
    phases: dict[str, PhaseFacts]
    decisions: list[Decision]
    breaches: list[Breach]
    source: AnsweredFrom | None = None


class Standing(Struct, frozen=True, kw_only=True):
    """Where a task stands: before and after an operator's event."""

    status: str
    verdict: Verdict
    complexity: Complexity
    importance: Importance
    open_phase: str | None
    limits_version: int
    cells: list[CellState]
    justification: str | None
    justification_approved: bool | None


def standing(state: TaskStateData) -> Standing:
    """Return what an operator's event may change."""
    return Standing(
        status=state.status,
        verdict=state.verdict,
        complexity=state.complexity,
        importance=state.importance,
        open_phase=state.open_phase,
        limits_version=state.limits_version,
        cells=state.cells,
        justification=state.justification,
        justification_approved=state.justification_approved,
    )


def task_cell(cells: list[CellState], metric: Metric) -> CellState | None:
    """Return the task's own cell of a metric, if it has one."""
    for cell in cells:
        if cell.scope is Scope.TASK and cell.metric is metric:
            return cell
    return None


def cell_share(cell: CellState | None) -> Fraction | None:
    """Return what part of its limit a cell has used."""
    return None if cell is None else share_of(cell.used, cell.limit)


def reason_now(
    state: TaskStateData, partition: PartitionStateData | None
) -> UnenforcedReason | None:
    """Return why the task's decisions hold nobody now, None where they do."""
    mode, mode_by = (Mode.OBSERVE, "") if partition is None else (partition.mode, partition.mode_by)
    return unenforced_reason(mode, mode_by, state.importance, is_ended=state.status == ENDED)


def task_row(seen: Seen, partition: PartitionStateData | None) -> TaskRow:
    """Return a task's line.

    Args:
        seen: the task.
        partition: the state of its partition; None where it has none.
    """
    state = seen.state
    tokens = task_cell(state.cells, Metric.TOKENS)
    share = cell_share(tokens)
    reason = reason_now(state, partition)
    return TaskRow(
        task_id=state.task_id,
        partition=seen.partition,
        status=state.status,
        task_type=state.task_type,
        complexity=state.complexity,
        importance=state.importance,
        phase=state.open_phase or next(reversed(state.phases), None),
        used_tokens=0 if tokens is None else tokens.used,
        limit_tokens=None if tokens is None else tokens.limit,
        share=None if share is None else float(share),
        verdict=state.verdict,
        enforced=reason is None,
        unenforced_reason=reason,
    )


def tasks_answer(view: LedgerView, *, ended_too: bool, most: int | None = None) -> TasksAnswer:
    """Return the tasks, those with the highest share of their limit first; at most `most`."""
    open_count = sum(seen.state.status != ENDED for seen in view.tasks.values())
    ended_count = len(view.tasks) - open_count
    rows = task_rows(view.tasks.values(), view.partitions, ended_too=ended_too)
    return TasksAnswer(rows[:most], open_count, ended_count, modes_of(view.partitions))


def task_rows(
    tasks: Iterable[Seen], partitions: Mapping[int, PartitionStateData], *, ended_too: bool
) -> list[TaskRow]:
    """Return the tasks' lines, the highest share of its limit first."""
    rows = [
        task_row(seen, partitions.get(seen.partition))
        for seen in tasks
        if ended_too or seen.state.status != ENDED
    ]
    return sorted(rows, key=lambda row: (-(row.share or 0), row.task_id))


def modes_of(partitions: Mapping[int, PartitionStateData]) -> dict[int, Mode]:
    """Return the mode of each partition."""
    return {partition: state.mode for partition, state in sorted(partitions.items())}


def task_answer(
    seen: Seen,
    partition: PartitionStateData | None,
    *,
    children: Iterable[str],
    decisions: Iterable[Envelope[Decision]],
    breaches: Iterable[Envelope[Breach]],
) -> TaskAnswer:
    """Return everything about one task."""
    state = seen.state
    reason = reason_now(state, partition)
    return TaskAnswer(
        task_id=state.task_id,
        partition=seen.partition,
        status=state.status,
        outcome=state.outcome,
        verdict=state.verdict,
        enforced=reason is None,
        unenforced_reason=reason,
        inherited_from=state.inherited_from,
        complexity=state.complexity,
        importance=state.importance,
        justification=state.justification,
        task_type=state.task_type,
        owner=state.owner,
        team=state.team,
        labels=state.labels,
        parent_task_id=state.parent_task_id,
        children=sorted(children),
        open_phase=state.open_phase,
        started=rfc3339(state.started_ms),
        last=rfc3339(state.last_ms),
        ended=None if state.ended_ms is None else rfc3339(state.ended_ms),
        limits_version=state.limits_version,
        policy=state.policy,
        flags=state.flags,
        cells=state.cells,
        phases={
            name: PhaseFacts(phase.attempts, phase.counters) for name, phase in state.phases.items()
        },
        decisions=[each.data for each in decisions],
        breaches=[each.data for each in breaches],
    )
