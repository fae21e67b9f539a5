"""A task's state, plainly: what the ledger makes once for many tasks, or has written out, made anew."""

from collections.abc import Iterator

import msgspec

from schemas.fields import Number, Scope
from schemas.state import CellState
from streams.budget.amounts import number
from streams.budget.clock import deadlines
from streams.budget.encode import ENCODER
from streams.budget.explain import counters_of
from streams.budget.ladder import CONTINUE, LEVELS
from streams.budget.latency import used_ms
from streams.budget.limits import COST, LATENCY, METRICS
from streams.budget.snapshot import task_state
from streams.budget.state import COUNTER_NAMES, Counters, Task


def plain_state(task: Task) -> bytes:
    """The state as one encoding of values, none of which are bytes already."""
    phases = task.phases.values()
    rolled = (
        task.tokens.used - sum(phase.tokens.used for phase in phases),
        task.cost.used - sum(phase.cost.used for phase in phases),
    )
    state = msgspec.structs.replace(
        task_state(task),
        cells=[*_touched(task), *_untouched(task)],
        rolled=rolled if any(rolled) else None,
        due_ms=min(due[0] for due in deadlines(task)),
    )
    for name, phase in task.phases.items():
        state.phases[name].counters = _named(counters_of(phase.executions))
    return ENCODER.encode(state)


def _touched(task: Task) -> Iterator[CellState]:
    for name, index, cell in task.cells():
        if cell.line is None:
            continue
        used, metric = cell.used, METRICS[index]
        if index == LATENCY:
            used = used_ms(task, name, cell, task.seen_ms)
        yield CellState(
            Scope.TASK if name is None else Scope.PHASE,
            metric,
            number(used, metric),
            number(cell.line.limit, metric),
            LEVELS[cell.level],
            name,
            None if index != LATENCY or cell.firm == cell.level else LEVELS[cell.firm],
        )


def _untouched(task: Task) -> Iterator[CellState]:
    for name in task.limits.planned:
        if name in task.phases:
            continue
        for metric, line in zip(METRICS, task.limits.phases[name], strict=True):
            if line is not None:
                limit = number(line.limit, metric)
                yield CellState(Scope.PHASE, metric, 0, limit, LEVELS[CONTINUE], name)


def _named(counters: Counters) -> dict[str, Number]:
    """By name, as the ledger has them written out."""
    found: dict[str, Number] = {}
    for name in COUNTER_NAMES:
        if amount := getattr(counters, name):
            found[name] = number(amount, METRICS[COST]) if name == "cost_usd" else amount
    return found
