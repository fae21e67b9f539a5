"""What is known of the tasks of a partition, and which reports are due because of it.

Facts are told in whatever order the topics are read. Where those of a task that has ended change, or
of a task below one, a `Due` has all that its report is made of.

A record may come twice, and a crash may have kept some changes of a batch, a prefix in the order of the
keys: `where` stands last. What it has counted is in all entries and is not told again.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from msgspec import Struct

from schemas.alerts import Origin
from schemas.envelope import Envelope, epoch_ms_of
from schemas.outputs import Breach, Decision, ExecutionRecord, Lifecycle
from schemas.topics import DAY_MS, Topic
from streams.insight.forgetting import (
    FORGOTTEN_MAX,
    LISTED,
    MINUTE_MS,
    Kept,
    Listed,
    forget,
    forget_early,
    list_at,
)
from streams.insight.reports import Below, used_below
from streams.insight.task_facts import (
    TaskFacts,
    tell_breach,
    tell_child,
    tell_decision,
    tell_execution,
    tell_lifecycle,
)

TOPICS = (Topic.LIFECYCLE, Topic.EXECUTIONS, Topic.BREACHES, Topic.DECISIONS)
# The ledger forgets a task a day after its end: then nothing more comes, by the time of all topics. One
# that has been silent for a month is not waited for.
ENDED_KEPT_MS = 25 * 3_600_000
OPEN_KEPT_MS = 31 * DAY_MS
SILENT_MS = 30 * DAY_MS
# Of one partition; from three quarters on, tasks that have ended are forgotten early.
ENTRIES_MAX = 20_000
ENTRIES_FULL = ENTRIES_MAX * 3 // 4

TASK, WHERE = "task/", "where"
assert LISTED < TASK < WHERE


class Task(Struct, tag="task"):
    """One task; `at_ms` is the time of the last record that changed what is known of it."""

    facts: TaskFacts
    at_ms: int


class Where(Struct, tag="where", kw_only=True, omit_defaults=True):
    """How far a partition has come in each topic, by offset and by the records' time.

    `minute` is the first one whose list has not been looked at. Tasks that found no room are counted,
    and those that were forgotten early.
    """

    offsets: dict[str, int] = {}
    clocks: dict[str, int] = {}
    minute: int | None = None
    refused: int = 0
    forgotten_early: int = 0


Entry = Task | Listed | Where


class Due(Struct, frozen=True, kw_only=True, tag="due", omit_defaults=True):
    """What the report of a task that has ended is made of, as far as it is known.

    `at_ms` is the time of the last record that is in it.
    """

    facts: TaskFacts
    below: Below = Below()
    at_ms: int


class Tick(Struct, frozen=True, tag="tick"):
    """It is as late as that, and all that was there then has been told."""

    at_ms: int


Said = Due | Tick
Record = Envelope[Lifecycle] | Envelope[ExecutionRecord] | Envelope[Breach] | Envelope[Decision]


def fold_told(kept: Kept, origin: Origin, record: Record) -> None:
    """Tell the facts of a task one record.

    Args:
        kept: entries of the record's partition.
        origin: where it stands.
        record: what it says.
    """
    where: Where = kept.get(WHERE) or Where()
    if origin.offset <= where.offsets.get(origin.topic, -1):
        return
    at_ms = epoch_ms_of(record.time)
    where.offsets[origin.topic] = origin.offset
    where.clocks[origin.topic] = max(at_ms, where.clocks.get(origin.topic, 0))
    if where.minute is None:
        where.minute = at_ms // MINUTE_MS
    if (task_id := record.data.task_id) is not None:
        _tell(kept, where, task_id, at_ms, record)
    kept[WHERE] = where


def _tell(kept: Kept, where: Where, task_id: str, at_ms: int, record: Any) -> None:  # noqa: ANN401 - one of `Record`, by its data
    match record.data:
        case Lifecycle(parent_task_id=parent_id):
            _change(kept, where, task_id, at_ms, tell_lifecycle, record)
            if parent_id is not None:
                _change(kept, where, parent_id, at_ms, tell_child, record)
        case ExecutionRecord():
            _change(kept, where, task_id, at_ms, tell_execution, record)
        case Breach():
            _change(kept, where, task_id, at_ms, tell_breach, record)
        case _:
            _change(kept, where, task_id, at_ms, tell_decision, record)


def _change(kept: Kept, where: Where, task_id: str, at_ms: int, tell: Any, record: Any) -> None:  # noqa: ANN401 - one of the five, and what it takes
    task = kept.get(TASK + task_id)
    is_new = task is None
    if task is None:
        if len(kept) >= ENTRIES_MAX:
            where.refused += 1
            return
        task = Task(TaskFacts(task_id=task_id), at_ms)
    if tell(task.facts, record):
        task.at_ms = max(task.at_ms, at_ms)
        kept[TASK + task_id] = task
        if is_new:
            minute = (at_ms + ENDED_KEPT_MS) // MINUTE_MS
            list_at(kept, task_id, max(minute, where.minute or 0))


def finish(kept: Kept, changed: Collection[str]) -> list[Due]:
    """Return what is due after a batch that has changed some entries, and forget what is old."""
    if WHERE not in changed:
        return []
    where: Where = kept[WHERE]
    changed = [key for key in changed if key.startswith(TASK)]
    due = [_due(kept, one) for one in _ended(kept, changed)]
    _forget(kept, where, frozenset(changed))
    kept[WHERE] = where
    return due


def _ended(kept: Kept, changed: Iterable[str]) -> Iterator[str]:
    """Return the tasks that have ended and have changed, or one below them has; each once."""
    found: dict[str, None] = {}
    for key in changed:
        met: set[str] = set()
        task_id: str | None = key.removeprefix(TASK)
        while task_id is not None and task_id not in met:
            met.add(task_id)
            task: Task | None = kept.get(TASK + task_id)
            if task is not None and task.facts.is_ended:
                found[task_id] = None
            task_id = None if task is None else task.facts.parent_task_id
    yield from found


def _due(kept: Kept, task_id: str) -> Due:
    task: Task = kept[TASK + task_id]
    below = _below(kept, task)
    facts = task.facts
    told = {name: getattr(facts, name) for name in facts.__struct_fields__ if name != "children"}
    return Due(
        facts=TaskFacts(**told),
        below=used_below(each.facts for each in below),
        at_ms=max(each.at_ms for each in (task, *below)),
    )


def _below(kept: Kept, task: Task) -> list[Task]:
    """Return all tasks below one, as far as they are known."""
    found: dict[str, Task] = {task.facts.task_id: task}
    waiting = [task]
    while waiting:
        for child_id in waiting.pop().facts.children:
            child: Task | None = kept.get(TASK + child_id)
            if child is not None and child_id not in found:
                found[child_id] = child
                waiting.append(child)
    return list(found.values())[1:]


def _forget(kept: Kept, where: Where, changed: frozenset[str]) -> None:
    """Forget tasks whose time has come; never one that the batch has changed.

    After a crash that batch is told again: to entries that are gone it would tell the rest alone.
    """
    assert where.minute is not None
    newest_ms = max(where.clocks.values())
    slowest_ms = min(where.clocks.get(topic, 0) for topic in TOPICS)
    now_ms = max(slowest_ms, newest_ms - SILENT_MS)

    def look(task_id: str, minute: int) -> int | None:
        task: Task | None = kept.get(TASK + task_id)
        if task is None:
            return None
        if TASK + task_id in changed:
            return now_ms // MINUTE_MS + 1
        if task.facts.is_ended:
            return (task.at_ms + ENDED_KEPT_MS) // MINUTE_MS
        is_old = (task.at_ms + OPEN_KEPT_MS) // MINUTE_MS <= minute
        return minute if is_old else minute + ENDED_KEPT_MS // MINUTE_MS

    def forget_one(task_id: str) -> None:
        del kept[TASK + task_id]

    def forget_ended(task_id: str) -> bool:
        task: Task | None = kept.get(TASK + task_id)
        if task is None or not task.facts.is_ended or TASK + task_id in changed:
            return False
        del kept[TASK + task_id]
        return True

    where.minute = forget(kept, where.minute, now_ms // MINUTE_MS, look, forget_one)
    if len(kept) > ENTRIES_FULL:
        where.forgotten_early += forget_early(kept, where.minute, forget_ended, FORGOTTEN_MAX)
