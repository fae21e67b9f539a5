"""One task family of a replay, in a partition state of its own, and the rows it becomes."""

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from schemas.decode import Refusal
from schemas.events import Event
from schemas.fields import Number, Verdict
from schemas.outputs import Decision
from streams.budget.amounts import number
from streams.budget.effects import Effect, Refused
from streams.budget.fold import fold
from streams.budget.ladder import LEVEL_OF, LEVELS
from streams.budget.latency import used_ms
from streams.budget.limits import METRICS
from streams.budget.policy import Policy
from streams.budget.state import PartitionState, Task
from streams.replay.result import ReplayedTask

LATENCY = 1  # index into METRICS
# Longer than any log: a year 9999 in a log is 10**14.4 ms from 1970.
ENDLESS_MS = 10**15

# Is told what an event has caused, and the family's clock after it.
Tell = Callable[[Effect, int], None]
# Is shown a family after an event, while the state still knows which tasks that has changed.
Watch = Callable[[PartitionState, Event | Refusal], None]


class Peak(Struct):
    """What was said of a task on the way; the state knows only what stands now."""

    level: int = 0
    blocked_at: dict[str, Number] | None = None
    held: bool = False


class Folded(Struct, frozen=True):
    """What one event did: the reasons of refusals, and whether it was one that was folded before."""

    refused: tuple[str, ...]
    repeated: bool


class Row(Struct, frozen=True):
    """A task of a family with what only sums need.

    `own` is what it used, in folded units by index of metric, without what descendants rolled up.
    """

    task: ReplayedTask
    own: tuple[int, int, int]
    model_calls: int
    unknown_calls: int
    held: bool


def offline(policy: Policy) -> Policy:
    """Return the policy as a replay folds by it; its hash stays, since no number of a budget differs.

    Nothing is historical: a log's own times are its clock. And nothing is forgotten: the ledger
    forgets a task a day after its end to bound its memory, a replay when its family is put away.
    """
    clock = replace(policy.clock, historical_after_ms=ENDLESS_MS, retention_ms=ENDLESS_MS)
    return replace(policy, clock=clock)


class Family:
    """A root task with all below it."""

    def __init__(
        self, state: PartitionState, tell: Tell | None = None, watch: Watch | None = None
    ) -> None:
        self.state = state
        self._tell, self._watch = tell, watch
        self._peaks: dict[str, Peak] = {}
        self._offset = -1

    def __repr__(self) -> str:
        return f"<Family of {len(self.state.tasks)} tasks, {self._offset + 1} events>"

    def fold(self, event: Event | Refusal, at_ms: int) -> Folded:
        """Fold one event; remember the highest verdict of each task, and what was used at a block.

        Args:
            at_ms: the event's own time, in milliseconds since 1970.
        """
        self._offset += 1
        effects = fold(self.state, event, offset=self._offset, append_ms=at_ms)
        refused = []
        for effect in effects:
            if self._tell is not None:
                self._tell(effect, self.state.clock_ms)
            if isinstance(effect.data, Decision):
                self._said(effect.data)
            elif isinstance(effect.data, Refused):
                refused.append(effect.data.reason)
        if self._watch is not None:
            self._watch(self.state, event)
        self.settle()
        return Folded(tuple(refused), repeated=self.state.event_id is None and not refused)

    def settle(self) -> None:
        """Forget which tasks changed: nobody stores them."""
        for task in self.state.changed:
            task.is_changed = False
        self.state.changed.clear()

    def rows(self) -> list[Row]:
        """Return a row for each task, in the order in which they were first named."""
        return [self._row(task) for task in self.state.tasks.values()]

    def _said(self, decision: Decision) -> None:
        peak = self._peaks.setdefault(decision.task_id, Peak())
        peak.level = max(peak.level, LEVEL_OF[decision.verdict])
        if decision.verdict is Verdict.BLOCK:
            peak.held |= decision.enforced
            if peak.blocked_at is None:
                task = self.state.tasks[decision.task_id]
                peak.blocked_at = _in_units(used_by(task, self.state.clock_ms))

    def _row(self, task: Task) -> Row:
        peak = self._peaks.get(task.task_id, Peak())
        used = used_by(task, self.state.clock_ms)
        phases = task.phases.values()
        counters = [one.counters for phase in phases for one in phase.executions]
        lines = task.limits.task
        return Row(
            task=ReplayedTask(
                task_id=task.task_id,
                verdict=LEVELS[task.verdict],
                peak=LEVELS[peak.level],
                used=_in_units(used),
                limit={
                    metric.value: number(line.limit, metric)
                    for metric, line in zip(METRICS, lines, strict=True)
                    if line is not None
                },
                blocked_at=peak.blocked_at,
            ),
            own=(
                sum(phase.tokens.used for phase in phases),
                used[LATENCY],  # does not roll up
                sum(phase.cost.used for phase in phases),
            ),
            model_calls=sum(max(one.model_calls, one.unknown_usage) for one in counters),
            unknown_calls=sum(one.unknown_usage for one in counters),
            held=peak.held,
        )


def used_by(task: Task, clock_ms: int) -> tuple[int, int, int]:
    """Return what a task has used, in folded units by index of metric."""
    latency_ms = used_ms(task, None, task.latency, clock_ms)
    return task.tokens.used, latency_ms, task.cost.used


def _in_units(used: tuple[int, int, int]) -> dict[str, Number]:
    return {
        metric.value: number(amount, metric) for metric, amount in zip(METRICS, used, strict=True)
    }
