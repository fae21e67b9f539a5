"""Refused records sent again: which can be, as what, and what became of them.

A record goes to its partition with its key, its headers and its event's id and source, but without
its `sequence`: the ledger has usually counted later events of that source, and would drop it as one
it has seen. So it is told apart by source and id, and counts once however often it is sent.
Who sent it and why stands in headers of its own.
"""

import secrets
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from schemas.decode import Headers, Refusal, decode_event, is_binary_mode
from schemas.errors import InvalidFieldError
from schemas.events import PARTITION_PREFIX, Event
from schemas.outputs import DeadLetterDetail
from schemas.refusal import members_of
from schemas.topics import EVENT_BYTES_MAX, Topic
from streams.cli.exits import AnswerIsNoError
from streams.cli.letters import (
    Letter,
    LetterFilter,
    LetterNumber,
    UnreadableLetterError,
    find_letter,
    headers_of,
    matching,
    value_of,
)
from streams.cli.operating import Watch, Written, until_folded, until_visible, watch_outputs
from streams.cli.reading import LedgerView, Log
from streams.kafka.ports import HeadedRecord
from streams.kafka.together import write_together
from streams.kafka.topics import partition_for

BY_HEADER, REASON_HEADER, LETTER_HEADER = (
    f"stoploss_replayed_{name}" for name in ("by", "reason", "letter")
)
SEQUENCE_HEADER = "ce_sequence"
# One transaction: far from its deadline, and from what a request may hold.
RECORDS_MAX = 500
BYTES_MAX = 8 * 1024 * 1024
# All that one command keeps in memory.
ALL_BYTES_MAX = 64 * 1024 * 1024
OVERRIDES_FIELD = "data.budget_overrides"


class Skipped(Struct, frozen=True):
    """A letter that is not sent, and why not."""

    number: str
    why: str


class Sendable(Struct, frozen=True):
    """A letter, and the record that is sent for it."""

    number: LetterNumber
    time: str
    record: HeadedRecord


class Chosen(Struct, frozen=True):
    """What a replay would send, the oldest first, and what it would not."""

    sendable: list[Sendable]
    skipped: list[Skipped]


class Sent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record that was sent; `refused` where the ledger has refused it again."""

    number: str
    written: Written
    reason: str | None = None
    refused: DeadLetterDetail | None = None


class ReplayAnswer(Struct, frozen=True, kw_only=True):
    """What `stoploss dead-letters replay` did; `would_send` is filled by --dry-run alone."""

    sent: list[Sent] = []
    would_send: list[str] = []
    skipped: list[Skipped] = []


class Why(Struct, frozen=True):
    """Who sends letters again, and why."""

    by: str
    reason: str


async def choose(
    log: Log, numbers: Sequence[LetterNumber], which: LetterFilter, why: Why, limit: int
) -> Chosen:
    """Return what is to be sent: the letters named, else all that match.

    Raises:
        UnknownLetterError: a number is nobody's.
        AnswerIsNoError: one that was named cannot be sent; it says why.
        InvalidFieldError: more than `limit` letters match.
    """
    sendable: list[Sendable] = []
    skipped: list[Skipped] = []
    size_bytes = 0
    if numbers:
        letters = [await find_letter(log, number) for number in dict.fromkeys(numbers)]
        for letter in letters:
            if (obstacle := _obstacle(letter)) is not None:
                raise AnswerIsNoError(f"{letter.number}: {obstacle}")
            sendable.append(_sendable(log, letter, why))
    else:
        async for letter in matching(log, which):
            if (obstacle := _obstacle(letter)) is not None:
                skipped.append(Skipped(str(letter.number), obstacle))
                continue
            sendable.append(_sendable(log, letter, why))
            size_bytes += len(sendable[-1].record.value or b"")
            if len(sendable) > limit or size_bytes > ALL_BYTES_MAX:
                most = f"more than {limit}" if len(sendable) > limit else "too many bytes"
                raise InvalidFieldError(
                    "--limit", most, "a higher one, or --since and --refused-for to choose fewer"
                )
    sendable.sort(key=lambda each: (each.time, each.number))
    return Chosen(sendable, skipped)


async def choose_edited(
    log: Log, number: LetterNumber, value: bytes, file: str, why: Why
) -> Chosen:
    """Return one letter with the event of a file in the place of its own.

    Raises:
        UnknownLetterError: the number is nobody's.
        AnswerIsNoError: an agent has refused it, not the ledger.
        InvalidFieldError: the file holds no event that could be folded.
    """
    letter = await find_letter(log, number)
    if not number.is_event:
        raise AnswerIsNoError(f"{number}: {_obstacle(letter)}")
    event = decode_event(value)
    if isinstance(event, Refusal):
        detail = event.detail
        raise InvalidFieldError(f"{file}: {detail.field}", detail.value, detail.allowed)
    headers = [(name, raw) for name, raw in headers_of(letter) if not is_binary_mode([(name, raw)])]
    key, partition = await _home(log, letter, event)
    record = HeadedRecord(
        log.settings.topic(Topic.EVENTS),
        partition,
        key,
        _without_sequence(value),
        _signed(headers, number, why),
    )
    return Chosen([Sendable(number, letter.envelope.time, record)], [])


async def send(log: Log, chosen: Sequence[Sendable], timeout_s: float) -> list[Sent]:
    """Send records, the oldest first; return what the ledger did with each.

    Raises:
        UnavailableError: Kafka or the ledger does not answer in time. What was sent may be sent
            again: it counts once.
    """
    watches = await watch_outputs(log, sorted({each.record.partition for each in chosen}))
    written: list[Written] = []
    for batch in _batches(chosen):
        writer = f"cli-{secrets.token_hex(8)}"
        records = [each.record for each in batch]
        offsets = await write_together(log.settings, records, writer, timeout_s)
        written += [Written(each.partition, at) for each, at in zip(records, offsets, strict=True)]
    last = {at.partition: at for at in sorted(written, key=lambda at: at.offset)}
    ends = [last[watch.partition] for watch in watches]
    await until_folded(log, LedgerView(), watches, ends, timeout_s)
    refused = await _refused(log, watches)
    return [
        _sent(each, at, refused.get((at.partition, at.offset)))
        for each, at in zip(chosen, written, strict=True)
    ]


def _sent(each: Sendable, at: Written, refused: Refusal | None) -> Sent:
    if refused is None:
        return Sent(number=str(each.number), written=at)
    return Sent(number=str(each.number), written=at, reason=refused.reason, refused=refused.detail)


async def _refused(log: Log, watches: Sequence[Watch]) -> dict[tuple[int, int], Refusal]:
    found = {}
    for watch in watches:
        await until_visible(log, Topic.DEAD_LETTERS, watch.partition)
        for letter in await log.refused_events(watch.partition, watch.dead_letters):
            at = (watch.partition, letter.input.offset)
            found[at] = Refusal(letter.reason, letter.detail)
    return found


def _obstacle(letter: Letter) -> str | None:
    """Return why a letter cannot be sent as it is."""
    data = letter.data
    if not letter.number.is_event:
        return (
            f"is not sent again: an agent has refused it in {letter.number.topic}, where its writer "
            "would have to write it; what the ledger writes is made anew from events"
        )
    if data.original_bytes is not None or data.headers_count is not None:
        return (
            "cannot be sent again: only the first part of it was kept; the whole stands in "
            f"{data.input.topic} partition {data.input.partition} offset {data.input.offset}, "
            "until retention removes it"
        )
    if data.detail.field.startswith(OVERRIDES_FIELD) and data.task_id is not None:
        return "its event counted, without the overrides; `stoploss grant` raises limits"
    try:
        value, headers = value_of(letter), headers_of(letter)
    except UnreadableLetterError as error:
        return str(error).removeprefix(f"{letter.number}: ")
    if len(value) > EVENT_BYTES_MAX:
        return (
            f"cannot be sent again: {len(value)} bytes, and an event has at most {EVENT_BYTES_MAX}; "
            "correct its sender, or send a smaller one with --file"
        )
    event = decode_event(value, headers)
    if isinstance(event, Refusal):
        detail = event.detail
        return (
            f"would be refused again ({event.reason}): {detail.field}: {detail.value}; "
            f"use {detail.allowed}; `show --original` prints it, --file sends it corrected"
        )
    return None


def _sendable(log: Log, letter: Letter, why: Why) -> Sendable:
    headers = [(name, raw) for name, raw in headers_of(letter) if name != SEQUENCE_HEADER]
    value = value_of(letter)
    record = HeadedRecord(
        log.settings.topic(Topic.EVENTS),
        letter.number.partition,
        letter.key,
        value if is_binary_mode(headers) else _without_sequence(value),
        _signed(headers, letter.number, why),
    )
    return Sendable(letter.number, letter.envelope.time, record)


async def _home(log: Log, letter: Letter, event: Event) -> tuple[bytes | None, int]:
    """Return key and partition of a corrected event: its own, where the task is another one now."""
    root = event.partitionkey or event.subject
    if letter.key == root.encode():
        return letter.key, letter.number.partition
    if event.subject.startswith(PARTITION_PREFIX):
        return letter.key, letter.number.partition
    seen = (await log.ledger_view()).tasks.get(event.subject)
    partition = (
        partition_for(root.encode(), len(log.partitions)) if seen is None else seen.partition
    )
    return root.encode(), partition


def _signed(headers: Headers, number: LetterNumber, why: Why) -> Headers:
    """Return headers with who and why; those of an earlier replay go."""
    ours = {BY_HEADER: why.by, REASON_HEADER: why.reason, LETTER_HEADER: str(number)}
    kept = [(name, value) for name, value in headers if name not in ours]
    return [*kept, *((name, text.encode()) for name, text in ours.items())]


def _without_sequence(value: bytes) -> bytes:
    members = members_of(value)
    if members is None or "sequence" not in members:
        return value
    return msgspec.json.encode({name: raw for name, raw in members.items() if name != "sequence"})


def _batches(chosen: Sequence[Sendable]) -> list[list[Sendable]]:
    batches: list[list[Sendable]] = []
    size_bytes = 0
    for each in chosen:
        size_bytes += len(each.record.value or b"")
        if not batches or len(batches[-1]) >= RECORDS_MAX or size_bytes > BYTES_MAX:
            batches.append([])
            size_bytes = len(each.record.value or b"")
        batches[-1].append(each)
    return batches
