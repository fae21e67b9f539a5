"""Whose importance is watched in one partition of `lifecycle`, and until when."""

from collections.abc import MutableMapping

from msgspec import Struct

from schemas.alerts import Alert, Origin
from schemas.audit import Audit
from schemas.envelope import Envelope
from schemas.outputs import Lifecycle
from streams.insight.forgetting import LISTED, MINUTE_MS, Listed, forget, list_at
from streams.insight.governance import GovernedTask, fold_governed
from streams.insight.signals import Signal, at_ms_of
from streams.insight.task_alerts import REMEMBERED_MS

# In the order in which a batch writes them: what is listed stands before what it is about.
TASK, WHERE = "task/", "where"
assert LISTED < TASK < WHERE


class Governed(Struct, tag="governed"):
    """A task whose class is watched, or a partition, under its subject."""

    watch: GovernedTask


class Where(Struct, tag="where"):
    """How far the partition was read, and the minute in which forgetting goes on."""

    read_ms: int
    minute: int


Kept = Governed | Listed | Where
Entries = MutableMapping[str, Kept]
Told = tuple[list[Envelope[Alert]], list[Signal], list[Envelope[Audit]]]


def tell(kept: Entries, record: Envelope[Lifecycle], origin: Origin) -> Told:
    """Take over a record; return the edges, signals and entries of the audit that it causes.

    Raises:
        InvalidFieldError: the record is none of the ledger's; nothing follows from it.
    """
    at_ms, subject = at_ms_of(record), record.subject
    known = _watch(kept, subject)
    watch, alerts, signals, audits = fold_governed(known, record, origin)
    if watch is not known:
        kept[f"{TASK}{subject}"] = Governed(watch)
    if watch.ended_ms is not None:
        list_at(kept, subject, _goes_in(watch.ended_ms))
    _read(kept, at_ms)
    return alerts, signals, audits


def tidy(kept: Entries) -> None:
    """Forget the tasks that ended so long ago that nothing comes any more; some of them at a time."""
    where = kept.get(WHERE)
    if not isinstance(where, Where):
        return

    def look(subject: str, _minute: int) -> int | None:
        watch = _watch(kept, subject)
        # Its id is another task's by now, or it has gone.
        return None if watch is None or watch.ended_ms is None else _goes_in(watch.ended_ms)

    def forget_one(subject: str) -> None:
        del kept[f"{TASK}{subject}"]

    minute = forget(kept, where.minute, where.read_ms // MINUTE_MS, look, forget_one)
    if minute != where.minute:
        kept[WHERE] = Where(where.read_ms, minute)


def _watch(kept: Entries, subject: str) -> GovernedTask | None:
    found = kept.get(f"{TASK}{subject}")
    return found.watch if isinstance(found, Governed) else None


def _goes_in(ended_ms: int) -> int:
    """Return the minute after which nothing comes any more of a task."""
    return (ended_ms + REMEMBERED_MS) // MINUTE_MS + 1


def _read(kept: Entries, at_ms: int) -> None:
    where = kept.get(WHERE)
    if not isinstance(where, Where):
        kept[WHERE] = Where(at_ms, at_ms // MINUTE_MS)
    elif at_ms > where.read_ms:
        kept[WHERE] = Where(at_ms, where.minute)
