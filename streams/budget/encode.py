"""Effects become bytes: the CloudEvents envelope, the id, and the dead letter's original.

The ledger writes what comes out here, `verify` compares with it. Every byte follows from the log:
`time` is the clock after the input, of a task's state the clock when the task last changed.
"""

import base64
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from schemas.envelope import Envelope, rfc3339
from schemas.events import LEDGER_SOURCE
from schemas.letters import kept_header
from schemas.outputs import DeadLetter, DeadLetterDetail, DeadLetterHeader, DeadLetterInput
from schemas.state import TaskStateData
from schemas.topics import MESSAGE_BYTES_MAX
from streams.budget.effects import Effect, Refused

# Base64 makes four bytes of three; the rest is for the record batch, the envelope and the key.
KEPT_BYTES = (MESSAGE_BYTES_MAX - 128 * 1024) * 3 // 4
# Beyond this nobody wants it in memory three times over, whatever it compresses to.
WHOLE_BYTES_MAX = 64 * 1024 * 1024
KEY_LENGTH_MAX = 1_000
KEY_BYTES_MAX = 32 * 1024
# What is kept of headers where not all passes, as they stand in the letter.
HEADERS_BYTES_MAX = 256 * 1024
assert HEADERS_BYTES_MAX < KEPT_BYTES

ENCODER = msgspec.json.Encoder(decimal_format="number")


class Cause(Protocol):
    """The record of `events` that caused something."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def key(self) -> bytes | None:
        """What chose the partition."""

    @property
    def value(self) -> bytes | None:
        """Its bytes, which a dead letter keeps."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Its headers, which a dead letter keeps as well."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Key and value of a record; `value` None deletes the key."""

    key: bytes | None
    value: bytes | None


class EffectEncoder:
    """Encodes what one input partition causes.

    Args:
        events_topic: the input's name on the broker; dead letters name it.
        fits: whether a value passes the broker, as the producer would send it.
    """

    def __init__(self, partition: int, events_topic: str, fits: Callable[[bytes], bool]) -> None:
        self._partition = partition
        self._events_topic = events_topic
        self._fits = fits
        self._clock_ms, self._time = -1, ""

    def encode(
        self,
        effect: Effect,
        clock_ms: int,
        cause: Cause | None = None,
        traceparent: str | None = None,
    ) -> Encoded:
        """Return the record of an effect.

        Args:
            clock_ms: the partition's clock when it happened.
            cause: the input, of which a dead letter keeps the bytes.
            traceparent: of the input; carried on.
        """
        data = effect.data
        if data is None:
            return Encoded(effect.key.encode(), None)
        if isinstance(data, Refused):
            assert cause is not None, "only an input is refused"
            value = self._dead_letter(effect, data, clock_ms, cause, traceparent)
            return Encoded(None if cause.key is None else cause.key[:KEY_BYTES_MAX], value)
        if isinstance(data, TaskStateData):
            # A batch may end long after the task changed, and where it ends is chance.
            clock_ms = data.seen_ms
        value = self._encode(effect, effect.key, clock_ms, data, traceparent)
        return Encoded(effect.key.encode(), value)

    def _encode(
        self,
        effect: Effect,
        subject: str,
        clock_ms: int,
        data: msgspec.Struct,
        traceparent: str | None,
    ) -> bytes:
        return ENCODER.encode(
            Envelope(
                id=f"{self._partition}-{effect.offset}-{effect.index}",
                source=LEDGER_SOURCE,
                type=effect.type,
                subject=subject,
                time=self._time_of(clock_ms),
                traceparent=msgspec.UNSET if traceparent is None else traceparent,
                data=data,
            )
        )

    def _time_of(self, clock_ms: int) -> str:
        """Return a clock as text; many records share one."""
        if clock_ms != self._clock_ms:
            self._clock_ms, self._time = clock_ms, rfc3339(clock_ms)
        return self._time

    def _dead_letter(
        self,
        effect: Effect,
        refused: Refused,
        clock_ms: int,
        cause: Cause,
        traceparent: str | None,
    ) -> bytes:
        """Return the dead letter with all of its original, or what of it passes the broker.

        A record of many megabytes can be a few kilobytes on the way: it comes in, and as base64
        it usually goes out again. Where it does not, first some of its headers go, then the end of
        its original; `detail` says so, and the input's coordinates tell where the whole is.
        Otherwise one record would abort its transaction for ever.
        """
        original = cause.value or b""
        key = None if cause.key is None else cause.key.decode(errors="replace")[:KEY_LENGTH_MAX]
        subject = refused.task_id or key or f"partition/{self._partition}"

        def letter(headers: list[DeadLetterHeader], kept: bytes) -> bytes:
            headers_are_cut = len(headers) < len(cause.headers)
            original_is_cut = len(kept) < len(original)
            notes = []
            if headers_are_cut:
                count = len(cause.headers)
                notes.append(f"only the first {len(headers)} of {count} headers are kept here")
            if original_is_cut:
                notes.append(f"only the first {len(kept)} of {len(original)} bytes are kept here")
            data = DeadLetter(
                reason=refused.reason,
                detail=_noted(refused.detail, notes),
                task_id=refused.task_id,
                input=DeadLetterInput(
                    topic=self._events_topic,
                    partition=self._partition,
                    offset=cause.offset,
                    key=key,
                ),
                headers=headers,
                headers_count=len(cause.headers) if headers_are_cut else None,
                original=base64.b64encode(kept).decode(),
                original_bytes=len(original) if original_is_cut else None,
            )
            return self._encode(effect, subject, clock_ms, data, traceparent)

        if len(original) + _size_bytes(cause.headers) <= WHOLE_BYTES_MAX:
            headers = [kept_header(name, value) for name, value in cause.headers]
            whole = letter(headers, original)
            if self._fits(whole):
                return whole
        headers, size_bytes = _first_headers(cause.headers)
        if len(headers) < len(cause.headers) and len(original) <= WHOLE_BYTES_MAX:
            without_some = letter(headers, original)
            if self._fits(without_some):
                return without_some
        return letter(headers, original[: KEPT_BYTES - size_bytes])


def _size_bytes(headers: Iterable[tuple[str, bytes | None]]) -> int:
    return sum(len(name) + len(value or b"") for name, value in headers)


def _first_headers(
    headers: Iterable[tuple[str, bytes | None]],
) -> tuple[list[DeadLetterHeader], int]:
    """Return the first headers, as many as may be kept where not all pass, and their size."""
    kept: list[DeadLetterHeader] = []
    size_bytes = 0
    for name, value in headers:
        if _size_bytes([(name, value)]) > HEADERS_BYTES_MAX:
            break  # not even tried: it may be as large as all that is wanted in memory
        header = kept_header(name, value)
        larger_bytes = size_bytes + len(ENCODER.encode(header)) + 1  # and a comma
        if larger_bytes > HEADERS_BYTES_MAX:
            break
        kept.append(header)
        size_bytes = larger_bytes
    return kept, size_bytes


def _noted(detail: DeadLetterDetail, notes: Sequence[str]) -> DeadLetterDetail:
    if not notes:
        return detail
    return msgspec.structs.replace(detail, allowed=f"{detail.allowed} ({'; '.join(notes)})")
