"""Why tasks are critical, and whether somebody has looked at it in time.

What waits is kept by the partition of `lifecycle` that tells of it: whether there is room for one more
follows from that partition alone, in whichever order partitions are read. Source: budget model,
"Governance".
"""

from msgspec import Struct, field

from schemas.alerts import Severity
from streams.insight.edges import Rule, Standing
from streams.insight.look import Look
from streams.insight.numbers import period
from streams.insight.signals import ReviewAwaited, ReviewSettled
from streams.insight.windows import Scopes, Windows, admit, load, save, scopes_of

JUSTIFICATION_UNREVIEWED = "justification_unreviewed"
WAITING_MAX = 256  # of a partition
HOUR_MS = 3_600_000


class Waiting(Struct, kw_only=True, omit_defaults=True):
    """A task whose justification waits since then (None: no longer), and where its alert stands."""

    task_id: str
    since_ms: int | None = None
    by: str = ""
    why: str = ""
    standing: Standing = field(default_factory=Standing)


class Shelf(Struct, kw_only=True, omit_defaults=True):
    """The tasks of a partition; `dropped` counts those for which there was no room."""

    tasks: list[Waiting] = []
    dropped: int = 0

    def find(self, task_id: str) -> Waiting | None:
        """Return a task, or None where it does not wait and has not."""
        return next((one for one in self.tasks if one.task_id == task_id), None)


def tell_review(look: Look, signal: ReviewAwaited | ReviewSettled) -> None:
    """Take over that a justification waits, or no longer does."""
    scope = str(signal.origin.partition)
    if not admit(look.windows, JUSTIFICATION_UNREVIEWED, scope):
        return
    shelf = load(look.windows, _key(scope), Shelf)
    waiting = shelf.find(signal.task_id)
    if isinstance(signal, ReviewAwaited):
        waiting = waiting or _room(shelf, signal.task_id)
        if waiting is not None:
            # Somebody who says it again with other words waits no shorter.
            waiting.since_ms = look.at_ms if waiting.since_ms is None else waiting.since_ms
            waiting.by, waiting.why = signal.by, signal.why
    elif waiting is not None:
        waiting.since_ms = None
        look.turn(
            _rule(look),
            waiting.standing,
            signal.task_id,
            0.0,
            f"{signal.task_id} {signal.how}",
            fires=False,
            task_id=signal.task_id,
        )
        # One whose alert has fired goes on to count its edges as long as it may fire again.
        if signal.is_over or not waiting.standing.number:
            shelf.tasks.remove(waiting)
    save(look.windows, _key(scope), shelf)


def tell_time(look: Look) -> None:
    """Ask for what has waited too long."""
    for scope in scopes_of(look.windows, JUSTIFICATION_UNREVIEWED):
        shelf = load(look.windows, _key(scope), Shelf)
        before = len(look.outcomes)
        for waiting in shelf.tasks:
            _judge(look, waiting)
        if len(look.outcomes) > before:
            save(look.windows, _key(scope), shelf)


def dropped(windows: Windows) -> int:
    """Return how many justifications found no room."""
    partitions = load(windows, f"scopes/{JUSTIFICATION_UNREVIEWED}", Scopes)
    shelves = (load(windows, _key(scope), Shelf) for scope in partitions.names)
    return partitions.dropped + sum(shelf.dropped for shelf in shelves)


def _key(scope: str) -> str:
    return f"{JUSTIFICATION_UNREVIEWED}/{scope}"


def _room(shelf: Shelf, task_id: str) -> Waiting | None:
    if len(shelf.tasks) >= WAITING_MAX:
        shelf.dropped += 1
        return None
    waiting = Waiting(task_id=task_id)
    shelf.tasks.append(waiting)
    return waiting


def _rule(look: Look) -> Rule:
    """Return the rule in hours, as people count them."""
    return Rule(
        name=JUSTIFICATION_UNREVIEWED,
        severity=Severity.WARNING,
        fires_above=round(look.governance.review_due_ms / HOUR_MS, 2),
        resolves_at=0,
    )


def _judge(look: Look, waiting: Waiting) -> None:
    if waiting.since_ms is None:
        return
    waited_ms, due_ms = look.now_ms - waiting.since_ms, look.governance.review_due_ms
    task_id = waiting.task_id
    if waited_ms >= due_ms:
        text = (
            f"{task_id} has been critical for {period(due_ms)}, and nobody has reviewed why; "
            f"{waiting.by} says: {waiting.why}; stoploss justify {task_id} approve, or refuse"
        )
    else:
        text = f"{task_id} may wait for its review: {period(due_ms)} are allowed now"
    look.turn(
        _rule(look),
        waiting.standing,
        task_id,
        round(waited_ms / HOUR_MS, 2),
        text,
        fires=waited_ms >= due_ms,
        task_id=task_id,
    )
