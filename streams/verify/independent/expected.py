"""What must stand in a record: the facts that the contract fixes, of each kind of record.

What it leaves to the ledger is not judged: causes and their evidence, messages, flags, overshoot.
"""

import base64
from dataclasses import dataclass
from decimal import Decimal

from streams.verify.independent.limits import CellKey, as_number
from streams.verify.independent.task import Run, Task, level_name
from streams.verify.independent.wire import METRICS, Data


@dataclass(slots=True)
class Expected:
    """A record that an input must have caused: what must stand in its data.

    `cells` are those of a decision's task as they stood, since the contract does not say which of
    several at the same level a decision names. `is_deletion`: a record without a value.
    """

    topic: str
    key: str | None
    facts: Data
    cells: dict[CellKey, tuple[int, int, int]] | None = None  # used, limit, level
    is_deletion: bool = False


def decision(task: Task, previous: int, source: Task, at_ms: int, about: Data) -> Expected:
    """Return a task's decision; `source` is whose cells it is about, `about` what else it says."""
    return Expected(
        "decisions",
        task.id,
        {
            "task_id": task.id,
            "number": task.decisions,
            "verdict": level_name(task.verdict),
            "previous": level_name(previous),
            "enforced": about["unenforced_reason"] is None,
            "inherited_from": None,
            "limits_version": task.limits_version,
            **about,
            **_policy_of(task),
        },
        {
            key: (source.used(key, at_ms), cell.limit, cell.level)
            for key, cell in source.cells.items()
        },
    )


def breach(task: Task, key: CellKey, used: int, level: int, *, is_withdrawn: bool) -> Expected:
    """Return that a cell has reached a level, or that the level is withdrawn."""
    phase, metric = key
    cell = {"scope": "task" if phase is None else "phase", "metric": metric}
    limit = task.cells[key].limit
    return Expected(
        "breaches",
        task.id,
        {
            "task_id": task.id,
            "cell": cell if phase is None else cell | {"phase": phase},
            "level": level_name(level),
            "withdrawn": is_withdrawn,
            "used": as_number(used, metric),
            "limit": as_number(limit, metric, is_limit=True),
            "ratio": ratio(used, limit, metric),
            "limits_version": task.limits_version,
        },
    )


def execution(task: Task, phase: str, run: Run, at_ms: int) -> Expected:
    """Return a run as it is published."""
    return Expected(
        "executions",
        task.id,
        {
            "task_id": task.id,
            "phase": phase,
            "attempt": run.attempt,
            "revision": run.revision,
            "outcome": run.outcome,
            "latency_ms": Decimal(run.latency_ms(at_ms, task.policy.execution_max_ms)),
            "metered_tokens": as_number(run.metered, "tokens"),
            "counters": counters_as_numbers(run.counters),
            "limits": {
                metric: as_number(task.cells[phase, metric].limit, metric, is_limit=True)
                for metric in METRICS
                if (phase, metric) in task.cells
            },
            "complexity": task.complexity,
            "importance": task.importance,
            "task_type": task.task_type,
        },
    )


def lifecycle(task: Task, change: str, facts: Data) -> Expected:
    """Return that a task has changed; `facts` are those of this change alone."""
    return Expected(
        "lifecycle",
        task.id,
        {
            "task_id": task.id,
            "change": change,
            "complexity": task.complexity,
            "importance": task.importance,
            "budgeted_importance": task.budgeted_importance(),
            "limits_version": task.limits_version,
            "limits": limits_as_numbers(task),
            **_policy_of(task),
            **facts,
        },
    )


def letter(value: bytes | None) -> Expected:
    """Return the dead letter of a record; why it was refused is not judged. Its key is set later."""
    return Expected("dead-letters", None, {"original": base64.b64encode(value or b"").decode()})


def _policy_of(task: Task) -> Data:
    """Return how a task's policy is named; nothing where none was set yet."""
    policy = task.policy
    return {"policy": {"version": policy.version, "hash": policy.hash}} if policy.hash else {}


def ratio(used: int, limit: int, metric: str) -> Decimal | None:
    """Return used / limit with 4 decimals, rounded down."""
    scale = 1000 if metric == "tokens" else 1
    return None if limit == 0 else Decimal(used * 10_000 // (limit * scale)).scaleb(-4)


def counters_as_numbers(counters: dict[str, int]) -> dict[str, Decimal]:
    """Return counters that are not 0, in their units."""
    return {
        name: Decimal(count).scaleb(-9) if name == "cost_usd" else Decimal(count)
        for name, count in counters.items()
        if count
    }


def limits_as_numbers(task: Task) -> dict[str, dict[str, Decimal]]:
    """Return limits by phase or "task", then metric, in the metric's unit."""
    limits: dict[str, dict[str, Decimal]] = {}
    for (phase, metric), cell in task.cells.items():
        name = "task" if phase is None else phase
        limits.setdefault(name, {})[metric] = as_number(cell.limit, metric, is_limit=True)
    return limits
