"""When the report of a task that has ended is written, and written again.

What it is made of comes piece by piece, since topics are read in any order. So a report waits until
nothing has come for it for a moment of the ticks' time. A tick comes after all that was there at its time
has been told, however far behind its reader was: the first report, which is the notice that the task has
ended, is whole then. What comes later makes the next revision, if it says anything else.

A record may come twice, and a crash may have kept some changes of a batch, a prefix in the order of the
keys: `where` stands last, and what it has counted is not told again.
"""

from collections.abc import Callable, Iterator, MutableMapping
from hashlib import blake2b
from typing import Any, assert_never

import msgspec
from msgspec import Struct

from schemas.alerts import Origin
from schemas.baselines import Baseline
from schemas.envelope import Envelope, rfc3339
from schemas.feedback import Feedback
from schemas.fields import Importance
from schemas.letters import AGENTS_SOURCE
from schemas.reports import Report
from schemas.topics import DAY_MS
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
from streams.insight.gathering import ENDED_KEPT_MS, Due, Said, Tick
from streams.insight.reports import Below, Material, compose, report_link
from streams.insight.similar import Baselines
from streams.insight.task_facts import BLOCKS_MAX, TaskFacts, encode_facts

QUIET_MS = 1_000  # a report waits so long for more
# Longer than changes can come: else a report would be written as the first one for a second time.
KEPT_MS = ENDED_KEPT_MS + 3_600_000
ANSWERS_KEPT_MS = 31 * DAY_MS
ENTRIES_MAX = 10_000
# All that waits is one entry: from so many on, those that wait longest are not waited for any more, and
# from twice as many on there is no room for the report of one that is new.
PENDING_MAX = 5_000
# Of one batch: as much as is composed in a fraction of the time that a batch may take.
REPORTS_MAX, WORK_MAX = 200, 4_000

BASELINE, DONE, PENDING, TASK, WHERE = "baseline/", "done/", "pending", "task/", "where"
assert BASELINE < DONE < LISTED < PENDING < TASK < WHERE

_ENCODE = msgspec.json.Encoder(decimal_format="number").encode


class Known(Struct, tag="known"):
    """The last record of a class of tasks."""

    baseline: Baseline


class Answer(Struct, frozen=True):
    """What somebody said of a block."""

    false_positive: bool
    by: str


class Held(Struct, tag="held", kw_only=True, omit_defaults=True):
    """What the next revision of a report is made of; without facts, only answers about the task.

    `at_ms` is when something came last, `happened_ms` the time of the last record that is in it.
    """

    at_ms: int
    happened_ms: int = 0
    facts: TaskFacts | None = None
    below: Below = Below()
    answers: dict[str, Answer] = {}


class Done(Struct, tag="done", frozen=True):
    """The last report of a task: digests of what it was made of, and of what it said.

    `started` names the life of the task: its id may be used again.
    """

    revision: int
    material: str
    report: str
    started: str | None
    at_ms: int


class Pending(Struct, tag="pending"):
    """Tasks whose report may have changed, and when something came for it last."""

    since_ms: dict[str, int] = {}


class Where(Struct, tag="where", kw_only=True, omit_defaults=True):
    """How far the topics are read, and the time by ticks."""

    offsets: dict[str, int] = {}
    tick_ms: int = 0
    minute: int | None = None
    forgotten_early: int = 0
    refused: int = 0


Entry = Known | Held | Done | Pending | Listed | Where
Entries = MutableMapping[str, Any]


def fold_said(kept: Entries, origin: Origin, written_ms: int, said: Said) -> None:
    """Take over what is due, or that time passes; `written_ms` is when it was said."""
    where = _new_to(kept, origin)
    if where is None:
        return
    match said:
        case Due():
            _hold(kept, where, said, written_ms)
        case Tick():
            where.tick_ms = max(where.tick_ms, said.at_ms)
        case _:
            assert_never(said)
    kept[WHERE] = where


def _hold(kept: Entries, where: Where, due: Due, written_ms: int) -> None:
    task_id = due.facts.task_id
    held: Held | None = kept.get(TASK + task_id)
    pending: Pending = kept.get(PENDING) or Pending()
    if task_id not in pending.since_ms and len(pending.since_ms) >= 2 * PENDING_MAX:
        where.refused += 1
        return
    if held is None:
        _list(kept, where, task_id, written_ms)
    kept[TASK + task_id] = Held(
        at_ms=written_ms,
        happened_ms=due.at_ms,
        facts=due.facts,
        below=due.below,
        answers={} if held is None else held.answers,
    )
    _await(kept, task_id, written_ms)


def fold_baseline(kept: Entries, origin: Origin, record: Envelope[Baseline]) -> None:
    """Remember what similar tasks use; reports that are written are not changed by it."""
    where = _new_to(kept, origin)
    if where is not None:
        one = record.data
        kept[_class(one.phase, one.complexity, one.importance)] = Known(one)
        kept[WHERE] = where


def fold_feedback(
    kept: Entries, origin: Origin, written_ms: int, record: Envelope[Feedback]
) -> None:
    """Remember what somebody says of a block; the task may be open, or its end not be told yet."""
    where = _new_to(kept, origin)
    if where is None:
        return
    said = record.data
    held: Held | None = kept.get(TASK + said.task_id)
    if held is None:
        held = Held(at_ms=written_ms)
        _list(kept, where, said.task_id, written_ms)
    answers = held.answers | {said.decision_id: Answer(said.false_positive, said.by)}
    held.answers = dict(list(answers.items())[-BLOCKS_MAX:])
    held.at_ms = written_ms
    kept[TASK + said.task_id] = held
    if held.facts is not None:
        _await(kept, said.task_id, written_ms)
    kept[WHERE] = where


def finish(
    kept: Entries, failed: Callable[[str, Exception], None], template: str | None = None
) -> list[Envelope[Report]]:
    """Return the reports that are ripe by the last tick, and forget what is old.

    Args:
        kept: all entries.
        failed: is told of a task whose report cannot be made: a defect of ours keeps no other back.
        template: of the link to a report; none is given where it is None.
    """
    where: Where | None = kept.get(WHERE)
    if where is None:
        return []
    pending: Pending = kept.get(PENDING) or Pending()
    written: list[Envelope[Report]] = []
    work = 0
    for task_id in list(_ripe(where, pending)):
        if len(written) >= REPORTS_MAX or work >= WORK_MAX:
            break
        del pending.since_ms[task_id]
        kept[PENDING] = pending
        held: Held | None = kept.get(TASK + task_id)
        if held is None or held.facts is None:
            continue
        work += len(held.facts.runs) + len(held.facts.crossings)
        try:
            report = _next_revision(kept, held, held.facts, template)
        except Exception as error:  # noqa: BLE001 - see above
            failed(task_id, error)
            continue
        if report is not None:
            written.append(report)
    _forget(kept, where, pending)
    return written


def _ripe(where: Where, pending: Pending) -> Iterator[str]:
    """Return the tasks that nothing more is to be waited for, the ones that wait longest first."""
    excess = len(pending.since_ms) - PENDING_MAX
    longest = sorted(pending.since_ms.items(), key=lambda each: (each[1], each[0]))
    for place, (task_id, since_ms) in enumerate(longest):
        if place < excess or where.tick_ms - since_ms >= QUIET_MS:
            yield task_id


def _next_revision(
    kept: Entries, held: Held, facts: TaskFacts, template: str | None
) -> Envelope[Report] | None:
    """Return the next report of a task; None where it would say what the last one has said."""
    for decision_id, answer in held.answers.items():
        if (block := facts.blocks.get(decision_id)) is not None:
            block.false_positive, block.answered_by = answer.false_positive, answer.by
    task_id = facts.task_id
    done: Done | None = kept.get(DONE + task_id)
    if done is not None and done.started != facts.started:
        done = None
    material = _digest(encode_facts(facts) + _ENCODE(held.below))
    if done is not None and done.material == material:
        return None  # what similar tasks use has changed at most
    report = compose(
        Material(
            facts=facts,
            baselines=_baselines(kept, facts),
            below=held.below,
            link=report_link(template, task_id),
        )
    )
    digest = _digest(_ENCODE(report))
    is_news = done is None or done.report != digest
    revision = (0 if done is None else done.revision) + is_news
    kept[DONE + task_id] = Done(revision, material, digest, facts.started, held.at_ms)
    if not is_news:
        return None
    return Envelope(
        id=f"report-{task_id}-{facts.started or ''}-{revision}",
        source=AGENTS_SOURCE,
        type="stoploss.report",
        subject=task_id,
        time=rfc3339(held.happened_ms),
        data=msgspec.structs.replace(report, revision=revision),
    )


def _baselines(kept: Entries, facts: TaskFacts) -> Baselines:
    """Return what is known of the classes that a task is compared with."""
    phases = {run.phase for run in facts.runs.values()}
    phases |= {each.cell.phase or "" for each in facts.crossings.values()}
    classes = (
        kept.get(_class(phase, facts.complexity, importance))
        for phase in sorted(phases)
        for importance in Importance
    )
    return Baselines(known.baseline for known in classes if known is not None)


def _forget(kept: Entries, where: Where, pending: Pending) -> None:
    now_minute = where.tick_ms // MINUTE_MS

    def look(task_id: str, minute: int) -> int | None:
        held: Held | None = kept.get(TASK + task_id)
        done: Done | None = kept.get(DONE + task_id)
        if held is None and done is None:
            return None
        if task_id in pending.since_ms:
            return now_minute + 1
        if held is not None and held.facts is None and done is None:
            is_old = (held.at_ms + ANSWERS_KEPT_MS) // MINUTE_MS <= minute
            return minute if is_old else minute + KEPT_MS // MINUTE_MS
        last_ms = max(one.at_ms for one in (held, done) if one is not None)
        return (last_ms + KEPT_MS) // MINUTE_MS

    def forget_one(task_id: str) -> None:
        for key in (TASK + task_id, DONE + task_id):
            if key in kept:
                del kept[key]

    def forget_held(task_id: str) -> bool:
        return _drop(kept, TASK, task_id, pending)

    def forget_done(task_id: str) -> bool:
        return _drop(kept, DONE, task_id, pending)

    if where.minute is None:
        return
    before = kept.get(WHERE), where.minute, where.forgotten_early
    where.minute = forget(kept, where.minute, now_minute, look, forget_one)
    for drop in (forget_held, forget_done):
        if len(kept) > ENTRIES_MAX:
            where.forgotten_early += forget_early(kept, where.minute, drop, FORGOTTEN_MAX)
    if (where.minute, where.forgotten_early) != before[1:]:
        kept[WHERE] = where


def _drop(kept: Entries, kind: str, task_id: str, pending: Pending) -> bool:
    if kind + task_id not in kept or task_id in pending.since_ms:
        return False
    del kept[kind + task_id]
    return True


def _new_to(kept: Entries, origin: Origin) -> Where | None:
    """Return where we are, once a record is counted; None where it had been."""
    where: Where = kept.get(WHERE) or Where()
    if origin.offset <= where.offsets.get(origin.topic, -1):
        return None
    where.offsets[origin.topic] = origin.offset
    return where


def _list(kept: Kept, where: Where, task_id: str, at_ms: int) -> None:
    minute = (at_ms + KEPT_MS) // MINUTE_MS
    if where.minute is None:
        where.minute = at_ms // MINUTE_MS
    list_at(kept, task_id, max(minute, where.minute))


def _await(kept: Entries, task_id: str, since_ms: int) -> None:
    pending: Pending = kept.get(PENDING) or Pending()
    pending.since_ms[task_id] = since_ms
    kept[PENDING] = pending


def _class(phase: str, complexity: str, importance: str) -> str:
    return f"{BASELINE}{phase}/{complexity}/{importance}"


def _digest(value: bytes) -> str:
    return blake2b(value, digest_size=16).hexdigest()
