"""Why a cell was crossed, and the figures that say so: the budget model's "Breach explanations".

The model gives each cause a sign, and no order among them: of those whose sign holds, any may be named.
"""

from dataclasses import dataclass
from fractions import Fraction

from streams.verify.independent.limits import SCALE, CellKey, as_number, counters_as_numbers
from streams.verify.independent.task import Task
from streams.verify.independent.values import OneOf
from streams.verify.independent.wire import Data

WARN = 2


@dataclass(frozen=True)
class Spent:
    """What the runs of a cell have used; `repeated` of it in attempt 2 and later. In milli-tokens."""

    counters: dict[str, int]
    attempts: int
    metered: int
    repeated: int


def spent(task: Task, phase: str | None) -> Spent:
    """Return what the runs of a phase have used, or all of a task's."""
    runs = list(task.runs() if phase is None else task.phases.get(phase, {}).values())
    counters: dict[str, int] = {}
    for run in runs:
        for name, count in run.counters.items():
            counters[name] = counters.get(name, 0) + count
    return Spent(
        counters,
        max((run.attempt for run in runs), default=0),
        sum(run.metered for run in runs),
        sum(run.metered for run in runs if run.attempt > 1),
    )


def evidence(task: Task, key: CellKey) -> Data:
    """Return the figures that stand with a breach of level warn or more."""
    used = spent(task, key[0])
    figures: Data = counters_as_numbers(used.counters)
    figures["metered_tokens"] = as_number(used.metered, "tokens")
    figures["attempts"] = used.attempts
    if used.repeated:
        figures["repeated_tokens"] = as_number(used.repeated, "tokens")
    if key in task.replaced:
        figures["computed_limit"] = as_number(task.replaced[key], key[1], is_limit=True)
    return figures


def causes(task: Task, key: CellKey) -> OneOf:
    """Return the causes whose sign holds."""
    used, policy = spent(task, key[0]), task.policy
    count = used.counters.get
    missing = count("unknown_usage", 0) + count("estimated_usage", 0)
    tokens = task.cells.get((key[0], "tokens"))
    output = Fraction(count("output_tokens", 0) * SCALE["tokens"])
    signs = {
        "override_too_low": key in task.replaced and task.cells[key].limit < task.replaced[key],
        "missing_usage": missing > 0 and missing >= policy.missing_share * count("model_calls", 0),
        "slow_model": key[1] == "latency_ms"
        and (tokens is None or tokens.used < tokens.limit * SCALE["tokens"]),
        "backtracking": used.metered > 0
        and used.repeated >= policy.backtracking_share * used.metered,
        "inefficient": used.metered > 0
        and output <= policy.inefficient_output_share * used.metered,
        "extensive_research": count("files_read", 0) >= policy.research_files_read,
        "iteration": count("model_calls", 0) >= policy.iteration_model_calls,
    }
    return OneOf(tuple(name for name, holds in signs.items() if holds) or ("unclassified",))
