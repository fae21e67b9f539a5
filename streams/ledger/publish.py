"""Effects become records: the CloudEvents envelope, the id, and the dead letter's original."""

import base64
from collections.abc import Iterable

import msgspec

from schemas.envelope import Envelope, rfc3339
from schemas.outputs import DeadLetter, DeadLetterDetail, DeadLetterInput
from schemas.topics import Topic
from streams.budget.effects import Effect, Refused
from streams.kafka.ports import RawRecord, Record
from streams.kafka.producers import RECORD_BYTES_MAX, fits
from streams.kafka.settings import Settings

SOURCE = "stoploss/ledger"
# Base64 makes four bytes of three; the rest is for the envelope and the key.
KEPT_BYTES = (RECORD_BYTES_MAX - 64 * 1024) * 3 // 4
# Beyond this nobody wants it in memory three times over, whatever it compresses to.
WHOLE_BYTES_MAX = 64 * 1024 * 1024
KEY_LENGTH_MAX = 1_000
KEY_BYTES_MAX = 32 * 1024

ENCODER = msgspec.json.Encoder(decimal_format="number")


class Publisher:
    """Makes the records of one input partition; what it caused goes to the same partition."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self._partition = partition
        self._topics = {topic: settings.topic(topic) for topic in Topic}
        self._clock_ms, self._time = -1, ""

    def records(
        self,
        effects: Iterable[Effect],
        clock_ms: int,
        cause: RawRecord | None = None,
        traceparent: str | None = None,
    ) -> list[Record]:
        """Return a record per effect, in order.

        Args:
            effects: what one input caused, or what a batch changed.
            clock_ms: the partition's clock when it happened.
            cause: the input, whose bytes a dead letter keeps.
            traceparent: of the input; carried on.
        """
        return [self._record(effect, clock_ms, cause, traceparent) for effect in effects]

    def time(self, clock_ms: int) -> str:
        """Return the clock as text; many records share one."""
        if clock_ms != self._clock_ms:
            self._clock_ms, self._time = clock_ms, rfc3339(clock_ms)
        return self._time

    def _record(
        self, effect: Effect, clock_ms: int, cause: RawRecord | None, traceparent: str | None
    ) -> Record:
        topic = self._topics[effect.topic]
        if effect.data is None:
            return Record(topic, self._partition, effect.key.encode(), None)
        if isinstance(effect.data, Refused):
            assert cause is not None, "only an input is refused"
            value = self._dead_letter(effect, effect.data, clock_ms, cause, traceparent)
            key = None if cause.key is None else cause.key[:KEY_BYTES_MAX]
            return Record(topic, self._partition, key, value)
        value = self._encode(effect, effect.key, clock_ms, effect.data, traceparent)
        return Record(topic, self._partition, effect.key.encode(), value)

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
                source=SOURCE,
                type=effect.type,
                subject=subject,
                time=self.time(clock_ms),
                traceparent=msgspec.UNSET if traceparent is None else traceparent,
                data=data,
            )
        )

    def _dead_letter(
        self,
        effect: Effect,
        refused: Refused,
        clock_ms: int,
        cause: RawRecord,
        traceparent: str | None,
    ) -> bytes:
        """Return the dead letter with all of its original, or what of it passes the broker.

        A record of many megabytes can be a few kilobytes on the way: it comes in, and as base64
        it usually goes out again. Where it does not, its first part is kept, `detail` says so, and
        the input's coordinates tell where the whole is. Otherwise one record would abort its
        transaction for ever.
        """
        original = cause.value or b""
        key = None if cause.key is None else cause.key.decode(errors="replace")[:KEY_LENGTH_MAX]
        subject = refused.task_id or key or f"partition/{self._partition}"

        def letter(kept: bytes, detail: DeadLetterDetail) -> bytes:
            data = DeadLetter(
                reason=refused.reason,
                detail=detail,
                task_id=refused.task_id,
                input=DeadLetterInput(
                    topic=self._topics[Topic.EVENTS],
                    partition=self._partition,
                    offset=cause.offset,
                    key=key,
                ),
                original=base64.b64encode(kept).decode(),
            )
            return self._encode(effect, subject, clock_ms, data, traceparent)

        if len(original) <= WHOLE_BYTES_MAX:
            whole = letter(original, refused.detail)
            if fits(whole):
                return whole
        note = f"only the first {KEPT_BYTES} of {len(original)} bytes are kept here"
        detail = msgspec.structs.replace(
            refused.detail, allowed=f"{refused.detail.allowed} ({note})"
        )
        return letter(original[:KEPT_BYTES], detail)
