"""Dead letters as people name, list and read them.

A letter's number is the place of the record that was refused, `PARTITION:OFFSET` of `events`, or with
the topic before it, of what an agent reads: it never changes, and whoever pastes it names both.
"""

import heapq
from collections.abc import AsyncIterator

from msgspec import Struct

from schemas.decode import Headers, Refusal, is_binary_mode, structured
from schemas.envelope import Envelope, rfc3339
from schemas.errors import InvalidFieldError
from schemas.letters import original_bytes, original_headers
from schemas.outputs import DeadLetter, DeadLetterDetail, DeadLetterHeader
from schemas.topics import Topic
from streams.cli.exits import AnswerIsNoError
from streams.cli.reading import Log

NUMBER_ALLOWED = (
    "PARTITION:OFFSET of the refused record, such as 0:42 or executions/0:42, "
    "as `stoploss dead-letters` lists it"
)
DIGITS_MAX = 18  # of 63 bits
# A letter has the ledger's clock as its append time, and the broker's in it: so far they may differ.
CLOCKS_APART_MS = 3_600_000


class LetterNumber(Struct, frozen=True, order=True):
    """The place of a refused record: in `events`, or in what an agent reads."""

    partition: int
    offset: int
    topic: str = Topic.EVENTS.value

    def __str__(self) -> str:
        place = f"{self.partition}:{self.offset}"
        return place if self.is_event else f"{self.topic}/{place}"

    @property
    def is_event(self) -> bool:
        """Whether the ledger has refused it, not an agent."""
        return self.topic == Topic.EVENTS


class Letter(Struct, frozen=True):
    """A dead letter, with the key of its record, which is the refused record's."""

    number: LetterNumber
    key: bytes | None
    envelope: Envelope[DeadLetter]

    @property
    def data(self) -> DeadLetter:
        """What it says."""
        return self.envelope.data


class LetterFilter(Struct, frozen=True):
    """Which letters are meant; None leaves nothing out."""

    refused_for: str | None = None
    since_ms: int | None = None

    def takes(self, letter: Envelope[DeadLetter]) -> bool:
        """Whether a letter is meant."""
        if self.refused_for is not None and letter.data.reason != self.refused_for:
            return False
        return self.since_ms is None or letter.time >= rfc3339(self.since_ms)


class LetterRow(Struct, frozen=True, kw_only=True):
    """One line of `stoploss dead-letters`; `time` is when it was refused, by the partition's clock."""

    number: str
    time: str
    reason: str
    detail: DeadLetterDetail
    task_id: str | None
    partition: int
    offset: int


class LettersAnswer(Struct, frozen=True):
    """What `stoploss dead-letters` shows: the newest last; `count` is of all that match."""

    letters: list[LetterRow]
    count: int


class LetterAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `stoploss dead-letters show` shows.

    `original` is text where it is UTF-8, else `original_hex` is there. `kept_bytes` of
    `original_bytes` are kept, and `headers` of `headers_count`.
    """

    number: str
    time: str
    reason: str
    detail: DeadLetterDetail
    task_id: str | None
    topic: str
    partition: int
    offset: int
    key: str | None
    headers: list[DeadLetterHeader]
    headers_count: int
    original: str | None = None
    original_hex: str | None = None
    kept_bytes: int
    original_bytes: int


class UnknownLetterError(AnswerIsNoError):
    """No dead letter has this number, or no longer."""

    def __init__(self, number: LetterNumber) -> None:
        super().__init__(
            f"N: {number}: no dead letter is about this record, or none any more; "
            "`stoploss dead-letters` lists them"
        )


class UnreadableLetterError(AnswerIsNoError):
    """What a letter keeps of its record is not what a ledger writes."""

    def __init__(self, number: LetterNumber, why: str) -> None:
        super().__init__(f"{number}: what was kept of the record cannot be read: {why}")


def letter_number(text: str) -> LetterNumber:
    """Return what a number means.

    Raises:
        InvalidFieldError: it is none.
    """
    topic, has_topic, place = text.rpartition("/")
    partition, _, offset = place.partition(":")
    parts = (partition, offset)
    are_numbers = all(
        part.isascii() and part.isdigit() and len(part) <= DIGITS_MAX for part in parts
    )
    if not are_numbers or (has_topic and not topic):
        raise InvalidFieldError("N", text, NUMBER_ALLOWED)
    return LetterNumber(int(partition), int(offset), topic or Topic.EVENTS.value)


async def matching(log: Log, which: LetterFilter) -> AsyncIterator[Letter]:
    """Yield the letters that are meant, of one partition after the other."""
    for partition in log.partitions:
        first = None
        if which.since_ms is not None:
            reader = log.reader(Topic.DEAD_LETTERS, partition)
            first = await reader.offset_since(which.since_ms - CLOCKS_APART_MS)
        async for record, envelope in log.letters(partition, first):
            if which.takes(envelope):
                yield Letter(_number(log, envelope.data), record.key, envelope)


def _number(log: Log, data: DeadLetter) -> LetterNumber:
    place = data.input
    topic = place.topic.removeprefix(log.settings.topic_prefix)
    return LetterNumber(place.partition, place.offset, topic)


async def list_letters(log: Log, which: LetterFilter, limit: int) -> LettersAnswer:
    """Return the newest letters that are meant, the newest last."""
    newest: list[tuple[str, LetterNumber, LetterRow]] = []
    count = 0
    async for letter in matching(log, which):
        count += 1
        heapq.heappush(newest, (letter.envelope.time, letter.number, _row(letter)))
        if len(newest) > limit:
            heapq.heappop(newest)
    return LettersAnswer([row for _, _, row in sorted(newest, key=lambda each: each[:2])], count)


async def find_letter(log: Log, number: LetterNumber) -> Letter:
    """Return one letter.

    Raises:
        UnknownLetterError: there is none.
    """
    if number.partition in log.partitions:
        async for record, envelope in log.letters(number.partition):
            if _number(log, envelope.data) == number:
                return Letter(number, record.key, envelope)
    raise UnknownLetterError(number)


def letter_answer(letter: Letter) -> LetterAnswer:
    """Return everything about a letter."""
    data, kept = letter.data, value_of(letter)
    try:
        text = kept.decode()
    except UnicodeDecodeError:
        text = None
    return LetterAnswer(
        number=str(letter.number),
        time=letter.envelope.time,
        reason=data.reason,
        detail=data.detail,
        task_id=data.task_id,
        topic=data.input.topic,
        partition=data.input.partition,
        offset=data.input.offset,
        key=data.input.key,
        headers=data.headers,
        headers_count=data.headers_count or len(data.headers),
        original=text,
        original_hex=kept.hex() if text is None else None,
        kept_bytes=len(kept),
        original_bytes=data.original_bytes or len(kept),
    )


def editable(letter: Letter) -> bytes:
    """Return the event to be corrected: in structured mode, as far as its bytes allow that."""
    value, headers = value_of(letter), headers_of(letter)
    if is_binary_mode(headers):
        event = structured(value, headers)
        if not isinstance(event, Refusal):
            return event
    return value


def value_of(letter: Letter) -> bytes:
    """Return the bytes of the refused record, as far as they were kept.

    Raises:
        UnreadableLetterError: they are not there as they should be.
    """
    try:
        return original_bytes(letter.data.original)
    except ValueError as error:
        raise UnreadableLetterError(letter.number, str(error)) from None


def headers_of(letter: Letter) -> Headers:
    """Return the headers of the refused record, as far as they were kept.

    Raises:
        UnreadableLetterError: they are not there as they should be.
    """
    try:
        return original_headers(letter.data.headers)
    except ValueError as error:
        raise UnreadableLetterError(letter.number, str(error)) from None


def _row(letter: Letter) -> LetterRow:
    data = letter.data
    return LetterRow(
        number=str(letter.number),
        time=letter.envelope.time,
        reason=data.reason,
        detail=data.detail,
        task_id=data.task_id,
        partition=data.input.partition,
        offset=data.input.offset,
    )
