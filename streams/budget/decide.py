"""A task's verdict is its highest level; a decision says that it changed, and whether it holds.

A task at block takes its open descendants with it. Source: budget model, "Modes", "Children" and
"Why a decision is not enforced".
"""

from collections.abc import Iterator

from schemas.fields import Importance, Mode, UnenforcedReason
from schemas.outputs import Decision
from schemas.topics import Topic
from streams.budget.amounts import number, ratio
from streams.budget.explain import cause, cell_ref, message, spent
from streams.budget.ladder import BLOCK, LEVELS, REVIEW, WARN
from streams.budget.latency import used_ms
from streams.budget.limits import LATENCY, METRICS
from streams.budget.state import BREAKER, PartitionState, Task

HELD_IN_PARTIAL = frozenset({Importance.LOW, Importance.MEDIUM})


def settle(state: PartitionState, *tasks: Task) -> None:
    """Publish a decision for each task whose verdict changed; then those of their descendants.

    Tasks of one family that one event has changed are settled together: a child that crosses a
    level while its parent comes to block is told one verdict.
    """
    turned = []
    for task in tasks:
        own = task.level
        if (own == BLOCK) != (task.own == BLOCK):
            turned.append(task)
        task.own = own
    for task in tasks:
        _settle_one(state, task)
    for task in turned:
        settle_below(state, task)


def settle_below(state: PartitionState, task: Task) -> None:
    """Publish a decision for each open descendant that inherits, or no longer inherits, a block."""
    for descendant in open_descendants(state, task):
        _settle_one(state, descendant)


def redecide(state: PartitionState, task: Task) -> None:
    """Publish the standing verdict again: who is held has changed."""
    if task.verdict >= REVIEW:
        _emit(state, task, task.verdict)


def open_descendants(state: PartitionState, task: Task) -> Iterator[Task]:
    """Yield the open tasks below a task, in order of their ids."""
    for child_id in sorted(state.descendants(task.task_id)):
        child = state.tasks[child_id]
        if not child.is_ended:
            yield child


def unenforced_reason(
    mode: Mode, mode_by: str, importance: Importance, *, is_ended: bool
) -> UnenforcedReason | None:
    """Return why a task's decisions hold nobody, or None where they hold."""
    if is_ended:
        return UnenforcedReason.ENDED
    if mode is Mode.ENFORCE or (mode is Mode.PARTIAL and importance in HELD_IN_PARTIAL):
        return None
    if mode_by == BREAKER:
        return UnenforcedReason.BREAKER
    return UnenforcedReason(mode.value)


def _settle_one(state: PartitionState, task: Task) -> None:
    if not task.is_ended:  # what an ended task inherited stays as it was at its end
        blocked_above = next((one for one in state.ancestors(task) if one.own == BLOCK), None)
        above_id = None if blocked_above is None else blocked_above.task_id
        if above_id != task.inherited_from:
            state.touch(task)
            task.inherited_from = above_id
    standing = BLOCK if task.inherited_from is not None else task.own
    if standing != task.verdict:
        previous, task.verdict = task.verdict, standing
        _emit(state, task, previous)


def _emit(state: PartitionState, task: Task, previous: int) -> None:
    state.touch(task)
    task.decisions += 1
    inherits = task.own < BLOCK and task.inherited_from is not None
    judged = state.tasks[task.inherited_from] if inherits and task.inherited_from else task
    name, index = _deciding_cell(judged, BLOCK if inherits else task.verdict, state.clock_ms)
    cell = judged.cell(name, index)
    reason = unenforced_reason(state.mode, state.mode_by, task.importance, is_ended=task.is_ended)
    used = used_ms(judged, name, cell, state.clock_ms) if index == LATENCY else cell.used
    line = cell.line
    assert line is not None
    text = message(name, index, used, line.limit, task.verdict)
    state.emit(
        Topic.DECISIONS,
        "stoploss.decision",
        task.task_id,
        Decision(
            task_id=task.task_id,
            number=task.decisions,
            verdict=LEVELS[task.verdict],
            previous=LEVELS[previous],
            enforced=reason is None,
            unenforced_reason=reason,
            inherited_from=judged.task_id if inherits else None,
            cell=cell_ref(name, index),
            used=number(used, METRICS[index]),
            limit=number(line.limit, METRICS[index]),
            ratio=ratio(used, line.limit),
            message=f"{judged.task_id}, above this task: {text}" if inherits else text,
            cause=None if task.verdict < WARN else cause(judged, name, index, spent(judged, name)),
            mode=state.mode,
            policy=task.policy_ref(),
            limits_version=task.limits_version,
            input=state.input_ref(),
            event_id=state.event_id,
        ),
    )


def _deciding_cell(task: Task, level: int, at_ms: int) -> tuple[str | None, int]:
    """Of the cells that stand at the verdict, the one furthest over its limit; first wins ties.

    Every task has limits of tokens, so that there is always one.
    """
    best: tuple[str | None, int] = (None, 0)
    best_used, best_limit = -1, 1
    for name, index, cell in task.cells():
        if cell.line is None or cell.level < level:
            continue
        used = used_ms(task, name, cell, at_ms) if index == LATENCY else cell.used
        if used * best_limit > best_used * cell.line.limit:
            best, best_used, best_limit = (name, index), used, cell.line.limit
    return best
