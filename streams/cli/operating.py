"""An operator's event: written where its task lives, or to every partition, and its outcome seen.

A transaction's markers reach its partitions one after the other. So when `tasks` shows that an
event was folded, what it caused elsewhere may be written and not yet visible: the other topics are
read up to what is written at that moment, open transactions included.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from schemas.audit import Audit
from schemas.decode import Refusal, decode_event
from schemas.envelope import Envelope, rfc3339
from schemas.errors import InvalidFieldError, UnavailableError
from schemas.events import partition_subject
from schemas.fields import NAME_LENGTH_MAX, Mode, Verdict
from schemas.outputs import DeadLetterDetail, Decision, PolicyRef
from schemas.refusal import UNREADABLE
from schemas.state import PartitionStateData, TaskStateData
from schemas.topics import Topic
from streams.cli.exits import AnswerIsNoError
from streams.cli.facts import Standing, standing
from streams.cli.options import user
from streams.cli.reading import LedgerView, Log, Seen, decode_decision
from streams.insight.audit_trail import TYPE as AUDIT_TYPE
from streams.kafka.ports import Record
from streams.kafka.together import write_together

# Several heartbeats long: without one nobody waits for a ledger any longer.
WITHOUT_LEDGER_S = 3.0
POLL_S = 0.1

_ENCODER = msgspec.json.Encoder(decimal_format="number")


# Says what an operator did, given what holds before.
Noted = Callable[[LedgerView], Audit]


class Refused(Struct, frozen=True, omit_defaults=True):
    """Why the ledger did not take an event."""

    reason: str
    detail: DeadLetterDetail


class Written(Struct, frozen=True):
    """Where an event stands in `events`."""

    partition: int
    offset: int


class TaskOutcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an operator's event did to a task. `decisions` are those that it caused."""

    task_id: str
    event: str
    written: Written
    before: Standing
    after: Standing
    decisions: list[Decision] = []


class PartitionOutcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What holds in a partition after an event for all of it; `decisions` counts by verdict."""

    partition: int
    written: Written
    mode: Mode
    policy: PolicyRef | None = None
    decisions: dict[Verdict, int] = {}


class AllOutcome(Struct, frozen=True, kw_only=True):
    """What an event for every partition did."""

    event: str
    partitions: list[PartitionOutcome]


class UnknownTaskError(AnswerIsNoError):
    """The ledger knows no such task, or no longer."""

    def __init__(self, task_id: str) -> None:
        super().__init__(
            f"TASK: {task_id!r:.220} is not known to the ledger; "
            "`stoploss tasks --all` lists those that are"
        )


class RefusedEventError(AnswerIsNoError):
    """The ledger refused an operator's event: it stands in `dead-letters`."""

    def __init__(self, refused: Refused, written: Written) -> None:
        detail = refused.detail
        allowed = f"; use {detail.allowed}" if detail.allowed else ""
        super().__init__(
            f"{detail.field}: {detail.value} was refused by the ledger ({refused.reason})"
            f"{allowed} [partition {written.partition} offset {written.offset}]"
        )
        self.refused = refused


def find_task(view: LedgerView, task_id: str) -> Seen:
    """Return a task's state.

    Raises:
        UnknownTaskError: there is none.
    """
    if (seen := view.tasks.get(task_id)) is None:
        raise UnknownTaskError(task_id)
    return seen


async def operate_on_task(
    log: Log,
    task_id: str,
    kind: str,
    data: Struct,
    timeout_s: float,
    check: Callable[[TaskStateData], None] = lambda _: None,
) -> TaskOutcome:
    """Write an event about a task that the ledger knows; return what it did.

    Args:
        log: all topics.
        task_id: its subject.
        kind: its CloudEvents type.
        data: of the event.
        timeout_s: how long the ledger may take.
        check: raises where the task, as it is, is none to write this event for.

    Raises:
        UnknownTaskError: the ledger knows no such task.
        RefusedEventError: the ledger refused the event.
        UnavailableError: Kafka or the ledger does not answer in time.
    """
    view = await log.ledger_view()
    seen = find_task(view, task_id)
    check(seen.state)
    root = _root(view, seen.state)
    record = operator_record(log, kind, task_id, root, seen.partition, data)
    watches = await watch_outputs(log, [seen.partition])
    written = await _write(log, [record], timeout_s)
    await until_folded(log, view, watches, written, timeout_s)
    await raise_if_refused(log, watches, written)
    decisions = await _caused(log, watches[0], written[0])
    return TaskOutcome(
        task_id=task_id,
        event=kind,
        written=written[0],
        before=standing(seen.state),
        after=standing(find_task(view, task_id).state),
        decisions=[each for each in decisions if each.task_id == task_id],
    )


async def operate_on_all(
    log: Log, kind: str, data: Struct, timeout_s: float, noted: Noted
) -> AllOutcome:
    """Write an event to every partition, and its entry in `audit`, in one transaction.

    Args:
        log: all topics.
        kind: its CloudEvents type.
        data: of the event.
        timeout_s: how long the ledgers may take.
        noted: the entry, given what holds before; nothing is known of that without a ledger.

    Returns:
        What it did in each partition.

    Raises:
        RefusedEventError: a ledger refused the event.
        UnavailableError: Kafka or a ledger does not answer in time.
    """
    partitions = list(log.partitions)
    # Without a ledger nobody has decided yet what holds, and nothing should delay what we write.
    before = LedgerView()
    # A ledger that has just begun appends the built-in policy: it would come after what we write.
    if set(await log.heartbeats()) >= set(partitions):
        before = await until_started(log, timeout_s)
    operation, view = secrets.token_hex(16), LedgerView()
    records = [
        operator_record(
            log,
            kind,
            partition_subject(each),
            partition_subject(each),
            each,
            data,
            event_id=f"{operation}-{each}",
        )
        for each in partitions
    ]
    watches = await watch_outputs(log, partitions)
    entry = _audit_record(log, operation, noted(before))
    *written, _ = await _write(log, [*records, entry], timeout_s)
    await until_folded(log, view, watches, written, timeout_s)
    await raise_if_refused(log, watches, written)
    outcomes = []
    for watch, at in zip(watches, written, strict=True):
        counts: dict[Verdict, int] = {}
        for decision in await _caused(log, watch, at):
            counts[decision.verdict] = counts.get(decision.verdict, 0) + 1
        state = view.partitions[watch.partition]
        outcomes.append(
            PartitionOutcome(
                partition=watch.partition,
                written=at,
                mode=state.mode,
                policy=state.policy,
                decisions=counts,
            )
        )
    return AllOutcome(event=kind, partitions=outcomes)


async def until_started(log: Log, within_s: float) -> LedgerView:
    """Wait until the ledger has a policy in every partition, as it has soon after its first start.

    Returns:
        What `tasks` says then.

    Raises:
        UnavailableError: that takes too long.
    """
    try:
        async with asyncio.timeout(within_s):
            while not _has_policies(view := await log.ledger_view(), log.partitions):  # noqa: ASYNC110 - Kafka's, not ours
                await asyncio.sleep(POLL_S)
            return view
    except TimeoutError:
        raise UnavailableError(f"the ledger has not started within {within_s:g} s") from None


def _has_policies(view: LedgerView, partitions: range) -> bool:
    states = view.partitions
    return all(each in states and states[each].policy is not None for each in partitions)


class Watch(Struct, frozen=True):
    """Where the output topics of a partition ended before the event was written."""

    partition: int
    tasks: int
    decisions: int
    dead_letters: int


async def watch_outputs(log: Log, partitions: Sequence[int]) -> list[Watch]:
    """Note where the outputs of `partitions` end now: what an event causes comes after it."""
    return [
        Watch(
            partition,
            *[
                await log.reader(topic, partition).end_offset()
                for topic in (Topic.TASKS, Topic.DECISIONS, Topic.DEAD_LETTERS)
            ],
        )
        for partition in partitions
    ]


def _root(view: LedgerView, state: TaskStateData) -> str:
    """Return the outermost ancestor that is known: its id is the key of the whole family."""
    root, met = state.task_id, {state.task_id}
    while (parent := state.parent_task_id) is not None and parent not in met:
        root = parent
        met.add(parent)
        if (seen := view.tasks.get(parent)) is None:
            break
        state = seen.state
    return root


def operator_record(
    log: Log,
    kind: str,
    subject: str,
    root: str,
    partition: int,
    data: Struct,
    *,
    event_id: str | None = None,
) -> Record:
    """Return an operator's event as a record of `events`, keyed by the root task's id.

    Its id is one by chance where none is given.

    Raises:
        InvalidFieldError: an option does not fit the contract.
    """
    source = f"stoploss-cli/{user()}@{secrets.token_hex(4)}"[-NAME_LENGTH_MAX:]
    event = {
        "specversion": "1.0",
        "id": event_id or secrets.token_hex(16),
        "source": source,
        "type": kind,
        "subject": subject,
        "time": _now(),
        "data": _present(data),
    }
    if root != subject:
        event["partitionkey"] = root
    value = _ENCODER.encode(event)
    decoded = decode_event(value)
    if isinstance(decoded, Refusal):
        detail = decoded.detail
        field = detail.field.removeprefix("data.")
        raise InvalidFieldError(f"--{field}", detail.value, detail.allowed)
    return Record(log.settings.topic(Topic.EVENTS), partition, root.encode(), value)


def _audit_record(log: Log, operation: str, entry: Audit) -> Record:
    """Return an entry as a record of `audit`; its id follows from that of the events it is about."""
    envelope = Envelope(
        id=f"audit-{operation}",
        source=f"stoploss-cli/{user()}"[-NAME_LENGTH_MAX:],
        type=AUDIT_TYPE,
        subject=entry.subject,
        time=_now(),
        data=entry,
    )
    topic = log.settings.topic(Topic.AUDIT)
    return Record(topic, 0, entry.subject.encode(), _ENCODER.encode(envelope))


def held_before(view: LedgerView, **values: Callable[[PartitionStateData], str]) -> dict[str, str]:
    """Return what holds in the partitions, by name; where they differ, each value once."""
    found = {
        name: ", ".join(sorted({value(state) for state in view.partitions.values()} - {""}))
        for name, value in values.items()
    }
    return {name: value for name, value in found.items() if value}


def _now() -> str:
    return rfc3339(time.time_ns() // 1_000_000)


def _present(data: Struct) -> dict[str, object]:
    values = ((name, getattr(data, name)) for name in data.__struct_fields__)
    return {name: value for name, value in values if value is not None}


async def _write(log: Log, records: Sequence[Record], timeout_s: float) -> list[Written]:
    writer = f"cli-{secrets.token_hex(8)}"
    offsets = await write_together(log.settings, records, writer, timeout_s)
    return [
        Written(record.partition, offset) for record, offset in zip(records, offsets, strict=True)
    ]


async def until_folded(
    log: Log,
    view: LedgerView,
    watches: Sequence[Watch],
    written: Sequence[Written],
    timeout_s: float,
) -> None:
    """Bring `view` up to date until every event is folded.

    Raises:
        UnavailableError: no ledger is running, or it takes too long; it says which.
    """
    began_ms = time.time_ns() // 1_000_000
    missing = dict(zip(watches, written, strict=True))
    for within_s in (min(WITHOUT_LEDGER_S, timeout_s), timeout_s - WITHOUT_LEDGER_S):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                for watch, at in list(missing.items()):
                    await folded_in(log, view, watch, at)
                    del missing[watch]
        if not missing:
            return
        beats = await log.heartbeats()
        silent = [
            each.partition
            for each in missing
            if each.partition not in beats or beats[each.partition].at_ms < began_ms
        ]
        if silent:
            raise _unfolded("no ledger is running", silent)
    late = [each.partition for each in missing]
    raise _unfolded(f"the ledger did not get to it within {timeout_s:g} s", late)


def _unfolded(why: str, partitions: Sequence[int]) -> UnavailableError:
    numbers = ", ".join(str(each) for each in sorted(partitions))
    where = f"partition {numbers}" if len(partitions) == 1 else f"partitions {numbers}"
    return UnavailableError(
        f"{why} ({where}); the event is written and counts as soon as a ledger reads "
        "it: do not repeat it; `stoploss doctor` shows more"
    )


async def folded_in(log: Log, view: LedgerView, watch: Watch, at: Written) -> None:
    """Bring `view` up to date until an event is folded, however long that takes."""
    reader = log.reader(Topic.TASKS, watch.partition, watch.tasks)
    while True:
        state = view.partitions.get(watch.partition)
        if state is not None and state.next_offset > at.offset:
            return
        for chunk in await reader.read():
            for record in chunk.records:
                view.take(watch.partition, record)


async def raise_if_refused(log: Log, watches: Sequence[Watch], written: Sequence[Written]) -> None:
    """Look for events that were folded among the dead letters.

    Raises:
        RefusedEventError: the first that stands there.
    """
    for watch, at in zip(watches, written, strict=True):
        await until_visible(log, Topic.DEAD_LETTERS, watch.partition)
        for letter in await log.refused_events(watch.partition, watch.dead_letters):
            if letter.input.offset == at.offset:
                raise RefusedEventError(Refused(letter.reason, letter.detail), at)


async def _caused(log: Log, watch: Watch, at: Written) -> list[Decision]:
    await until_visible(log, Topic.DECISIONS, watch.partition)
    found = []
    async for record in log.records(Topic.DECISIONS, watch.partition, watch.decisions):
        if record.value is not None:
            with contextlib.suppress(*UNREADABLE):
                decision = decode_decision(record.value).data
                if decision.input.offset == at.offset:
                    found.append(decision)
    return found


async def until_visible(log: Log, topic: Topic, partition: int) -> None:
    """Wait until all that is written to a partition now can be read."""
    reader = log.reader(topic, partition)
    written = await reader.written_offset()
    while await reader.end_offset() < written:  # noqa: ASYNC110 - a broker's, not ours
        await asyncio.sleep(0.01)
