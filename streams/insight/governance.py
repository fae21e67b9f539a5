"""What one task's lifecycle says of its importance: entries of the audit, signals, and a jump.

All of it follows from one topic, whose records of a task come in order; so nothing here has to be put in
order, and the place of the last record that was read tells a repeated one. Source: budget model,
"Governance"; the user's document, scenario 6.
"""

import msgspec
from msgspec import Struct, field

from schemas.alerts import Alert, Origin, Severity
from schemas.audit import Audit
from schemas.envelope import Envelope
from schemas.fields import Importance
from schemas.outputs import Lifecycle
from streams.insight.audit_trail import UNKNOWN, audit_of
from streams.insight.edges import Occasion, Rule, Standing, turn
from streams.insight.signals import (
    ReviewAwaited,
    ReviewSettled,
    Signal,
    TaskClassed,
    at_ms_of,
    checked_place,
)
from streams.insight.task_alerts import REMEMBERED_MS

IMPORTANCE_JUMP = Rule(
    name="importance_jump", severity=Severity.WARNING, fires_above=0, resolves_at=0
)
# A justification may fill a page; what waits for its review is kept with all others that do.
WHY_LENGTH_MAX = 160


class GovernedTask(Struct, kw_only=True, omit_defaults=True):
    """What is known of a task; `read`: the offset of the last record that is in here.

    `began_ms` None: its start was not read. `was_low`: at any time since.
    """

    read: int = -1
    began_ms: int | None = None
    ended_ms: int | None = None
    importance: Importance | None = None
    was_low: bool = False
    reviewed: bool = False
    waits: bool = False
    has_waited: bool = False
    jump: Standing = field(default_factory=Standing)


Found = tuple[GovernedTask, list[Envelope[Alert]], list[Signal], list[Envelope[Audit]]]


def fold_governed(watch: GovernedTask | None, record: Envelope[Lifecycle], origin: Origin) -> Found:
    """Return what is known with one record more, and the edges, signals and entries it causes.

    Records about a partition are kept under their subject as those of a task are. The watch that was
    given stays as it was. A record that is in it already changes nothing and causes nothing, so
    outputs have to be out before the watch is kept.

    Raises:
        InvalidFieldError: the record is none of the ledger's; nothing follows from it.
    """
    checked_place(record)
    at_ms = at_ms_of(record)
    if watch is not None and origin.offset <= watch.read:
        return watch, [], [], []
    own = GovernedTask() if watch is None else _copied(watch)
    own.read = origin.offset
    entry = audit_of(record, origin)
    audits = [] if entry is None else [entry]
    if record.data.task_id is None:
        return own, [], [], audits
    telling = _Telling(own, record.data.task_id, record.data, origin, at_ms)
    telling.tell()
    return own, telling.alerts, telling.signals, audits


def is_forgettable(watch: GovernedTask, read_to_ms: int) -> bool:
    """Tell whether a task has ended so long ago that nothing comes any more.

    Args:
        read_to_ms: the time up to which the partition of `lifecycle` has been read.
    """
    return watch.ended_ms is not None and watch.ended_ms + REMEMBERED_MS <= read_to_ms


def _copied(watch: GovernedTask) -> GovernedTask:
    return msgspec.json.decode(msgspec.json.encode(watch), type=GovernedTask)


class _Telling:
    """One record, told to the watch of its task."""

    def __init__(
        self, watch: GovernedTask, task_id: str, said: Lifecycle, origin: Origin, at_ms: int
    ) -> None:
        self._watch, self._task_id, self._said = watch, task_id, said
        self._origin, self._at_ms = origin, at_ms
        self.alerts: list[Envelope[Alert]] = []
        self.signals: list[Signal] = []

    def tell(self) -> None:
        """Take over what a start, a change, a review or an end says."""
        match self._said.change:
            case "started":
                if (self._said.limits_version or 1) == 1:
                    self._begin_anew()
                self._class()
            case "reclassified":
                self._justify_anew()
                self._class()
            case "reviewed":
                self._review()
            case "ended":
                self._end()
            case _:
                pass  # it is of the same importance as before

    def _begin_anew(self) -> None:
        """Begin another life of an id; the edges of its alert are counted on."""
        fresh = GovernedTask(read=self._watch.read, began_ms=self._at_ms, jump=self._watch.jump)
        for name in fresh.__struct_fields__:
            setattr(self._watch, name, getattr(fresh, name))

    def _class(self) -> None:
        watch, now = self._watch, self._said.importance
        if now is None:
            return
        before = watch.importance or _importance_before(self._said)
        if watch.began_ms is not None and watch.importance is not now:
            self.signals.append(
                TaskClassed(
                    at_ms=self._at_ms,
                    origin=self._origin,
                    began_ms=watch.began_ms,
                    importance=now,
                    previous=watch.importance,
                )
            )
        watch.importance = now
        watch.was_low |= Importance.LOW in (before, now)
        if now is not Importance.CRITICAL:
            self._settle(f"is {now.value} now, not critical")
        else:
            if before not in (None, Importance.CRITICAL) and watch.was_low:
                self._jump()
            self._await_review()

    def _justify_anew(self) -> None:
        """See whether a reclassification brings a new justification, which nobody has reviewed.

        Where it names critical, its reason is the justification from now on; where it names only
        another complexity, the justification stays. Told apart by the text: of the same text for both
        a review is asked once more.
        """
        said = self._said
        if said.justification == ((said.reason or "").strip() or None):
            self._watch.reviewed = False

    def _await_review(self) -> None:
        watch, why = self._watch, self._said.justification
        if why is None:  # a start that came late says nothing where somebody had said something
            self._settle_review("is critical, and no longer says why")
            return
        if watch.reviewed or watch.ended_ms is not None:
            return
        watch.waits = watch.has_waited = True
        self.signals.append(
            ReviewAwaited(
                at_ms=self._at_ms,
                origin=self._origin,
                task_id=self._task_id,
                by=self._by,
                why=_shortened(why),
            )
        )

    def _review(self) -> None:
        self._watch.reviewed = True
        answer = "approved" if self._said.approved else "refused"
        self._settle(f"is critical: {answer} by {self._by}")

    def _end(self) -> None:
        self._watch.ended_ms = self._at_ms
        self._settle("has ended", is_over=True)

    def _settle(self, how: str, *, is_over: bool = False) -> None:
        """Ask nobody any more why it is critical, whatever was asked."""
        self._turn_jump(f"{self._task_id} {how}", fires=False)
        self._settle_review(how, is_over=is_over)

    def _settle_review(self, how: str, *, is_over: bool = False) -> None:
        watch = self._watch
        if watch.waits or (is_over and watch.has_waited):
            watch.waits = False
            self.signals.append(
                ReviewSettled(
                    at_ms=self._at_ms,
                    origin=self._origin,
                    task_id=self._task_id,
                    how=how,
                    is_over=is_over,
                )
            )

    def _jump(self) -> None:
        if self._watch.ended_ms is None:
            why = _shortened(self._said.justification or "nobody said why")
            text = (
                f"{self._task_id} was low and is critical now, by {self._by}: {why}; "
                f"stoploss justify {self._task_id} approve, or refuse"
            )
            self._turn_jump(text, fires=True)

    def _turn_jump(self, text: str, *, fires: bool) -> None:
        occasion = Occasion(
            scope=self._task_id,
            value=float(fires),
            message=text,
            at_ms=self._at_ms,
            origin=self._origin,
            task_id=self._task_id,
        )
        edge = turn(IMPORTANCE_JUMP, self._watch.jump, occasion, fires=fires)
        if edge is not None:
            self.alerts.append(edge)

    @property
    def _by(self) -> str:
        return self._said.by or self._said.owner or UNKNOWN


def _importance_before(said: Lifecycle) -> Importance | None:
    """Return what a reclassification says that the task was, where its start was not read."""
    named = said.previous.get("importance")
    return next((one for one in Importance if one.value == named), None)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= WHY_LENGTH_MAX else f"{line[: WHY_LENGTH_MAX - 1]}…"
