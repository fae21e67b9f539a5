"""The records of a chunk are decoded and folded, and what each caused is kept in the open batch.

Every event passes this loop, so it stands apart from the worker's `async` code, where it can be
compiled (`bench.compiled`).
"""

from collections.abc import Sequence
from typing import Final

from schemas.decode import Refusal, decode_event
from schemas.topics import Topic
from streams.budget.effects import Effect, Refused
from streams.budget.fold import fold
from streams.budget.state import PartitionState
from streams.kafka.ports import RawRecord
from streams.ledger.batch import OpenBatch
from streams.ledger.publish import Publisher

# What an enforcer or a person waits for; everything else can wait for company (see `batch`).
URGENT: Final = frozenset({Topic.DECISIONS, Topic.BREACHES, Topic.DEAD_LETTERS})


def fold_records(
    records: Sequence[RawRecord],
    state: PartitionState,
    publisher: Publisher,
    batch: OpenBatch,
    *,
    is_tracing: bool,
) -> None:
    """Fold records in order; `batch` has them then, and the records that they caused."""
    for record in records:
        offset, append_ms = record.offset, record.timestamp
        assert offset >= state.next_offset, "an offset came twice"
        event = decode_event(record.value, record.headers)
        effects = fold(state, event, offset=offset, append_ms=append_ms)
        if effects:
            traceparent = None if isinstance(event, Refusal) else event.traceparent
            batch.add(publisher.records(effects, state.clock_ms, record, traceparent))
            _note(batch, effects)
            if is_tracing and traceparent is not None:
                batch.traced.add(effects, append_ms, traceparent)
    batch.events += len(records)


def _note(batch: OpenBatch, effects: Sequence[Effect]) -> None:
    """Note what somebody waits for, and why something was refused."""
    for effect in effects:
        if effect.topic in URGENT:
            batch.urgent = True
            if isinstance(effect.data, Refused):
                batch.dead_letters[effect.data.reason] += 1
