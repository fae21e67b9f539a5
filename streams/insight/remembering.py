"""Which tasks are watched, and for how long: what is kept of them for one partition of the log.

Ended tasks stand in a line, in the order of their ends, in chunks of some: so those whose time has come
are found without a look at all the others. Who stands in it twice, or no longer has to go, is passed
over; so it does not matter how often a record is told.

Every topic has to have been read to the time at which a task goes, or a block would fire that nothing
resolves. A topic that says nothing for long holds the line up; then its length is the bound.
"""

from collections.abc import MutableMapping

from msgspec import Struct, field
from msgspec.structs import replace

from schemas.alerts import Alert, Origin
from schemas.envelope import Envelope
from schemas.topics import Topic
from streams.insight.signals import Signal, at_ms_of
from streams.insight.task_alerts import (
    REMEMBERED_MS,
    Record,
    TaskWatch,
    fold_task,
    is_forgettable,
    is_stray,
    resolve_forgotten,
)

READ = (Topic.LIFECYCLE, Topic.DECISIONS, Topic.EXECUTIONS)
CHUNK_TASKS_MAX = 64
# So at most 32,768 ended tasks are kept; where more end within their time, the first of them go
# earlier, and what is then reported of them is not counted.
CHUNKS_MAX = 512
SWEPT_CHUNKS_MAX = 2  # by one record: more than one record can add

# After a crash some of a batch's entries are as they were before, those with the last keys. So tasks
# come first, then the chunks that name them, then where the line begins and ends: what is told again
# finds nothing out of the line that is still kept.
TASK, CHUNK, LINE = "task/", "turn/", "turns"
assert TASK < CHUNK < LINE


class Watching(Struct, tag="task"):
    """A task that is watched."""

    watch: TaskWatch


class Chunk(Struct, tag="chunk"):
    """Ended tasks in the order of their ends, and the time of the last."""

    tasks: list[str] = field(default_factory=list)
    until_ms: int = 0


class Line(Struct, frozen=True, kw_only=True, tag="line"):
    """The first and the last chunk; up to which time each topic has been read; who had to go early."""

    first: int = 0
    last: int = 0
    read_ms: dict[str, int] = {}
    dropped: int = 0

    @property
    def read_to_ms(self) -> int:
        """The time up to which all topics have been read."""
        return min(self.read_ms.get(topic, 0) for topic in READ)


Kept = Watching | Chunk | Line
Entries = MutableMapping[str, Kept]
Told = tuple[list[Envelope[Alert]], list[Signal]]


def tell(entries: Entries, record: Record, origin: Origin) -> Told:
    """Take over a record; return the edges and signals that it causes.

    Raises:
        InvalidFieldError: the record is none of the ledger's; nothing follows from it.
    """
    at_ms = at_ms_of(record)
    task_id = record.data.task_id
    alerts: list[Envelope[Alert]] = []
    signals: list[Signal] = []
    if task_id is not None:
        known = _watch(entries, task_id)
        watch, alerts, signals = fold_task(known, record, origin)
        if watch is not None and watch is not known:
            entries[_key(task_id)] = Watching(watch)
        # Also where the record is known: the task may be kept, and its place in the line not.
        if watch is not None and (watch.ended.place > watch.began or is_stray(watch)):
            _line_up(entries, task_id, at_ms)
    _read(entries, origin.topic, at_ms)
    _sweep(entries)
    return alerts, signals


def tell_deletion(
    entries: Entries, task_id: str, origin: Origin, at_ms: int
) -> list[Envelope[Alert]]:
    """The ledger has forgotten a task's decisions: whatever they said no longer holds."""
    known = _watch(entries, task_id)
    if known is None:
        return []
    watch, alerts = resolve_forgotten(known, task_id, origin, at_ms)
    if alerts:
        entries[_key(task_id)] = Watching(watch)
    _line_up(entries, task_id, _line(entries).read_ms.get(origin.topic, 0))
    return alerts


def dropped(entries: Entries) -> int:
    """Return how many ended tasks had to go before their time."""
    return _line(entries).dropped


def _key(task_id: str) -> str:
    return f"{TASK}{task_id}"


def _chunk_key(number: int) -> str:
    return f"{CHUNK}{number}"


def _watch(entries: Entries, task_id: str) -> TaskWatch | None:
    found = entries.get(_key(task_id))
    return found.watch if isinstance(found, Watching) else None


def _line(entries: Entries) -> Line:
    found = entries.get(LINE)
    return found if isinstance(found, Line) else Line()


def _chunk(entries: Entries, number: int) -> Chunk:
    found = entries.get(_chunk_key(number))
    return found if isinstance(found, Chunk) else Chunk()


def _read(entries: Entries, topic: str, at_ms: int) -> None:
    line = _line(entries)
    if at_ms > line.read_ms.get(topic, 0):
        entries[LINE] = replace(line, read_ms=line.read_ms | {topic: at_ms})


def _line_up(entries: Entries, task_id: str, at_ms: int) -> None:
    line = _line(entries)
    chunk = _chunk(entries, line.last)
    if task_id in chunk.tasks:
        tasks = chunk.tasks
    elif len(chunk.tasks) < CHUNK_TASKS_MAX:
        tasks = [*chunk.tasks, task_id]
    else:
        entries[LINE] = line = replace(line, last=line.last + 1)
        chunk, tasks = Chunk(), [task_id]
    entries[_chunk_key(line.last)] = Chunk(tasks, max(chunk.until_ms, at_ms))


def _sweep(entries: Entries) -> None:
    """Forget those whose time has come, or who are too many."""
    for _ in range(SWEPT_CHUNKS_MAX):
        line = _line(entries)
        chunk = _chunk(entries, line.first)
        is_full = line.last - line.first >= CHUNKS_MAX
        is_due = is_full or chunk.until_ms + REMEMBERED_MS <= line.read_to_ms
        if not is_due or (not chunk.tasks and line.first == line.last):
            return
        count = sum(
            _forget(entries, task_id, line.read_to_ms, early=is_full) for task_id in chunk.tasks
        )
        entries.pop(_chunk_key(line.first), None)
        first = line.first + 1
        entries[LINE] = replace(
            line, first=first, last=max(line.last, first), dropped=line.dropped + count
        )


def _forget(entries: Entries, task_id: str, read_to_ms: int, *, early: bool) -> bool:
    """Forget a task, if it still has to go; tell whether that was before its time."""
    watch = _watch(entries, task_id)
    if watch is None:
        return False
    if is_forgettable(watch, read_to_ms) or is_stray(watch):
        del entries[_key(task_id)]
        return False
    if early and watch.ended.place > watch.began:
        del entries[_key(task_id)]
        return True
    return False
