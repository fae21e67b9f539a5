"""Tasks as a gate finds them, each in one call."""

from collections.abc import Sequence

from schemas.fields import Cause, Complexity, Importance, Metric, Verdict
from streams.insight.gate import Ended, Judged, JudgedTasks, Stop, WouldBe, judged
from streams.insight.history import Run, TaskHistory
from streams.insight.savings import SHARES

LIMIT = 10_000_000  # milli-tokens: 10,000 tokens


def history(
    task_id: str = "T",
    *,
    success: bool | None = None,
    finished: bool | None = None,
    task_type: str | None = "codex",
    importance: Importance = Importance.MEDIUM,
    complexity: Complexity = Complexity.MEDIUM,
    phases: Sequence[str] = ("THINK",),
    unknown_share: float = 0.0,
    parent_id: str | None = None,
    known: Sequence[Metric] | None = None,
) -> TaskHistory:
    """Return a task that has ended."""
    return TaskHistory(
        task_id=task_id,
        group=task_id,
        task_type=task_type,
        complexity=complexity,
        importance=importance,
        runs=tuple(Run(phase=name, attempt=1, amounts={}, cause=None) for name in phases),
        used=dict.fromkeys(Metric, 0) if known is None else dict.fromkeys(known, 0),
        unknown_share=unknown_share,
        success=success,
        finished=finished,
        started_ms=None,
        duration_ms=None,
        parent_id=parent_id,
    )


def amounts(tokens: int) -> dict[Metric, int]:
    """Return milli-tokens, and time and money in proportion: a second and a cent per 1,000 tokens."""
    return {
        Metric.TOKENS: tokens,
        Metric.LATENCY_MS: tokens // 1_000,
        Metric.COST_USD: tokens * 10,
    }


def stop(
    at: int, used: int | None = None, *, phase: str | None = "THINK", cause: Cause = Cause.ITERATION
) -> Stop:
    """Return a stop by the task's tokens; by the end of the event, `used` of them."""
    return Stop(
        used=amounts(at if used is None else used),
        metric=Metric.TOKENS,
        at=at,
        limit=LIMIT,
        phase=phase,
        cause=cause,
    )


def would_be(
    task_id: str = "T", used: int = LIMIT, *, block: Stop | None = None, reports: int = 40
) -> WouldBe:
    """Return what would be said of a task with `LIMIT`; its stops are where its use says."""
    stops = {
        share: stop(share * LIMIT // 10_000) for share in SHARES if used >= share * LIMIT // 10_000
    }
    return WouldBe(
        task_id=task_id,
        peak=Verdict.CONTINUE if block is None else Verdict.BLOCK,
        limit={Metric.TOKENS: LIMIT},
        used=amounts(used),
        reports=reports,
        block=block,
        stops=stops,
    )


def a_task(
    number: int, ended: Ended, *, blocked: bool, used: int = 3 * LIMIT, task_type: str = "codex"
) -> Judged:
    """Return a judged task, blocked at twice its limit or not at all."""
    task_id = f"T-{number}"
    block = stop(2 * LIMIT) if blocked else None
    return Judged(
        history(task_id, task_type=task_type), ended, would_be(task_id, used, block=block)
    )


def tasks(**counts: int) -> JudgedTasks:
    """Return so many tasks of each kind: `right`, `right_blocked`, `failed_blocked` and so on."""
    found: list[Judged] = []
    for name, count in counts.items():
        ended, _, blocked = name.partition("_")
        for _ in range(count):
            found.append(a_task(len(found), Ended(ended), blocked=bool(blocked)))
    return JudgedTasks(found)


def one(task: TaskHistory, said: WouldBe, *, answer: bool | None = None) -> Judged:
    """Return the one task that is judged."""
    answers = None if answer is None else {task.task_id: answer}
    (found,) = judged([task], {said.task_id: said}, answers).tasks
    return found
