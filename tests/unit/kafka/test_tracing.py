"""Spans go on with the trace they are told, and whoever makes them never notices a collector."""

import asyncio
import logging
import threading

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from schemas.errors import InvalidFieldError
from streams.kafka.settings import Settings, load_settings
from streams.kafka.tracing import SENT_SPANS_MAX, Attributes, Tracing, context_of, open_tracing
from tests.span_collector import collector

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


class Broken(SpanProcessor):
    """A library with a mistake in it."""

    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError(span.name)


def some_span(tracing: Tracing, start_ms: int = 1_000, end_ms: int = 2_000) -> None:
    tracing.span("stoploss.x", SpanKind.INTERNAL, start_ms, end_ms, attributes={"partition": 3})


def some_batches(tracing: Tracing, count: int) -> None:
    for _ in range(count * SENT_SPANS_MAX):
        some_span(tracing)


async def until_closed(tracing: Tracing) -> None:
    """Close it, and wait longer than it does itself: its threads are no other test's."""
    await asyncio.to_thread(tracing.close)
    for thread in threading.enumerate():
        if thread.name == "test closes spans":
            await asyncio.to_thread(thread.join)


@pytest.mark.parametrize(
    ("traceparent", "is_recorded"),
    [
        pytest.param(TRACEPARENT, True, id="sampled"),
        pytest.param(f"00-{TRACE}-{SPAN}-03", True, id="sampled, and its id is random"),
        pytest.param(f"01-{TRACE}-{SPAN}-01-more", True, id="a later version of the format"),
        pytest.param(f"00-{TRACE}-{SPAN}-00", False, id="whoever began it does not record it"),
        pytest.param(f"00-{'0' * 32}-{SPAN}-01", False, id="the id that means none"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", False, id="the span that means none"),
        pytest.param(f"ff-{TRACE}-{SPAN}-01", False, id="the version that is forbidden"),
        pytest.param(f"00-{TRACE.upper()}-{SPAN}-01", False, id="capitals"),
        pytest.param("00-abc-01", False, id="no trace"),
        pytest.param("", False, id="nothing"),
    ],
)
def test_a_trace_is_gone_on_with_where_it_is_recorded(traceparent: str, is_recorded: bool) -> None:  # noqa: FBT001
    assert (context_of(traceparent) is not None) == is_recorded


def test_a_span_has_its_place_in_the_trace_and_its_own_times() -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing("test", SimpleSpanProcessor(exporter))
    attributes: Attributes = {"task_id": "TASK-1", "enforced": True}
    made = tracing.span(
        "stoploss.decision",
        SpanKind.CONSUMER,
        1_000,
        1_250,
        parent=context_of(TRACEPARENT),
        attributes=attributes,
    )
    (span,) = exporter.get_finished_spans()
    assert made == span.get_span_context()
    assert made is not None
    assert span.parent is not None
    assert (f"{made.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, SPAN)
    assert (span.start_time, span.end_time) == (1_000_000_000, 1_250_000_000)
    assert span.attributes == {"stoploss.task_id": "TASK-1", "stoploss.enforced": True}
    assert span.resource.attributes["service.name"] == "stoploss-test"


def test_a_span_without_a_parent_begins_a_trace() -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing("test", SimpleSpanProcessor(exporter))
    some_span(tracing)
    some_span(tracing)
    first, second = exporter.get_finished_spans()
    assert first.parent is second.parent is None
    assert first.context is not None
    assert second.context is not None
    assert first.context.trace_id != second.context.trace_id


def test_two_clocks_make_no_span_that_ends_before_it_begins() -> None:
    exporter = InMemorySpanExporter()
    some_span(Tracing("test", SimpleSpanProcessor(exporter)), start_ms=2_000, end_ms=1_990)
    (span,) = exporter.get_finished_spans()
    assert span.start_time == span.end_time == 2_000_000_000


def test_what_samples_nothing_makes_no_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    exporter = InMemorySpanExporter()
    tracing = Tracing("test", SimpleSpanProcessor(exporter))
    assert tracing.span("stoploss.x", SpanKind.INTERNAL, 1, 2, attributes={}) is None
    assert exporter.get_finished_spans() == ()


def test_a_mistake_of_the_library_is_said_once_and_fails_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracing = Tracing("test", Broken())
    some_span(tracing)
    some_span(tracing)
    assert caplog.messages == ["test: a span could not be made; said once"]


def test_without_the_setting_there_is_no_tracing() -> None:
    assert open_tracing(Settings(), "test") is None


@pytest.mark.parametrize("endpoint", ["localhost:4318", "grpc://localhost:4317", "http://", "x"])
def test_an_address_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidFieldError, match="use http://host:4318/v1/traces"):
        load_settings({"STOPLOSS_OTLP_TRACES_ENDPOINT": endpoint})


async def test_what_is_left_is_sent_at_the_end() -> None:
    async with collector() as taking:
        tracing = open_tracing(Settings(otlp_traces_endpoint=taking.endpoint), "test")
        assert tracing is not None
        some_span(tracing)
        await until_closed(tracing)
    (span,) = taking.spans
    assert (span.service, span.name) == ("stoploss-test", "stoploss.x")
    assert span.attributes == {"stoploss.partition": 3}


async def test_a_collector_that_takes_nothing_is_named_once_and_so_is_its_return(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with collector() as taking:
        taking.status = 400
        tracing = open_tracing(Settings(otlp_traces_endpoint=taking.endpoint), "test")
        assert tracing is not None
        some_batches(tracing, 2)
        await taking.until(lambda: taking.requests >= 1)
        taking.status = 200
        some_batches(tracing, 2)
        await taking.until(lambda: len(taking.spans) >= SENT_SPANS_MAX)
        await until_closed(tracing)
    assert [line for line in caplog.messages if line.startswith(("test:", "Fail", "Trans"))] == [
        f"test: spans go to {taking.endpoint}",
        f"test: {taking.endpoint} takes no spans; they are lost",
        f"test: {taking.endpoint} takes spans again",
    ]


async def test_nobody_waits_for_a_collector_that_does_not_answer() -> None:
    async with collector() as silent:
        silent.answers.clear()
        tracing = open_tracing(Settings(otlp_traces_endpoint=silent.endpoint), "test")
        assert tracing is not None
        some_batches(tracing, 40)  # more than can gather
        await silent.until(lambda: silent.requests > 0)
        async with asyncio.timeout(20):  # the library would wait for 30
            await asyncio.to_thread(tracing.close)
        assert silent.spans == []
        silent.answers.set()
        await until_closed(tracing)
