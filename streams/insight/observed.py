"""What was said of tasks while they ran: the gate on what a running system has observed.

`decisions` keeps the last word on each task only, so blocks are taken from `breaches`. A task counts under
the policy that it began with: what another policy would have said of it proves nothing of this one.

Of a task that was held nobody knows whether it would have come to a good end: its block counts as wrong
until somebody says that it was right.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from schemas.feedback import Feedback
from schemas.fields import Cause, Metric, Scope, TaskOutcome, Verdict
from schemas.outputs import Breach, Lifecycle
from schemas.topics import DAY_MS, SPECS, Topic
from streams.budget.ladder import LEVEL_OF, LEVELS
from streams.insight.baselines import small_units
from streams.insight.gate import JudgedTasks, Stop, WouldBe, judged
from streams.insight.history import TaskHistory

# A block of a task that began earlier may have left the topic.
LOOKED_BACK_MS = int(SPECS[Topic.BREACHES].config["retention.ms"])
assert LOOKED_BACK_MS == 30 * DAY_MS
# How tasks end that were held: an enforcer says so, or nothing more comes of them.
HELD = frozenset({TaskOutcome.BLOCKED, TaskOutcome.ABANDONED})


class _Said(Struct):
    """What was said of one task: of its start, its end, and from its breaches."""

    policy: str | None = None
    outcome: str | None = None
    limit: dict[Metric, int] = {}
    levels: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(len(LEVELS)), 0))
    block: Stop | None = None


class Observed:
    """Fills with what the ledger has published, and with answers to "was this block false?"."""

    def __init__(self) -> None:
        self._said: dict[str, _Said] = {}
        self._answers: dict[str, bool] = {}
        self.first_ms: int | None = None

    def __repr__(self) -> str:
        return f"<Observed {len(self._said)} tasks, {len(self._answers)} answers>"

    def tell_lifecycle(self, record: Lifecycle, at_ms: int) -> None:
        """Take over how a task began and ended, and since when somebody observes."""
        self.first_ms = at_ms if self.first_ms is None else min(self.first_ms, at_ms)
        if record.task_id is None:
            return
        said = self._of(record.task_id)
        said.outcome = record.outcome or said.outcome
        if record.change == "started":
            said.policy = None if record.policy is None else record.policy.hash
            limits = record.limits.get(Scope.TASK, {})
            said.limit = {
                metric: small_units(metric, limits[metric]) for metric in Metric if metric in limits
            }

    def tell_breach(self, record: Breach) -> None:
        """Take over that a level was reached, or withdrawn."""
        said = self._of(record.task_id)
        said.levels[LEVEL_OF[record.level]] += -1 if record.withdrawn else 1
        if record.level is Verdict.BLOCK and said.block is None:
            metric = record.cell.metric
            used = small_units(metric, record.used)
            said.block = Stop(
                used={metric: used},
                metric=metric,
                at=used,
                limit=small_units(metric, record.limit),
                phase=record.cell.phase,
                cause=record.cause or Cause.UNCLASSIFIED,
            )

    def tell_feedback(self, record: Feedback) -> None:
        """Take over whether somebody calls the block of a task false; the last answer stands."""
        self._answers[record.task_id] = record.false_positive

    def judged(
        self, histories: Iterable[TaskHistory], policy: str, since_ms: int = 0
    ) -> JudgedTasks:
        """Return the root tasks that began under a policy, by its hash, and have ended.

        Args:
            histories: of all tasks that have ended.
            policy: the hash of the policy to judge.
            since_ms: tasks that began earlier, in ms since 1970, are left out.
        """
        tasks = [
            self._unheld(each)
            for each in histories
            if (each.started_ms or 0) >= since_ms and self._is_under(each.task_id, policy)
        ]
        said = {each.task_id: self._would_be(each, self._said[each.task_id]) for each in tasks}
        return judged(tasks, said, self._answers_of(said))

    def _of(self, task_id: str) -> _Said:
        return self._said.setdefault(task_id, _Said())

    def _is_under(self, task_id: str, policy: str) -> bool:
        said = self._said.get(task_id)
        return said is not None and said.policy == policy

    def _unheld(self, task: TaskHistory) -> TaskHistory:
        """Return a task that was held as one of which nobody knows how it would have ended."""
        said = self._said[task.task_id]
        was_held = said.block is not None and said.outcome in HELD
        return replace(task, finished=None) if was_held else task

    def _answers_of(self, said: Mapping[str, WouldBe]) -> dict[str, bool]:
        """Return answers about tasks that were blocked; about others nobody can have been asked."""
        return {
            task_id: answer
            for task_id, answer in self._answers.items()
            if task_id in said and said[task_id].block is not None
        }

    def _would_be(self, task: TaskHistory, said: _Said) -> WouldBe:
        reached = [level for level, count in said.levels.items() if count > 0]
        return WouldBe(
            task_id=task.task_id,
            peak=LEVELS[max(reached, default=0)],
            limit=said.limit,
            used={metric: task.used.get(metric, 0) for metric in Metric},
            reports=max(len(task.runs), 2),  # of a running system each call is reported
            block=said.block,
        )
