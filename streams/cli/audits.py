"""What people want to know of the audit: the newest entries that are meant. Pure."""

from collections.abc import Iterable

from msgspec import Struct

from schemas.audit import Action, Audit
from schemas.envelope import Envelope, epoch_ms_of
from streams.cli.facts import AnsweredFrom

# An agent that begins again writes under the same ids what it has written since its last offsets.
RECENT_MAX = 10_000


class AuditEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change: `before` and `after` hold what changed, by field."""

    id: str
    time: str
    by: str
    action: Action
    subject: str
    task_id: str | None = None
    reason: str | None = None
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    flags: list[str] = []


class AuditAnswer(Struct, frozen=True):
    """What `stoploss audit` found: how many entries there are, and the newest of them, newest last.

    `older_too`: the view keeps the last ones alone, and `count` is of those; there may be older ones.
    """

    count: int
    entries: list[AuditEntry]
    older_too: bool = False
    source: AnsweredFrom | None = None


class AuditFilter(Struct, frozen=True):
    """Which entries are meant; None leaves nothing out. `since_ms` is compared with their own time."""

    task_id: str | None = None
    since_ms: int | None = None

    def takes(self, entry: Envelope[Audit]) -> bool:
        """Whether an entry is meant: about the task, or about what has its name where it has none."""
        said = entry.data
        if self.task_id is not None and self.task_id != (said.task_id or said.subject):
            return False
        if self.since_ms is None:
            return True
        try:
            return epoch_ms_of(entry.time) >= self.since_ms
        except ValueError:  # somebody else's: nobody knows when that was
            return False


class Newest:
    """The newest entries that are meant; one that was written twice counts once.

    Args:
        which: which are meant.
        limit: how many are kept; all are counted.
    """

    def __init__(self, which: AuditFilter, limit: int) -> None:
        self._which, self._limit = which, limit
        self._found: list[AuditEntry] = []
        self._recent: dict[str, None] = {}
        self.count = 0

    def __repr__(self) -> str:
        return f"<Newest {len(self._found)} of {self.count}>"

    def take(self, envelope: Envelope[Audit]) -> None:
        """Take another entry."""
        if envelope.id in self._recent or not self._which.takes(envelope):
            return
        self._recent[envelope.id] = None
        if len(self._recent) > RECENT_MAX:
            del self._recent[next(iter(self._recent))]
        self.count += 1
        self._found.append(_entry(envelope))
        if len(self._found) > 2 * self._limit:
            self._found = self._newest()

    def answer(self, *, older_too: bool = False) -> AuditAnswer:
        """Return what was found."""
        return AuditAnswer(self.count, self._newest(), older_too)

    def _newest(self) -> list[AuditEntry]:
        """Return the newest, newest last; by their own time, in whichever order they were written."""
        return sorted(self._found, key=lambda entry: (entry.time, entry.id))[-self._limit :]


def newest(entries: Iterable[Envelope[Audit]], which: AuditFilter, limit: int) -> Newest:
    """Return what is meant of some entries."""
    found = Newest(which, limit)
    for entry in entries:
        found.take(entry)
    return found


def _entry(envelope: Envelope[Audit]) -> AuditEntry:
    said = envelope.data
    return AuditEntry(
        id=envelope.id,
        time=envelope.time,
        by=said.by,
        action=said.action,
        subject=said.subject,
        task_id=said.task_id,
        reason=said.reason,
        before=said.before,
        after=said.after,
        flags=said.flags,
    )


def change_text(before: dict[str, str], after: dict[str, str]) -> str:
    """Return `importance low → critical`; what did not change is left out."""
    changes = []
    for name, now in after.items():
        was = before.get(name)
        if was is None:
            changes.append(f"{name} {now}")
        elif was != now:
            changes.append(f"{name} {was} → {now}")
    return ", ".join(changes)
