"""What policies would have said of each task of a log, from the fold, beside how the task ended.

The log is read once: each policy has a replay of its own, and looks on while it is folded.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from schemas.decode import Refusal
from schemas.events import Event, PhaseEnded, PhaseStarted, PhaseUsage
from schemas.fields import Metric, Mode
from schemas.outputs import ExecutionRecord, Lifecycle
from streams.budget.effects import Effect
from streams.budget.evaluate import thresholds
from streams.budget.explain import cause, spent
from streams.budget.ladder import BLOCK, LEVELS, line
from streams.budget.limits import COST, LATENCY, METRICS, TOKENS
from streams.budget.policy import Policy
from streams.budget.state import Cell, PartitionState, Task
from streams.insight.gate import Stop, WouldBe
from streams.insight.history import Histories, TaskHistory
from streams.insight.savings import SHARES
from streams.replay.family import used_by
from streams.replay.offline import Replay
from streams.replay.result import ReplaySummary

BLOCKING = (TOKENS, COST)  # a task's time blocks nobody


class Judgement(Struct, frozen=True):
    """What one policy would have said: sums, and each task by its id."""

    summary: ReplaySummary
    would_be: dict[str, WouldBe]


class LogJudged(Struct, frozen=True):
    """The tasks of a log that have ended, and what each of the policies would have said of them."""

    tasks: list[TaskHistory]
    judgements: list[Judgement]


def judge(
    events: Iterable[Event | Refusal], policies: Sequence[Policy], shares: Sequence[int] = SHARES
) -> LogJudged:
    """Return what each policy would have said of the tasks of a log.

    Args:
        events: in the order of their log.
        policies: at least one; by the first one's weights the history's tokens are metered.
        shares: of the limit, in ten-thousandths and rising: where else a block is tried.
    """
    histories = Histories(policies[0].explanations)

    def tell(effect: Effect, clock_ms: int) -> None:
        match effect.data:
            case ExecutionRecord() as record:
                histories.tell_execution(record)
            case Lifecycle() as record:
                histories.tell_lifecycle(record, clock_ms)
            case _:
                pass

    watches = [_Watch(shares) for _ in policies]
    replays = [
        Replay(policy, Mode.OBSERVE, None if number else tell, watch.look)
        for number, (policy, watch) in enumerate(zip(policies, watches, strict=True))
    ]
    for event in events:
        for replay in replays:
            replay.take(event)
    judgements = [
        Judgement(replay.result().summary, watch.would_be())
        for replay, watch in zip(replays, watches, strict=True)
    ]
    return LogJudged(histories.tasks(), judgements)


class _Seen(Struct):
    """What was seen of a task so far; `tried` are the next shares of tokens and of cost.

    `before` is what it had used when its family was put away: opened anew, it counts from nothing.
    """

    offset: int = -1
    before: dict[Metric, int] = {}
    peak: int = 0
    limit: dict[Metric, int] = {}
    used: dict[Metric, int] = {}
    reports: int = 0
    block: Stop | None = None
    stops: dict[int, Stop] = {}
    tried: dict[int, int] = {}


class _Watch:
    """Notes where each task would have been stopped."""

    def __init__(self, shares: Sequence[int]) -> None:
        self._shares = shares
        self._seen: dict[str, _Seen] = {}

    def would_be(self) -> dict[str, WouldBe]:
        """Return what was seen of each task."""
        return {
            task_id: WouldBe(
                task_id=task_id,
                peak=LEVELS[seen.peak],
                limit=seen.limit,
                used=seen.used,
                reports=seen.reports,
                block=seen.block,
                stops=seen.stops,
            )
            for task_id, seen in self._seen.items()
        }

    def look(self, state: PartitionState, event: Event | Refusal) -> None:
        """Look at the tasks that an event has changed."""
        is_usage = isinstance(event, PhaseUsage)
        phase = None
        if isinstance(event, PhaseUsage | PhaseStarted | PhaseEnded):
            phase = event.data.phase
        for task in state.changed:
            seen = self._seen.setdefault(task.task_id, _Seen())
            seen.reports += is_usage
            seen.peak = max(seen.peak, task.level)
            if state.offset <= seen.offset:
                seen.before = seen.used
            seen.offset = state.offset
            used = used_by(task, state.clock_ms)
            seen.used = {
                metric: seen.before.get(metric, 0) + now
                for metric, now in zip(METRICS, used, strict=True)
            }
            seen.limit = {
                metric: limit.limit
                for metric, limit in zip(METRICS, task.limits.task, strict=True)
                if limit is not None
            }
            worked_in = phase or task.open_phase
            if seen.block is None and task.level == BLOCK and task.blocks:
                first = task.blocks[0]
                seen.block = _stop(task, first.phase, first.metric, seen, first.phase or worked_in)
            for index in BLOCKING:
                self._try_shares(task, index, seen, worked_in)

    def _try_shares(self, task: Task, index: int, seen: _Seen, phase: str | None) -> None:
        """Note every further share of the limit at which the task would be stopped by now."""
        cell = task.cell(None, index)
        if cell.line is None:
            return
        tried = seen.tried.get(index, 0)
        while tried < len(self._shares):
            share = self._shares[tried]
            other = Cell(line=line(cell.line.limit, (None, None, None, share)))
            at = thresholds(task, None, index, other)[BLOCK - 1]
            if cell.used < at:
                break
            if share not in seen.stops:
                seen.stops[share] = _stop(task, None, index, seen, phase, at)
            tried += 1
        seen.tried[index] = tried


def _stop(
    task: Task, name: str | None, index: int, seen: _Seen, phase: str | None, at: int | None = None
) -> Stop:
    """Return where a task is stopped now by one of its cells."""
    cell = task.cell(name, index)
    assert cell.line is not None
    return Stop(
        used=seen.used,
        metric=METRICS[index],
        at=thresholds(task, name, index, cell)[BLOCK - 1] if at is None else at,
        limit=cell.line.limit,
        phase=phase,
        cause=cause(task, name, index, spent(task, name)),
    )


assert LATENCY not in BLOCKING
