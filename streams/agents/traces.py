"""The span of an alert: it goes on with the trace of the event that the alert follows from."""

from collections.abc import Iterable

import msgspec
from opentelemetry.trace import SpanKind

from schemas.alerts import Alert
from schemas.envelope import Envelope, epoch_ms_of
from schemas.topics import Topic
from streams.agents.stages import Outbound
from streams.kafka.tracing import Tracing, context_of

_ALERT = msgspec.json.Decoder(Envelope[Alert])


def tell_spans(tracing: Tracing, outputs: Iterable[Outbound], delivered_ms: int) -> None:
    """Make a span for each alert that is part of a trace, from its own time to its delivery.

    Args:
        tracing: of the process.
        outputs: what the broker has by now; those that are no alerts are passed over.
        delivered_ms: milliseconds since 1970, by our clock.
    """
    for output in outputs:
        if output.topic != Topic.ALERTS or output.value is None:
            continue
        alert = _ALERT.decode(output.value)
        if not isinstance(alert.traceparent, str):
            continue
        context = context_of(alert.traceparent)
        if context is None:
            continue
        tracing.span(
            "stoploss.alert",
            SpanKind.PRODUCER,
            epoch_ms_of(alert.time),
            delivered_ms,
            parent=context,
            attributes={
                "name": alert.data.name,
                "scope": alert.data.scope,
                "state": alert.data.state.value,
                "severity": alert.data.severity.value,
                "number": alert.data.number,
            },
        )
