"""Files → what their finished tasks used: the same fold as everywhere, and what it would publish."""

from msgspec import Struct

from schemas.alerts import Origin
from schemas.baselines import Baseline
from schemas.outputs import ExecutionRecord, Lifecycle
from schemas.topics import Topic
from streams.budget.effects import Effect
from streams.budget.policy import Policy, builtin_policy
from streams.importers.summary import Unreadable
from streams.insight.baselines import ClassOfTasks, Entry, baseline_of, fold_measure, measure_of
from streams.insight.history import Coverage, Histories, TaskHistory
from streams.replay.logs import LogEvents
from streams.replay.offline import replay


class History(Struct, kw_only=True):
    """What files or topics tell: finished tasks, and the baselines as the agent counts them.

    `coverage` says of each class, by its name, of how many executions what is known. `open_tasks`
    have not ended, and are left out.
    """

    tasks: list[TaskHistory]
    baselines: list[Baseline]
    coverage: dict[str, Coverage]
    open_tasks: int = 0
    unreadable: int = 0
    unreadable_named: list[Unreadable] = []


def read_history(log: LogEvents, policy: Policy | None = None) -> History:
    """Return what the tasks of files used and how they ended.

    Args:
        log: the events of files.
        policy: by whose weights tokens are metered; left out, the log's, or the built-in one.
    """
    told = _Told(policy or builtin_policy())
    replay(log, policy, tell=told.take)
    return History(
        tasks=told.histories.tasks(),
        baselines=[
            baseline_of(one) for one in told.entries.values() if isinstance(one, ClassOfTasks)
        ],
        coverage=told.histories.coverage(),
        open_tasks=told.histories.open_count,
        unreadable=log.summary.unreadable,
        unreadable_named=log.summary.unreadable_named,
    )


class _Told:
    """Takes what the fold would publish, as the agents take it from the topics."""

    def __init__(self, policy: Policy) -> None:
        self.histories = Histories(policy.explanations)
        self.entries: dict[str, Entry] = {}
        self._executions = 0

    def take(self, effect: Effect, clock_ms: int) -> None:
        """Take one record."""
        match effect.data:
            case ExecutionRecord() as record:
                origin = Origin(Topic.EXECUTIONS, 0, self._executions)
                self._executions += 1
                fold_measure(self.entries, measure_of(record, origin, clock_ms))
                self.histories.tell_execution(record)
            case Lifecycle() as record:
                self.histories.tell_lifecycle(record, clock_ms)
            case _:
                pass
