"""The alerts about one task, and what all of its records tell those that look at every task.

The ledger commits what an event causes in one transaction, but who reads it may see the topics of a
partition in any order, and after a crash in another one than before. Each record's id says where its
input stands, so it is the log that orders them: an end that is read before the crossing it ends makes
that crossing fire and resolve at once. The edges and their numbers are those of the log in every order.

A cell stands at warn or above exactly as long as the task's own verdict does, and decisions also say
when it falls (grants, withdrawals, new classes), which breaches do not: so decisions are what
`budget_breach` follows. That a task goes on from there to block is an alert of its own, `task_blocked`:
an alert fires once, so that the first one cannot say it. It says as well whether the task is held, and is
resolved and fires anew where a mode changes that. While a task inherits a block they do not tell how far it has come itself: that
is its parent's alert until it is lifted.
"""

from typing import NamedTuple, assert_never

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from schemas.alerts import Alert, Origin, Severity
from schemas.envelope import Envelope
from schemas.fields import UnenforcedReason, Verdict
from schemas.outputs import Breach, Decision, ExecutionRecord, Lifecycle
from streams.insight.edges import Occasion, Rule, Standing, turn
from streams.insight.signals import (
    BlockClassed,
    CallsMade,
    Signal,
    TaskBegan,
    TaskBlocked,
    at_ms_of,
    checked_place,
    is_at_least,
)
from streams.insight.task_facts import NOWHERE, Place

# The whole limit, since a policy may put its levels anywhere about it.
BUDGET_BREACH = Rule(name="budget_breach", severity=Severity.WARNING, fires_above=1, resolves_at=1)
TASK_BLOCKED = Rule(name="task_blocked", severity=Severity.CRITICAL, fires_above=1, resolves_at=1)
# Nobody is held, so that nobody has to look at once: an uncalibrated policy in mode observe would block
# most tasks. Source: budget model, "Limits" and "Modes".
TASK_AT_BLOCK = msgspec.structs.replace(TASK_BLOCKED, severity=Severity.WARNING)
STUCK_TASK = Rule(name="stuck_task", severity=Severity.WARNING, fires_above=0, resolves_at=0)

# A task that backtracks, or changes its class, for ever fills no memory: what is older goes first.
RUNS_MAX, CLASSES_MAX, BLOCKS_MAX, PHASES_MAX = 256, 16, 32, 64
# The ledger forgets a task a day after its end, by default; late usage comes before that.
REMEMBERED_MS = 25 * 3_600_000

Record = Envelope[Lifecycle] | Envelope[Decision] | Envelope[Breach] | Envelope[ExecutionRecord]


class Moment(NamedTuple):
    """Where something stands in the log, and the partition's clock then."""

    place: Place
    at_ms: int


NEVER = Moment(NOWHERE, 0)


class Watched(Struct, kw_only=True, omit_defaults=True):
    """One alert of a task: its edges, where it last began, and whether its own topic says it holds.

    `is_unheld`: it is at block, and goes on.
    """

    standing: Standing = field(default_factory=Standing)
    began: Place = NOWHERE
    holds: bool = False
    is_unheld: bool = False
    phase: str = ""


class Calls(Struct, array_like=True):
    """What a run has reported of its model calls."""

    calls: int = 0
    unknown: int = 0
    estimated: int = 0


class Classed(Struct, array_like=True):
    """Of which tier a task is, from an input on."""

    offset: int
    tier: str


class Blocked(Struct, array_like=True):
    """A decision to stop: its input, its id, its time."""

    offset: int
    decision_id: str
    at_ms: int


class TaskWatch(Struct, kw_only=True, omit_defaults=True):
    """What the alerts about one task need to know; `read`: the last record of each topic in here."""

    read: dict[str, int] = {}
    began: Place = NOWHERE
    ended: Moment = NEVER
    breach: Watched = field(default_factory=Watched)
    blocked: Watched = field(default_factory=Watched)
    stuck: Watched = field(default_factory=Watched)
    was_blocked: bool = False
    left: dict[str, Moment] = {}  # when a run of a phase was first published, the last time
    classes: list[Classed] = []
    blocks: list[Blocked] = []
    runs: dict[str, Calls] = {}
    dropped: int = 0


Found = tuple[TaskWatch | None, list[Envelope[Alert]], list[Signal]]


def fold_task(watch: TaskWatch | None, record: Record, origin: Origin) -> Found:
    """Return what is known of a task with one record more, and the edges and signals it causes.

    The watch that was given stays as it was. A record that is in it already changes nothing and
    causes nothing, so outputs have to be out before the watch is kept.

    Raises:
        InvalidFieldError: the record is none of the ledger's; nothing follows from it.
    """
    place, at_ms = checked_place(record), at_ms_of(record)
    data = record.data
    if data.task_id is None:  # about a partition
        return watch, [], []
    if watch is not None and origin.offset <= watch.read.get(origin.topic, -1):
        return watch, [], []
    own = TaskWatch() if watch is None else _copied(watch)
    own.read[origin.topic] = origin.offset
    now = Moment(place, at_ms)
    telling = _Telling(own, data.task_id, origin, now, record.traceparent)
    match data:
        case Lifecycle():
            telling.lifecycle(data)
        case Decision():
            telling.decision(data, record.id)
        case ExecutionRecord():
            telling.execution(data)
        case Breach():
            pass  # decisions say all of it
        case _:
            assert_never(data)
    return own, telling.alerts, telling.signals


def is_forgettable(watch: TaskWatch, read_to_ms: int) -> bool:
    """Tell whether a task has ended so long ago that nothing comes any more.

    Args:
        read_to_ms: the time up to which *all* topics of the partition have been read. Were one of them
            behind, a block in it would fire, and the end that resolves it would be forgotten.
    """
    return watch.ended.place > watch.began and watch.ended.at_ms + REMEMBERED_MS <= read_to_ms


def is_stray(watch: TaskWatch) -> bool:
    """Tell whether neither a start nor an end of a task has been read, and nothing of it fires.

    So it is with what a run still reports when its task has been forgotten.
    """
    alerts = (watch.breach, watch.blocked, watch.stuck)
    return watch.began == watch.ended.place == NOWHERE and not any(
        one.standing.is_firing for one in alerts
    )


def resolve_forgotten(
    watch: TaskWatch, task_id: str, origin: Origin, at_ms: int
) -> tuple[TaskWatch, list[Envelope[Alert]]]:
    """Return a watch in which no decision holds any more, since the ledger has forgotten the task.

    Where its end was read, nothing does anyway. Where decisions are read so late that it is forgotten
    here as well, they fire what nothing else would resolve.
    """
    own = _copied(watch)
    telling = _Telling(own, task_id, origin, Moment(NOWHERE, at_ms))
    telling.forgotten()
    return own, telling.alerts


def _copied(watch: TaskWatch) -> TaskWatch:
    return msgspec.json.decode(msgspec.json.encode(watch), type=TaskWatch)


class _Telling:
    """One record, told to the watch of its task."""

    def __init__(
        self,
        watch: TaskWatch,
        task_id: str,
        origin: Origin,
        now: Moment,
        traceparent: str | UnsetType = UNSET,
    ) -> None:
        self._watch, self._task_id, self._origin, self._now = watch, task_id, origin, now
        self._traceparent = traceparent
        self.alerts: list[Envelope[Alert]] = []
        self.signals: list[Signal] = []

    def lifecycle(self, said: Lifecycle) -> None:
        """A start, a change or an end."""
        self._class(said)
        match said.change:
            case "started":
                self._started(said)
            case "stuck":
                self._stuck(said.phase or "")
            case "ended":
                self._ended()
            case _:
                pass  # its class is all that matters here

    def decision(self, said: Decision, decision_id: str) -> None:
        """A verdict: where the task's own cells stand, unless it is its parent's, or of the dead."""
        watch = self._watch
        if said.unenforced_reason is UnenforcedReason.ENDED:
            return
        if said.number == 1:  # a new life of this id, whose last end may not have been read yet
            watch.was_blocked = False
            self.forgotten()
        if said.inherited_from is not None:
            return
        is_block = said.verdict is Verdict.BLOCK
        if is_block:
            self._block(said, decision_id)
        is_breach = is_at_least(said.verdict, Verdict.WARN)
        text = f"{self._task_id}: {said.message}"
        self._hold(watch.breach, BUDGET_BREACH, said.ratio, text, holds=is_breach)
        blocked = watch.blocked
        if is_block and blocked.is_unheld == said.enforced:
            text = f"{self._task_id} is {'held from now on' if said.enforced else 'no longer held'}"
            self._hold(blocked, _blocked_rule(blocked), said.ratio, text, holds=False)
            blocked.is_unheld = not said.enforced
        text = f"{self._task_id} {_block_text(said, blocked)}: {said.message}"
        self._hold(blocked, _blocked_rule(blocked), said.ratio, text, holds=is_block)

    def execution(self, said: ExecutionRecord) -> None:
        """A run was published, for the first time or again with more in it."""
        watch = self._watch
        if said.revision == 1 and said.started is not None:
            # Only one run is open at a time, and an open one has not been published yet. A run that
            # nobody has started was never in its phase: another attempt of it may still be.
            watch.left[said.phase] = self._now
            watch.dropped += _bound(watch.left, PHASES_MAX)
            if said.phase == watch.stuck.phase:
                self._unstick(self._now)
        self._calls(said)

    def forgotten(self) -> None:
        """What decisions have said is about a task that is no more."""
        self._forget(self._watch.breach, BUDGET_BREACH)
        self._forget(self._watch.blocked, _blocked_rule(self._watch.blocked))

    def _started(self, said: Lifecycle) -> None:
        is_late = (said.limits_version or 1) > 1
        if not is_late:
            self._watch.began = self._now.place
        if said.importance is None or said.complexity is None:
            return
        self.signals.append(
            TaskBegan(
                at_ms=self._now.at_ms,
                origin=self._origin,
                importance=said.importance,
                budgeted_importance=said.budgeted_importance or said.importance,
                complexity=said.complexity,
                task_type=said.task_type,
                is_late=is_late,
            ),
        )

    def _ended(self) -> None:
        watch = self._watch
        watch.ended = self._now
        self._end(watch.breach, BUDGET_BREACH)
        self._end(watch.blocked, _blocked_rule(watch.blocked))
        self._unstick(self._now)

    def _stuck(self, phase: str) -> None:
        stuck = self._watch.stuck
        if stuck.standing.is_firing:  # it has left that phase since, or it would not be stuck again
            self._unstick(self._now)
        stuck.began, stuck.phase = self._now.place, phase
        text = (
            f"{self._task_id} has been in {phase} for longer than its policy allows; if its enforcer is "
            f"gone: stoploss recover {self._task_id} --close-phase --reason …"
        )
        self._turn(stuck, STUCK_TASK, 1, text, self._now.at_ms, fires=True)
        ends = [self._watch.left.get(phase, NEVER), self._watch.ended]
        for end in sorted(ends):
            self._unstick(end)

    def _unstick(self, end: Moment) -> None:
        stuck = self._watch.stuck
        if end.place > stuck.began:
            text = f"{self._task_id} is no longer in {stuck.phase}"
            self._turn(stuck, STUCK_TASK, 0, text, end.at_ms, fires=False)

    def _hold(
        self, watched: Watched, rule: Rule, ratio: float | None, text: str, *, holds: bool
    ) -> None:
        """Turn an alert where its topic says that it now holds, or no longer does."""
        if holds == watched.holds:
            return
        watched.holds = holds
        if holds:
            watched.began = self._now.place
        self._turn(watched, rule, ratio or 0.0, text, self._now.at_ms, fires=holds)
        if holds:
            self._end(watched, rule)

    def _end(self, watched: Watched, rule: Rule) -> None:
        """Resolve what began before the task's end, whichever of them was read first."""
        ended = self._watch.ended
        if ended.place > watched.began:
            self._turn(watched, rule, 0, f"{self._task_id} has ended", ended.at_ms, fires=False)

    def _forget(self, watched: Watched, rule: Rule) -> None:
        watched.holds = False
        text = f"{self._task_id} has ended, and is forgotten"
        self._turn(watched, rule, 0, text, self._now.at_ms, fires=False)

    def _turn(
        self, watched: Watched, rule: Rule, value: float, text: str, at_ms: int, *, fires: bool
    ) -> None:
        occasion = Occasion(
            scope=self._task_id,
            value=value,
            message=text,
            at_ms=at_ms,
            origin=self._origin,
            index=len(self.alerts),
            task_id=self._task_id,
            traceparent=self._traceparent,
        )
        edge = turn(rule, watched.standing, occasion, fires=fires)
        if edge is not None:
            self.alerts.append(edge)

    def _class(self, said: Lifecycle) -> None:
        """Note a new class, and tell it of the blocks that came after it and were read before."""
        watch = self._watch
        if said.importance is None or said.complexity is None:
            return
        tier = f"{said.importance.value}/{said.complexity.value}"
        if watch.classes and watch.classes[-1].tier == tier:
            return
        classed = Classed(self._now.place.offset, tier)
        watch.classes.append(classed)
        watch.dropped += len(watch.classes[:-CLASSES_MAX])
        del watch.classes[:-CLASSES_MAX]
        for block in watch.blocks:
            if block.offset >= classed.offset:
                self._tell_class(block, classed)

    def _block(self, said: Decision, decision_id: str) -> None:
        watch = self._watch
        if not watch.was_blocked:
            watch.was_blocked = True
            self.signals.append(
                TaskBlocked(at_ms=self._now.at_ms, origin=self._origin, enforced=said.enforced)
            )
        block = Blocked(self._now.place.offset, decision_id, self._now.at_ms)
        watch.blocks.append(block)
        watch.dropped += len(watch.blocks[:-BLOCKS_MAX])
        del watch.blocks[:-BLOCKS_MAX]
        known = [one for one in watch.classes if one.offset <= block.offset]
        if known:
            self._tell_class(block, known[-1])

    def _tell_class(self, block: Blocked, classed: Classed) -> None:
        self.signals.append(
            BlockClassed(
                at_ms=block.at_ms,
                origin=self._origin,
                decision_id=block.decision_id,
                tier=classed.tier,
                as_of=classed.offset,
            )
        )

    def _calls(self, said: ExecutionRecord) -> None:
        """Tell what a revision adds; one whose last is not known tells nothing, and is counted."""
        watch = self._watch
        name = f"{said.phase}#{said.attempt}"
        before = Calls() if said.revision == 1 else watch.runs.pop(name, None)
        now = Calls(
            *(
                int(said.counters.get(one, 0))
                for one in ("model_calls", "unknown_usage", "estimated_usage")
            )
        )
        watch.runs[name] = now
        watch.dropped += _bound(watch.runs, RUNS_MAX)
        if before is None:
            watch.dropped += 1
        elif now != before:
            self.signals.append(
                CallsMade(
                    at_ms=self._now.at_ms,
                    origin=self._origin,
                    calls=now.calls - before.calls,
                    unknown=now.unknown - before.unknown,
                    estimated=now.estimated - before.estimated,
                )
            )


def _blocked_rule(blocked: Watched) -> Rule:
    return TASK_AT_BLOCK if blocked.is_unheld else TASK_BLOCKED


def _block_text(said: Decision, blocked: Watched) -> str:
    """Return how a task stands: at block, where it is held or why it is not; or no longer."""
    if said.verdict is not Verdict.BLOCK:
        return "is no longer at block" if blocked.is_unheld else "is no longer held"
    if said.unenforced_reason is None:
        return "is held"
    return f"is at block, and not held ({said.unenforced_reason.value})"


def _bound(kept: dict[str, Moment] | dict[str, Calls], most: int) -> int:
    """Drop what came first, of what is more than may be kept; return how many."""
    surplus = list(kept)[: max(len(kept) - most, 0)]
    for name in surplus:
        del kept[name]
    return len(surplus)
