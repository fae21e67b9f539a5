"""An alert goes on with the trace of the event that it follows from."""

from typing import Any

import msgspec
from msgspec import UNSET
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from schemas.alerts import Alert, Origin, Severity
from schemas.envelope import Envelope
from schemas.topics import Topic
from streams.agents.stages import Outbound
from streams.agents.traces import tell_spans
from streams.insight.edges import Occasion, Rule, Standing, turn
from streams.kafka.tracing import Tracing

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
RULE = Rule(name="budget_breach", severity=Severity.WARNING, fires_above=1, resolves_at=1)


def edge(traceparent: Any = UNSET) -> Envelope[Alert]:  # noqa: ANN401 - a text, or unset
    occasion = Occasion(
        scope="TASK-1",
        value=1.2,
        message="1.2 of its limit",
        at_ms=5_000,
        origin=Origin("decisions", 0, 7),
        traceparent=traceparent,
    )
    found = turn(RULE, Standing(), occasion, fires=True)
    assert found is not None
    return found


def spans_of(*outputs: Outbound) -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    tell_spans(Tracing("agents", SimpleSpanProcessor(exporter)), outputs, delivered_ms=5_040)
    return list(exporter.get_finished_spans())


def sent(alert: Envelope[Alert], topic: str = Topic.ALERTS) -> Outbound:
    return Outbound(topic, alert.subject.encode(), msgspec.json.encode(alert))


def test_an_alert_that_was_delivered_is_a_span_of_its_events_trace() -> None:
    (span,) = spans_of(sent(edge(TRACEPARENT)))
    assert span.name == "stoploss.alert"
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" == f"{TRACE}-{SPAN}"
    assert (span.start_time, span.end_time) == (5_000_000_000, 5_040_000_000)
    assert span.attributes == {
        "stoploss.name": "budget_breach",
        "stoploss.scope": "TASK-1",
        "stoploss.state": "firing",
        "stoploss.severity": "warning",
        "stoploss.number": 1,
    }


def test_what_is_no_alert_of_a_trace_has_no_span() -> None:
    assert (
        spans_of(
            sent(edge()),
            sent(edge("00-abc-01")),
            sent(edge(TRACEPARENT), topic="agents-alerts-signals"),
            Outbound(Topic.ALERTS, b"budget_breach/TASK-1", None),
        )
        == []
    )
