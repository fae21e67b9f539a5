"""Events of any age through the same fold as the ledger's, without Kafka.

**Families.** Each root task with all below it is folded in a partition state of its own. A log holds
sessions of many days one after the other, and a partition's clock never runs backwards: in one
state a session of Monday that comes after Friday's would stand still on Friday. Tasks of different
families never touch each other, so apart from the clock nothing differs from the ledger.

**Time** is the event's own, the highest seen in its family.

**Events for a whole partition** were written to each partition: they count once, from the first
partition that the log names, for every family that is known by then, and for those that come
later. A `policy.set` or `mode.set` is passed over where the caller brings the policy or the mode:
the question is then what *that* one would have said. Ticks move every family's clock: time passes
for all of them.

**Memory** is bounded by the families that are kept folded; the one that was idle longest becomes
rows. What still comes for it opens it anew, as it would in the ledger after its retention, is
counted in `reopened`, and is added to its row.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import assert_never

from msgspec.structs import replace

from schemas.decode import Refusal
from schemas.envelope import epoch_ms
from schemas.events import (
    PARTITION_PREFIX,
    AllGranted,
    ClockTick,
    Event,
    ModeSet,
    PartitionEvent,
    PolicySet,
    TaskEvent,
    TaskRecovered,
    TaskStarted,
    partition_subject,
)
from schemas.fields import Mode, Number
from schemas.outputs import PolicyRef
from streams.budget.amounts import folded, number
from streams.budget.ladder import LEVEL_OF, LEVELS
from streams.budget.limits import METRICS
from streams.budget.policy import Policy, builtin_policy
from streams.budget.state import new_partition
from streams.replay.family import Family, Folded, Row, Tell, Watch, offline
from streams.replay.logs import LogEvents
from streams.replay.result import ReplayResult, ReplaySummary

# Each takes about 15 KB with a task of five phases. Importers have at most 5,000 sessions open.
FAMILIES_MAX = 6_000
PARTITION = 0
RATIO_PLACES = 10_000


def replay(
    events: Iterable[Event | Refusal],
    policy: Policy | None = None,
    *,
    mode: Mode | None = None,
    tell: Tell | None = None,
) -> ReplayResult:
    """Return what the ledger would have said of `events`.

    Args:
        events: in the order of their log; a refusal counts by its reason.
        policy: for all tasks; left out, the built-in one until the log sets another.
        mode: who is held; left out, observe until the log sets another.
        tell: is told all that would have been published about tasks, as it happens.
    """
    run = Replay(policy, mode, tell)
    for event in events:
        run.take(event)
    return run.result()


def replay_log(
    log: LogEvents, policy: Policy | None = None, *, mode: Mode | None = None
) -> ReplayResult:
    """Return `replay` of files, with the lines that could not be read in its summary."""
    result = replay(log, policy, mode=mode)
    result.summary.unreadable = log.summary.unreadable
    result.summary.unreadable_named = log.summary.unreadable_named
    return result


class Replay:
    """Finds the family of each event, and keeps the rows of those that are put away.

    Args:
        policy: as in `replay`; so are `mode` and `tell`.
        watch: is shown each family after each of its events.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        mode: Mode | None = None,
        tell: Tell | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._tell, self._watch = tell, watch
        self._fixed_policy, self._fixed_mode = policy is not None, mode is not None
        # What concerns everybody is folded here first: it is checked, and known for newcomers.
        self._all = Family(new_partition(PARTITION, offline(policy or builtin_policy())))
        self._all.state.mode = mode or Mode.OBSERVE
        self._partition: str | None = None
        self._families: OrderedDict[str, Family] = OrderedDict()  # the longest idle one first
        self._roots: dict[str, str] = {}  # of tasks that are below another
        self._rows: dict[str, Row] = {}
        self._order: dict[str, None] = {}  # the ids that events named, the first one first
        self._refused: Counter[str] = Counter()
        self._events = self._repeated = self._reopened = 0

    def __repr__(self) -> str:
        return f"<Replay of {self._events} events, {len(self._families)} families folded>"

    def take(self, event: Event | Refusal) -> None:
        """Fold one event where it belongs."""
        self._events += 1
        match event:
            case Refusal():
                self._refused[event.reason] += 1
            case AllGranted() | ModeSet() | PolicySet() | ClockTick():
                self._take_for_all(event)
            case TaskRecovered() if event.subject.startswith(PARTITION_PREFIX):
                pass  # a record of `tasks` was rebuilt: nothing happened to a task
            case _:
                self._order[event.subject] = None
                self._count(self._family(event).fold(event, epoch_ms(event.time)))

    def result(self) -> ReplayResult:
        """Put every family away; return rows and sums."""
        for root in list(self._families):
            self._put_away(root)
        # An id of refused events alone is no task; a parent may be named by its child alone.
        named = [task_id for task_id in self._order if task_id in self._rows]
        rows = [self._rows[task_id] for task_id in dict.fromkeys([*named, *self._rows])]
        peaks = Counter(row.task.peak for row in rows)
        calls = sum(row.model_calls for row in rows)
        unknown = sum(row.unknown_calls for row in rows)
        last = self._all.state.active_policy
        summary = ReplaySummary(
            tasks=len(rows),
            events=self._events,
            repeated=self._repeated,
            refused=dict(sorted(self._refused.items())),
            reopened=self._reopened,
            verdicts={level: peaks[level] for level in LEVELS},
            held=sum(row.held for row in rows),
            used={
                metric.value: number(sum(row.own[index] for row in rows), metric)
                for index, metric in enumerate(METRICS)
            },
            model_calls=calls,
            unknown_usage_share=unknown * RATIO_PLACES // calls / RATIO_PLACES if calls else 0.0,
            policy=PolicyRef(last.version, last.hash),
            mode=self._all.state.mode,
        )
        return ReplayResult(summary=summary, tasks=[row.task for row in rows])

    def _count(self, done: Folded) -> None:
        self._refused.update(done.refused)
        self._repeated += done.repeated

    def _family(self, event: TaskEvent) -> Family:
        root = self._root(event)
        family = self._families.get(root)
        if family is None:
            family = self._families[root] = self._new_family()
            if len(self._families) > FAMILIES_MAX:
                self._put_away(next(iter(self._families)))
        self._families.move_to_end(root)
        return family

    def _root(self, event: TaskEvent) -> str:
        """Return the root task's id: named, or known from the start of this task or its parent."""
        task_id = event.subject
        root = self._roots.get(task_id)
        if root is None:
            parent = event.data.parent_task_id if isinstance(event, TaskStarted) else None
            root = event.partitionkey or (self._roots.get(parent, parent) if parent else task_id)
            if root != task_id:
                self._roots[task_id] = root
        return root

    def _new_family(self) -> Family:
        ours = self._all.state
        state = new_partition(PARTITION, ours.default_policy)
        state.policy, state.mode, state.mode_by = ours.policy, ours.mode, ours.mode_by
        state.limits_cache = ours.limits_cache  # computed once for all tasks of a class
        return Family(state, self._tell, self._watch)

    def _take_for_all(self, event: PartitionEvent) -> None:
        at_ms = epoch_ms(event.time)
        if isinstance(event, ClockTick):
            self._pass_time(event, at_ms)
            return
        if self._partition is None:
            self._partition = event.subject
        if event.subject != self._partition:
            return
        event = replace(event, subject=partition_subject(PARTITION))
        if isinstance(event, PolicySet) and self._fixed_policy:
            return
        if isinstance(event, ModeSet) and self._fixed_mode:
            return
        done = self._all.fold(event, at_ms)
        self._count(done)
        if done.refused or done.repeated:
            return
        self._tell_all(event, at_ms)

    def _tell_all(self, event: AllGranted | ModeSet | PolicySet, at_ms: int) -> None:
        ours = self._all.state
        match event:
            case PolicySet():
                assert ours.policy is not None
                ours.policy = offline(ours.policy)
                for family in self._families.values():
                    family.state.policy = ours.policy
            case ModeSet() | AllGranted():
                for family in self._families.values():
                    family.fold(event, at_ms)
            case _:
                assert_never(event)

    def _pass_time(self, tick: ClockTick, at_ms: int) -> None:
        event = replace(tick, subject=partition_subject(PARTITION))
        for family in self._families.values():
            if at_ms >= family.state.next_due_ms:
                family.fold(event, at_ms)
            elif at_ms > family.state.clock_ms:
                family.state.clock_ms = at_ms

    def _put_away(self, root: str) -> None:
        for row in self._families.pop(root).rows():
            before = self._rows.get(row.task.task_id)
            if before is not None:
                self._reopened += 1
                row = _joined(before, row)  # noqa: PLW2901 - the row of both lives
            self._rows[row.task.task_id] = row


def _joined(before: Row, after: Row) -> Row:
    """Return one row for a task that was opened anew: used by both, standing as the later one."""
    blocked_at = before.task.blocked_at
    if blocked_at is None and after.task.blocked_at is not None:
        blocked_at = _sum(before.task.used, after.task.blocked_at)
    peak = max(before.task.peak, after.task.peak, key=LEVEL_OF.__getitem__)
    task = replace(
        after.task, used=_sum(before.task.used, after.task.used), peak=peak, blocked_at=blocked_at
    )
    return Row(
        task=task,
        own=(
            before.own[0] + after.own[0],
            before.own[1] + after.own[1],
            before.own[2] + after.own[2],
        ),
        model_calls=before.model_calls + after.model_calls,
        unknown_calls=before.unknown_calls + after.unknown_calls,
        held=before.held or after.held,
    )


def _sum(one: dict[str, Number], other: dict[str, Number]) -> dict[str, Number]:
    return {
        metric.value: number(
            folded(one[metric.value], metric) + folded(other[metric.value], metric), metric
        )
        for metric in METRICS
    }
