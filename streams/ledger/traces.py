"""The spans of a batch: what it has decided about events that came with a trace, made once it is committed.

```
enforcer's span ─┬─ stoploss.decision   from the append of the event to the commit
                 └─ stoploss.alert      by the agents
stoploss.batch ── links to its decisions; a trace of its own, since its events are of many
```
"""

from collections.abc import Iterable

from msgspec import Struct
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from schemas.outputs import Decision
from streams.budget.effects import Effect
from streams.kafka.tracing import Attributes, Tracing, context_of

# To make a span takes some 20 µs, and others' batches wait meanwhile. As many links has a span at most.
DECISIONS_MAX = 128


class TracedDecision(Struct, frozen=True):
    """A decision whose event is part of a trace that is recorded."""

    context: Context
    append_ms: int
    decision: Decision


class TracedDecisions:
    """Those of an open batch, bounded: `left_out` counts the others."""

    def __init__(self) -> None:
        self.kept: list[TracedDecision] = []
        self.left_out = 0

    def __repr__(self) -> str:
        return f"<TracedDecisions {len(self.kept)}>"

    def add(self, effects: Iterable[Effect], append_ms: int, traceparent: str) -> None:
        """Keep what an event has decided, if it is part of a trace.

        Args:
            effects: of the event.
            append_ms: when the broker took it.
            traceparent: its own.
        """
        decisions = [each.data for each in effects if isinstance(each.data, Decision)]
        if not decisions or (context := context_of(traceparent)) is None:
            return
        for decision in decisions:
            if len(self.kept) < DECISIONS_MAX:
                self.kept.append(TracedDecision(context, append_ms, decision))
            else:
                self.left_out += 1


class CommittedBatch(Struct, frozen=True, kw_only=True):
    """What is told of a batch; times in milliseconds since 1970, by our clock."""

    partition: int
    events: int
    records: int
    first_offset: int
    last_offset: int
    began_ms: int
    committed_ms: int


def tell_spans(tracing: Tracing, batch: CommittedBatch, traced: TracedDecisions) -> None:
    """Make the spans of a batch: one for each traced decision, and one that links to all of them."""
    told = [
        tracing.span(
            "stoploss.decision",
            SpanKind.CONSUMER,
            one.append_ms,
            batch.committed_ms,
            parent=one.context,
            attributes=_attributes(one.decision),
        )
        for one in traced.kept
    ]
    tracing.span(
        "stoploss.batch",
        SpanKind.INTERNAL,
        batch.began_ms,
        batch.committed_ms,
        attributes={
            "partition": batch.partition,
            "events": batch.events,
            "records": batch.records,
            "first_offset": batch.first_offset,
            "last_offset": batch.last_offset,
            "decisions_left_out": traced.left_out,
        },
        links=[context for context in told if context is not None],
    )


def _attributes(decision: Decision) -> Attributes:
    return {
        "task_id": decision.task_id,
        "verdict": decision.verdict.value,
        "previous": decision.previous.value,
        "enforced": decision.enforced,
        "partition": decision.input.partition,
        "offset": decision.input.offset,
    }
