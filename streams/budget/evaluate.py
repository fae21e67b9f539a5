"""A cell's level follows what was used: every crossing is a breach, once.

Levels only rise while the limits stay, but for latency levels that rest on an estimate: a measured
duration that stays below withdraws them. Source: budget model, "Ladders" and "Latency".
"""

from schemas.fields import ExecutionOutcome
from schemas.outputs import Breach
from schemas.topics import Topic
from streams.budget.amounts import number, ratio
from streams.budget.explain import cause, cell_ref, evidence, spent
from streams.budget.ladder import (
    BLOCK,
    LEVELS,
    NEVER,
    WARN,
    Thresholds,
    crossed,
    level_at,
)
from streams.budget.latency import used_ms
from streams.budget.limits import COST, LATENCY, METRICS, TOKENS
from streams.budget.state import Block, Cell, PartitionState, Task


def is_almost_done(task: Task) -> bool:
    """Tell whether every planned phase but the closing ones stands as completed."""
    closing = task.policy.closing_phases
    for name in task.limits.planned:
        if name in closing:
            continue
        phase = task.phases.get(name)
        if phase is None or phase.newest.outcome is not ExecutionOutcome.COMPLETED:
            return False
    return True


def thresholds(task: Task, name: str | None, index: int, cell: Cell) -> Thresholds:
    """Return where a cell's levels begin now; an almost finished task is blocked later."""
    assert cell.line is not None
    at = cell.line.at
    if name is not None or index == LATENCY or at[BLOCK - 1] == NEVER or not is_almost_done(task):
        return at
    closing = [
        line.limit
        for phase in task.limits.planned
        if phase in task.policy.closing_phases
        and (line := task.limits.phases[phase][index]) is not None
    ]
    return (at[0], at[1], at[2], at[3] + sum(closing))


def raise_level(
    state: PartitionState,
    task: Task,
    name: str | None,
    index: int,
    used: int,
    *,
    is_firm: bool = True,
) -> None:
    """Publish a breach for each level that `used` has newly reached, lowest first."""
    cell = task.cell(name, index)
    if cell.line is None:
        return
    if used >= cell.next_at:
        for level in crossed(thresholds(task, name, index, cell), used, standing=cell.level):
            _emit_breach(state, task, name, index, cell, used=used, level=level)
            cell.level = level
            if level == BLOCK:
                task.blocks = (*task.blocks, Block(name, index, used))
        cell.aim()
    if is_firm:
        confirm(cell)


def confirm(cell: Cell) -> None:
    """Note that what ended runs have used is measured: the levels it reaches stay."""
    assert cell.line is not None
    cell.firm = max(cell.firm, min(cell.level, level_at(cell.line.at, cell.used)))


def withdraw(state: PartitionState, task: Task, name: str | None, used: int) -> None:
    """Take back the latency levels that only an estimate has reached, highest first.

    Args:
        used: with the estimate of a run that is open now; what rests on that one stays.
    """
    cell = task.cell(name, LATENCY)
    assert cell.line is not None
    target = max(cell.firm, min(cell.level, level_at(cell.line.at, used)))
    for level in range(cell.level, target, -1):
        if cell.line.at[level - 1] != NEVER:
            _emit_breach(state, task, name, LATENCY, cell, used=used, level=level, withdrawn=True)
    cell.level = target
    cell.aim()
    confirm(cell)
    keep_standing(task)


def relevel(state: PartitionState, task: Task) -> None:
    """Judge every cell anew after its limits changed: levels may fall, new ones are published."""
    for name, index, cell in list(task.cells()):
        if cell.line is None:
            cell.level = 0
            cell.aim()
            continue
        used = used_ms(task, name, cell, state.clock_ms) if index == LATENCY else cell.used
        level = level_at(thresholds(task, name, index, cell), used)
        cell.level = min(cell.level, level)
        cell.aim()
        raise_level(state, task, name, index, used, is_firm=False)
        cell.firm = min(cell.firm, cell.level) if index == LATENCY else cell.level
    keep_standing(task)


def keep_standing(task: Task) -> None:
    """Forget the blocks whose cells have fallen; an overshoot is then that of the next one."""
    if task.blocks:
        task.blocks = tuple(
            block for block in task.blocks if task.cell(block.phase, block.metric).level == BLOCK
        )


def judge_task_cells(state: PartitionState, task: Task) -> None:
    """Judge the task's tokens and cost again: whether it is almost done may have changed."""
    for index in (TOKENS, COST):
        raise_level(state, task, None, index, task.cell(None, index).used)


def _emit_breach(
    state: PartitionState,
    task: Task,
    name: str | None,
    index: int,
    cell: Cell,
    *,
    used: int,
    level: int,
    withdrawn: bool = False,
) -> None:
    assert cell.line is not None
    metric = METRICS[index]
    used_up = spent(task, name) if level >= WARN else None
    state.emit(
        Topic.BREACHES,
        "stoploss.breach",
        task.task_id,
        Breach(
            task_id=task.task_id,
            cell=cell_ref(name, index),
            used=number(used, metric),
            limit=number(cell.line.limit, metric),
            ratio=ratio(used, cell.line.limit),
            limits_version=task.limits_version,
            level=LEVELS[level],
            withdrawn=withdrawn,
            cause=None if used_up is None else cause(task, name, index, used_up),
            evidence={} if used_up is None else evidence(task, name, index, used_up),
            input=state.input_ref(),
        ),
    )
