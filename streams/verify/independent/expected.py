"""What must stand in a record: the facts that the contract fixes, of each kind of record.

What it leaves to the ledger is not judged: messages, and which of several cells a decision names.
"""

import base64
from dataclasses import dataclass
from decimal import Decimal

from streams.verify.independent.causes import WARN, causes, evidence
from streams.verify.independent.limits import CellKey, as_number, counters_as_numbers
from streams.verify.independent.task import Run, Task, level_name
from streams.verify.independent.times import rfc3339
from streams.verify.independent.values import AtLeast, InAnyOrder
from streams.verify.independent.wire import METRICS, Data

# What a change says of itself, beside what a task is.
SAID = ("by", "reason", "text", "phase", "approved", "action", "outcome", "previous", "overshoot")


@dataclass(slots=True)
class Expected:
    """A record that an input must have caused: what must stand in its data.

    `cells` are those of a decision's task that are at its level, as they stood, since the contract
    does not say which of several it names; of one that says to go on, all. `is_deletion`: a record without a value.
    """

    topic: str
    key: str | None
    facts: Data
    cells: dict[CellKey, Data] | None = None
    is_deletion: bool = False


def decision(task: Task, previous: int, source: Task, at_ms: int, about: Data) -> Expected:
    """Return a task's decision; `source` is whose cells it is about, `about` what else it says."""
    level = task.verdict
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
            key: _standing(source, key, at_ms, level)
            for key, cell in source.cells.items()
            if cell.level == level or not level
        },
    )


def _standing(task: Task, key: CellKey, at_ms: int, level: int) -> Data:
    used, limit, metric = task.used(key, at_ms), task.cells[key].limit, key[1]
    return {
        "used": as_number(used, metric),
        "limit": as_number(limit, metric, is_limit=True),
        "ratio": ratio(used, limit, metric),
        "cause": causes(task, key) if level >= WARN else None,
    }


def breach(task: Task, key: CellKey, used: int, level: int, *, is_withdrawn: bool) -> Expected:
    """Return that a cell has reached a level, or that the level is withdrawn."""
    metric = key[1]
    limit = task.cells[key].limit
    is_explained = level >= WARN
    return Expected(
        "breaches",
        task.id,
        {
            "task_id": task.id,
            "cell": cell_of(key),
            "level": level_name(level),
            "withdrawn": is_withdrawn,
            "used": as_number(used, metric),
            "limit": as_number(limit, metric, is_limit=True),
            "ratio": ratio(used, limit, metric),
            "limits_version": task.limits_version,
            "cause": causes(task, key) if is_explained else None,
            "evidence": evidence(task, key) if is_explained else {},
        },
    )


def cell_of(key: CellKey) -> Data:
    """Return how a cell is named."""
    phase, metric = key
    if phase is None:
        return {"scope": "task", "metric": metric}
    return {"scope": "phase", "metric": metric, "phase": phase}


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
            "started": None if run.started_ms is None else rfc3339(run.started_ms),
            "ended": None if run.ended_ms is None else rfc3339(run.ended_ms),
            "complexity": task.complexity,
            "importance": task.importance,
            "owner": task.owner,
            "team": task.team,
            "task_type": task.task_type,
            "flags": _flags_of(run),
        },
    )


def _flags_of(run: Run) -> InAnyOrder:
    flags = {
        "inferred": run.opened_ms is None,
        "historical": run.is_historical,
        "clock_skew": run.is_skewed,
        "unknown_usage": run.counters.get("unknown_usage", 0) > 0,
        "estimated_usage": run.counters.get("estimated_usage", 0) > 0,
    }
    # Whether a sound end makes up for a report of usage that took an impossible time is not said.
    may = frozenset({"clock_skew"} if run.has_skewed_usage else ())
    return InAnyOrder({name for name, holds in flags.items() if holds}, may)


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
            "justification": task.justification if task.has_justification() else None,
            "parent_task_id": task.parent,
            "planned_phases": list(task.planned_phases()),
            "owner": task.owner,
            "team": task.team,
            "task_type": task.task_type,
            "labels": task.labels,
            "flags": InAnyOrder(set(task.flags)),
            **dict.fromkeys(SAID),
            **_policy_of(task),
            **facts,
        },
    )


def letter(value: bytes | None, partition: int, offset: int) -> Expected:
    """Return the dead letter of a record; why it was refused is not judged. Its key is set later."""
    return Expected(
        "dead-letters",
        None,
        {
            "original": base64.b64encode(value or b"").decode(),
            "input": AtLeast({"partition": partition, "offset": offset}),
        },
    )


def _policy_of(task: Task) -> Data:
    """Return how a task's policy is named; nothing where none was set yet."""
    policy = task.policy
    return {"policy": {"version": policy.version, "hash": policy.hash}} if policy.hash else {}


def ratio(used: int, limit: int, metric: str) -> Decimal | None:
    """Return used / limit with 4 decimals, rounded down."""
    scale = 1000 if metric == "tokens" else 1
    return None if limit == 0 else Decimal(used * 10_000 // (limit * scale)).scaleb(-4)


def limits_as_numbers(task: Task) -> dict[str, dict[str, Decimal]]:
    """Return limits by phase or "task", then metric, in the metric's unit."""
    limits: dict[str, dict[str, Decimal]] = {}
    for (phase, metric), cell in task.cells.items():
        name = "task" if phase is None else phase
        limits.setdefault(name, {})[metric] = as_number(cell.limit, metric, is_limit=True)
    return limits
