"""What must stand in the state of a task."""

from collections.abc import Iterator
from typing import Any

from streams.verify.independent.limits import LEVELS, as_number, counters_as_numbers
from streams.verify.independent.task import Task
from streams.verify.independent.values import InAnyOrder
from streams.verify.independent.wire import Data

Field = tuple[str, Any, Any]  # its name, what is expected, what is there


def task_fields(task: Task, data: Data, clock_ms: int) -> list[Field]:
    """Return the fields of a task's state that the contract fixes, each with what is there."""
    dedupe = data.get("dedupe", {})
    wanted: list[Field] = [
        ("status", "open" if task.is_open else "ended", data.get("status")),
        ("verdict", LEVELS[task.verdict], data.get("verdict")),
        ("limits_version", task.limits_version, data.get("limits_version")),
        ("decisions", task.decisions, data.get("decisions", 0)),
        ("parent_task_id", task.parent, data.get("parent_task_id")),
        ("complexity", task.complexity, data.get("complexity", "medium")),
        ("importance", task.importance, data.get("importance", "medium")),
        ("owner", task.owner, data.get("owner")),
        ("team", task.team, data.get("team")),
        ("task_type", task.task_type, data.get("task_type")),
        ("flags", InAnyOrder(task.flags), data.get("flags", [])),
        ("dedupe.sequences", task.sequences, dedupe.get("sequences", {})),
        ("dedupe.recent", len(task.recent), len(dedupe.get("recent", []))),
    ]
    if task.policy.hash:
        wanted.append(("policy.hash", task.policy.hash, data.get("policy", {}).get("hash")))
    wanted += _of_cells(task, data, clock_ms)
    wanted += _of_phases(task, data)
    return wanted


def _of_cells(task: Task, data: Data, clock_ms: int) -> Iterator[Field]:
    cells = {
        (cell.get("phase"), cell.get("metric")): cell
        for cell in data.get("cells", [])
        if isinstance(cell, dict)
    }
    names = {key: f"cells {key[0] or 'task'} {key[1]}" for key in task.cells}
    unknown = [
        f"{phase or 'task'} {metric}"
        for phase, metric in cells
        if (phase, metric) not in task.cells
    ]
    yield "cells", [], unknown
    for key, cell in task.cells.items():
        if key not in cells and not cell.level and not task.used(key, clock_ms):
            continue  # of a phase that is not planned, which need not stand there
        there, metric = cells.get(key, {}), key[1]
        name = names[key]
        yield f"{name} limit", as_number(cell.limit, metric, is_limit=True), there.get("limit")
        yield f"{name} level", LEVELS[cell.level], there.get("level")
        used = task.used(key, clock_ms)
        run = task.open_run
        is_growing = run is not None and run.estimates() and metric == "latency_ms"
        if is_growing and key[0] in {None, task.open_phase}:
            # As of when it was written: it grows with the clock, without a record.
            most = used + task.policy.execution_max_ms
            yield f"{name} used", True, 0 <= there.get("used", -1) <= most
        else:
            yield f"{name} used", as_number(used, metric), there.get("used")


def _of_phases(task: Task, data: Data) -> Iterator[Field]:
    phases = data.get("phases", {})
    yield "phases", sorted(task.phases), sorted(phases)
    for phase, runs in task.phases.items():
        there = phases.get(phase, {})
        summed: dict[str, int] = {}
        for run in runs.values():
            for name, count in run.counters.items():
                summed[name] = summed.get(name, 0) + count
        yield f"phases {phase} attempts", max(runs), there.get("attempts")
        counters = {name: one for name, one in there.get("counters", {}).items() if one}
        yield f"phases {phase} counters", counters_as_numbers(summed), counters
