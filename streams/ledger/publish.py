"""Effects become records of the ledger's topics; the bytes are made in `streams.budget.encode`."""

from collections.abc import Iterable

from schemas.topics import Topic
from streams.budget.effects import Effect
from streams.budget.encode import KEPT_BYTES, EffectEncoder
from streams.kafka.ports import RawRecord, Record
from streams.kafka.producers import RECORD_BYTES_MAX, fits
from streams.kafka.settings import Settings

# What is kept of an original passes, as base64, whatever it does not compress to.
assert KEPT_BYTES * 4 // 3 + 64 * 1024 <= RECORD_BYTES_MAX


class Publisher:
    """Makes the records of one input partition; what it caused goes to the same partition."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self._partition = partition
        self._topics = {topic: settings.topic(topic) for topic in Topic}
        self._encoder = EffectEncoder(partition, settings.topic(Topic.EVENTS), fits)

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

    def _record(
        self, effect: Effect, clock_ms: int, cause: RawRecord | None, traceparent: str | None
    ) -> Record:
        made = self._encoder.encode(effect, clock_ms, cause, traceparent)
        return Record(self._topics[effect.topic], self._partition, made.key, made.value)
