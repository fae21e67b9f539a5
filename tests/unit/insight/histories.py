"""Histories made by hand: what tests of calibration, gates and runaways begin with."""

from schemas.fields import Cause, Complexity, Importance, Metric
from streams.insight.baselines import UNITS
from streams.insight.history import Run, TaskHistory

Amounts = dict[str, float]  # by phase, in the metric's unit


def a_run(phase: str, cause: Cause | None = None, attempt: int = 1, **amounts: float) -> Run:
    return Run(
        phase=phase,
        attempt=attempt,
        amounts={
            Metric(name): round(value * UNITS[Metric(name)]) for name, value in amounts.items()
        },
        cause=cause,
    )


def a_task(
    task_id: str,
    *runs: Run,
    task_type: str | None = "agent",
    complexity: Complexity = Complexity.MEDIUM,
    importance: Importance = Importance.MEDIUM,
    used: dict[Metric, int] | None = None,
    parent_id: str | None = None,
    planned: tuple[str, ...] = (),
    unknown_share: float = 0.0,
) -> TaskHistory:
    """A task that used what its runs did, where nothing else is said."""
    if used is None:
        metrics = {metric for run in runs for metric in run.amounts}
        used = {
            metric: sum(run.amounts[metric] for run in runs)
            for metric in metrics
            if all(metric in run.amounts for run in runs)
        }
    return TaskHistory(
        task_id=task_id,
        group=parent_id or task_id,
        task_type=task_type,
        complexity=complexity,
        importance=importance,
        runs=runs,
        used=used,
        unknown_share=unknown_share,
        success=None,
        finished=None,
        started_ms=None,
        duration_ms=None,
        planned=planned,
        parent_id=parent_id,
    )


def tokens_of(*amounts: float, phase: str = "THINK", **task: object) -> list[TaskHistory]:
    """Tasks that used so many tokens in one phase."""
    return [
        a_task(f"T-{number}", a_run(phase, tokens=amount), **task)  # type: ignore[arg-type]
        for number, amount in enumerate(amounts)
    ]
