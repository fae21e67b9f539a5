"""What time alone decides: levels of open phases, stuck and abandoned tasks, forgetting.

Whenever the partition's clock moves, what became due is decided first, in order of deadline, task
and phase, each at its own deadline; so it does not matter how ticks were placed. Of one instant the
levels come first and are decided together, so that it does not matter either what else, and whose,
is due then. Entries of the heap are hints: each is checked against the state when its time comes.
Source: budget model, "Time".
"""

import heapq

from schemas.events import LEDGER_SOURCE
from schemas.fields import TaskOutcome
from streams.budget.decide import settle
from streams.budget.evaluate import raise_level
from streams.budget.ladder import NEVER
from streams.budget.latency import (
    ABANDONED_DUE,
    LEVEL_DUE,
    REMOVAL_DUE,
    STUCK_DUE,
    WAKE_DUE,
    due_ms,
    levels_due,
    open_execution,
    schedule_latency,
    used_ms,
)
from streams.budget.lifecycle import end_task, forget
from streams.budget.limits import LATENCY
from streams.budget.records import Told, emit_lifecycle
from streams.budget.state import PartitionState, Task

Due = tuple[int, str, str, int]
# An open task has four deadlines: stuck, abandoned, and one for each of two latency cells.
DUE_OF_A_TASK = 5
STALE_MAX = 1_000


def advance(state: PartitionState, clock_ms: int) -> None:
    """Move the partition's clock forward, deciding on the way what became due."""
    tasks = state.tasks
    if len(state.due) > STALE_MAX + DUE_OF_A_TASK * len(tasks.awake) + 2 * len(tasks.asleep):
        _drop_stale(state)
    while state.due and state.due[0][0] <= clock_ms:
        # One verdict for all of an instant; not for all of a move of the clock, or decisions would
        # depend on when somebody else's event came.
        for due in _reach_levels(state, state.due[0][0]):
            task = _live_task(state, due)
            if task is not None:
                state.clock_ms = max(state.clock_ms, due[0])
                _decide(state, task, due)
    state.clock_ms = clock_ms
    state.next_due_ms = state.due[0][0] if state.due else NEVER


def next_deadline_ms(state: PartitionState) -> int | None:
    """Return when the clock must have moved for something to be decided, or None."""
    while state.due and not _is_live(state, state.due[0]):
        heapq.heappop(state.due)
    state.next_due_ms = state.due[0][0] if state.due else NEVER
    return state.due[0][0] if state.due else None


def schedule_all(state: PartitionState, task: Task) -> None:
    """Remember all that is due for a task that was built from what is stored."""
    for due in deadlines(task):
        state.schedule(*due)


def deadlines(task: Task) -> list[Due]:
    """Return all that time alone will decide about a task if nothing else does; at least one."""
    rules = task.policy.clock
    if task.ended_ms is not None:
        return [(task.ended_ms + rules.retention_ms, task.task_id, "", REMOVAL_DUE)]
    found = [(task.last_ms + rules.abandoned_after_ms, task.task_id, "", ABANDONED_DUE)]
    execution, name = open_execution(task), task.open_phase
    if execution is None or execution.opened_ms is None or name is None:
        return found
    if "stuck" not in task.flags:
        found.append((execution.opened_ms + rules.stuck_after_ms, task.task_id, name, STUCK_DUE))
    for phase, at_ms in levels_due(task, execution, name, task.seen_ms):
        found.append((at_ms, task.task_id, phase, LEVEL_DUE))
    return found


def first_deadline_ms(task: Task) -> int:
    """Return when time alone decides something about a task that was not touched since.

    It is the first of `deadlines`, without making them: every batch asks for all that it touched.
    """
    rules = task.policy.clock
    if task.ended_ms is not None:
        return task.ended_ms + rules.retention_ms
    first_ms = task.last_ms + rules.abandoned_after_ms
    execution, name = open_execution(task), task.open_phase
    if execution is None or execution.opened_ms is None or name is None:
        return first_ms
    if "stuck" not in task.flags:
        first_ms = min(first_ms, execution.opened_ms + rules.stuck_after_ms)
    for _, at_ms in levels_due(task, execution, name, task.seen_ms):
        first_ms = min(first_ms, at_ms)
    return first_ms


def lay_down(state: PartitionState, task_id: str, packed: bytes, due_ms: int) -> None:
    """Keep a task asleep until something asks for it, or its first deadline comes."""
    state.tasks.asleep[task_id] = packed
    if due_ms > state.clock_ms:  # else it waits for its children, and its last one removes it
        state.schedule(due_ms, task_id, kind=WAKE_DUE)


def _drop_stale(state: PartitionState) -> None:
    """Make the deadlines anew from the tasks: what ended early has left its entries behind."""
    wakes: dict[str, Due] = {}
    for due in sorted(state.due):
        if due[3] == WAKE_DUE and due[1] in state.tasks.asleep:
            wakes.setdefault(due[1], due)
    state.due = list(wakes.values())  # in order: a heap
    for task in state.tasks.awake.values():
        schedule_all(state, task)


def _is_live(state: PartitionState, due: Due) -> bool:
    if due[3] == WAKE_DUE:
        return due[1] in state.tasks.asleep
    return _live_task(state, due) is not None


def _live_task(state: PartitionState, due: Due) -> Task | None:
    """Return the task for which an entry still stands for something that is due then.

    Which stale entries the heap holds depends on when it was made; so they must have no effect.
    """
    at_ms, task_id, phase, kind = due
    task = state.tasks.awake.get(task_id)  # of one that is asleep only WAKE_DUE counts
    if task is None:
        return None
    if kind == LEVEL_DUE:
        is_live = _level_due_ms(task, phase) == at_ms
    elif kind == STUCK_DUE:
        is_live = _is_stuck(task, phase, at_ms)
    elif kind == REMOVAL_DUE:
        is_live = task.ended_ms is not None and task.task_id not in state.children
    else:
        abandoned_ms = task.last_ms + task.policy.clock.abandoned_after_ms
        is_live = abandoned_ms == at_ms and not task.is_ended
        if abandoned_ms > at_ms and not task.is_ended:
            state.schedule(abandoned_ms, task_id, kind=ABANDONED_DUE)
    return task if is_live else None


def _level_due_ms(task: Task, phase: str) -> int:
    execution = open_execution(task)
    if execution is None or phase not in ("", task.open_phase):
        return NEVER
    return due_ms(task, task.cell(phase or None, LATENCY), execution)


def _is_stuck(task: Task, phase: str, at_ms: int) -> bool:
    execution = open_execution(task)
    if execution is None or execution.opened_ms is None or task.open_phase != phase:
        return False
    stuck_ms = execution.opened_ms + task.policy.clock.stuck_after_ms
    return stuck_ms == at_ms and "stuck" not in task.flags


def _reach_levels(state: PartitionState, at_ms: int) -> list[Due]:
    """Decide on the levels that are due at an instant; return what else is due then, in order."""
    reached: dict[str, Task] = {}
    others: list[Due] = []
    while state.due and state.due[0][0] <= at_ms:
        due = heapq.heappop(state.due)
        if due[3] == WAKE_DUE:
            state.tasks.get(due[1])  # what is due then is in the heap when it is awake
        elif due[3] != LEVEL_DUE:
            others.append(due)
        elif (task := _live_task(state, due)) is not None:
            state.clock_ms = max(state.clock_ms, at_ms)
            _reach_level(state, task, due)
            reached[task.task_id] = task
    settle(state, *reached.values())
    return others


def _reach_level(state: PartitionState, task: Task, due: Due) -> None:
    """Raise a latency cell to what it has reached at its deadline; aim at the next one."""
    at_ms, _, phase, _ = due
    name = phase or None
    state.touch(task)
    cell = task.cell(name, LATENCY)
    raise_level(state, task, name, LATENCY, used_ms(task, name, cell, at_ms), is_firm=False)
    schedule_latency(state, task)


def _decide(state: PartitionState, task: Task, due: Due) -> None:
    at_ms, _, phase, kind = due
    if kind == REMOVAL_DUE:
        forget(state, task)
        return
    state.touch(task)
    if kind == STUCK_DUE:
        task.flag("stuck")
        emit_lifecycle(state, task, "stuck", Told(phase=phase))
    else:
        end_task(state, task, TaskOutcome.ABANDONED, LEDGER_SOURCE, at_ms)
