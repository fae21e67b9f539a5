"""Latency: of ended executions it is counted, of the open one it is estimated by the clock.

Source: budget model, "Latency" and "Impossible durations".
"""

from dataclasses import dataclass

from streams.budget.ladder import NEVER
from streams.budget.state import Cell, Execution, PartitionState, Task


@dataclass(frozen=True, slots=True)
class Duration:
    """How long something took; `is_measured` durations withdraw what an estimate has reached."""

    duration_ms: int
    is_measured: bool
    is_skewed: bool = False


def checked(duration_ms: int, execution_max_ms: int, *, is_measured: bool) -> Duration:
    """Return a duration; an impossible one counts as 0, is flagged and withdraws nothing."""
    if 0 <= duration_ms <= execution_max_ms:
        return Duration(duration_ms, is_measured)
    return Duration(0, is_measured=False, is_skewed=True)


def open_execution(task: Task) -> Execution | None:
    """Return the execution that is going on; a task has at most one."""
    return None if task.open_phase is None else task.phases[task.open_phase].open


def estimate_ms(task: Task, execution: Execution | None, at_ms: int) -> int:
    """Return how long an open execution has run; history and the impossible count as 0."""
    if execution is None or execution.opened_ms is None or execution.historical:
        return 0
    passed = at_ms - execution.opened_ms
    return passed if passed <= task.policy.clock.execution_max_ms else 0


def used_ms(task: Task, name: str | None, cell: Cell, at_ms: int) -> int:
    """Return what a latency cell has used at a time, the open execution included."""
    if task.open_phase is None or name not in (None, task.open_phase):
        return cell.used
    return cell.used + estimate_ms(task, open_execution(task), at_ms)


def due_ms(task: Task, cell: Cell, execution: Execution) -> int:
    """Return when an open execution takes a latency cell to its next level, or NEVER."""
    if cell.next_at == NEVER or execution.opened_ms is None or execution.historical:
        return NEVER
    left = cell.next_at - cell.used
    return NEVER if left > task.policy.clock.execution_max_ms else execution.opened_ms + left


def schedule_latency(state: PartitionState, task: Task) -> None:
    """Remember when time alone takes the task's latency cells to their next levels.

    What lies behind the clock was decided when it was due, or belongs to a run that is too long to
    count: decided now, it would be by a time that no longer holds.
    """
    execution = open_execution(task)
    if execution is None or task.open_phase is None:
        return
    for name, at_ms in levels_due(task, execution, task.open_phase, state.clock_ms):
        state.schedule(at_ms, task.task_id, name, LEVEL_DUE)


def levels_due(
    task: Task, execution: Execution, open_phase: str, after_ms: int
) -> list[tuple[str, int]]:
    """Return the phases ("" for the task) of latency cells, and when each comes to its next level."""
    found = []
    for name, cell in (("", task.latency), (open_phase, task.phases[open_phase].latency)):
        at_ms = due_ms(task, cell, execution)
        if after_ms < at_ms < NEVER:
            found.append((name, at_ms))
    return found


# What an entry of the heap is about; of two at the same time the lower number comes first.
WAKE_DUE, LEVEL_DUE, STUCK_DUE, ABANDONED_DUE, REMOVAL_DUE = range(-1, 4)
