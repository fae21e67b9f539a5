"""Spans for a collector, where one is named: what an event has led to, in the trace it came from.

Nothing is ever sent from where a span is made. A thread sends what has gathered; what is more than may
gather is lost, as is what no collector takes. Spans are for looking, and nothing waits for them.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from streams.kafka.settings import Settings

QUEUED_SPANS_MAX = 4_096
# Encoding is done in Python, and a partition's owner stands still meanwhile: 128 take some ms.
SENT_SPANS_MAX = 128
SEND_EVERY_MS = 1_000
SEND_WITHIN_S = 5.0
# A ledger that is told to end has 15 s beyond its deadline, of which Kafka may take 14: `LET_GO_WITHIN_S`.
CLOSE_WITHIN_S = 0.5
NS_PER_MS = 1_000_000

Attributes = Mapping[str, str | int | bool]

_PROPAGATOR = TraceContextTextMapPropagator()


def context_of(traceparent: str) -> Context | None:
    """Return where a trace goes on; None where it is not to be recorded, or is no trace at all.

    Whoever began the trace has decided whether it is recorded: the flag `sampled`.

    Source: W3C Trace Context, "traceparent".
    """
    context = _PROPAGATOR.extract({"traceparent": traceparent})
    found = trace.get_current_span(context).get_span_context()
    return context if found.is_valid and found.trace_flags.sampled else None


class Tracing:
    """The spans of one process. No method waits for anybody or raises, but for `close`, which waits.

    Args:
        part: of ours; the service is `stoploss-{part}`.
        processor: takes the spans.
    """

    def __init__(self, part: str, processor: SpanProcessor) -> None:
        self._log = logging.getLogger(f"stoploss.{part}")
        self._part = part
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": f"stoploss-{part}"}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(f"stoploss.{part}")
        self._has_failed = False

    def __repr__(self) -> str:
        return f"<Tracing {self._part}>"

    def span(
        self,
        name: str,
        kind: SpanKind,
        start_ms: int,
        end_ms: int,
        *,
        parent: Context | None = None,
        attributes: Attributes,
        links: Sequence[SpanContext] = (),
    ) -> SpanContext | None:
        """Note what has happened; return how others may refer to it.

        Args:
            name: of what happened.
            kind: what it was to others.
            start_ms: milliseconds since 1970.
            end_ms: by another clock it may seem to be before the start; then it is the start.
            parent: where the trace goes on; a trace of its own where left out.
            attributes: by name, without the prefix.
            links: to spans of other traces.

        Returns:
            None where it is not recorded.
        """
        try:
            span = self._tracer.start_span(
                name,
                context=Context() if parent is None else parent,
                kind=kind,
                attributes={f"stoploss.{key}": value for key, value in attributes.items()},
                links=[Link(context) for context in links],
                start_time=start_ms * NS_PER_MS,
            )
            is_recorded = span.is_recording()
            span.end(max(start_ms, end_ms) * NS_PER_MS)
        except Exception:  # noqa: BLE001 - another room's: no batch fails for what is only looked at
            if not self._has_failed:
                self._log.exception("%s: a span could not be made; said once", self._part)
            self._has_failed = True
            return None
        return span.get_span_context() if is_recorded else None

    def close(self) -> None:
        """Send what is left within `CLOSE_WITHIN_S`; what is not sent by then is lost."""
        # The library waits for half a minute, and offers no less.
        shutdown: Callable[[], None] = self._provider.shutdown
        name = f"{self._part} closes spans"
        closing = threading.Thread(target=shutdown, name=name, daemon=True)
        closing.start()
        closing.join(CLOSE_WITHIN_S)


class _Saying(SpanExporter):
    """Says once that nobody takes the spans, and once that somebody does again.

    The library says it about each attempt, in two lines.
    """

    def __init__(self, part: str, endpoint: str) -> None:
        logging.getLogger(OTLPSpanExporter.__module__).setLevel(logging.CRITICAL)
        self._part, self._endpoint = part, endpoint
        self._log = logging.getLogger(f"stoploss.{part}")
        self._exporter = OTLPSpanExporter(endpoint=endpoint, timeout=SEND_WITHIN_S)
        self._is_away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        is_away = result is not SpanExportResult.SUCCESS
        if is_away and not self._is_away:
            self._log.warning("%s: %s takes no spans; they are lost", self._part, self._endpoint)
        elif self._is_away and not is_away:
            self._log.info("%s: %s takes spans again", self._part, self._endpoint)
        self._is_away = is_away
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def open_tracing(settings: Settings, part: str) -> Tracing | None:
    """Begin to send spans to where the settings say; None where they name nobody.

    Args:
        settings: name the collector.
        part: of ours, as log lines name it.
    """
    endpoint = settings.otlp_traces_endpoint
    if endpoint is None:
        return None
    logging.getLogger(f"stoploss.{part}").info("%s: spans go to %s", part, endpoint)
    processor = BatchSpanProcessor(
        _Saying(part, endpoint),
        max_queue_size=QUEUED_SPANS_MAX,
        max_export_batch_size=SENT_SPANS_MAX,
        schedule_delay_millis=SEND_EVERY_MS,
    )
    return Tracing(part, processor)
