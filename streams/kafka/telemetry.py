"""Where the figures of a process go: to a collector, or to whoever asks at a port."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import prometheus_client
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

from schemas.errors import InvalidFieldError
from streams.kafka.settings import Settings

OTLP_EVERY_MS = 10_000
MS_BUCKETS = (1, 2, 5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_120, 10_240)

Metrics = TypeVar("Metrics")


@dataclass(frozen=True)
class Readers:
    """Who collects the figures; `close` gives back what they took."""

    readers: Sequence[MetricReader]
    close: Callable[[], None]


def nobody() -> None:
    """Give nothing back."""


NOBODY_READS = Readers((), nobody)


class Export(Generic[Metrics]):
    """The instruments of one part, and where they go; `close` sends what is left.

    Args:
        part: of ours, as its service is named.
        make: creates the instruments.
        opened: who collects.
    """

    def __init__(
        self, part: str, make: Callable[[Meter], Metrics], opened: Readers = NOBODY_READS
    ) -> None:
        buckets = ExplicitBucketHistogramAggregation(MS_BUCKETS)
        self._provider = MeterProvider(
            metric_readers=opened.readers,
            resource=Resource.create({"service.name": f"stoploss-{part}"}),
            views=[View(instrument_type=Histogram, instrument_unit="ms", aggregation=buckets)],
            shutdown_on_exit=False,
        )
        self._close = opened.close
        self.metrics = make(self._provider.get_meter(f"stoploss.{part}"))

    def close(self) -> None:
        """Send what is left, and give the port back."""
        self._provider.shutdown()
        self._close()


def open_readers(settings: Settings, part: str, port_default: int, offset: int = 0) -> Readers:
    """Start exporting: OTLP where an endpoint is configured, a Prometheus endpoint otherwise.

    Args:
        settings: says which.
        part: of ours, as log lines name it.
        port_default: where no port is configured.
        offset: several processes of one machine use ports one after the other.

    Raises:
        InvalidFieldError: the port that was asked for is taken.
    """
    log = logging.getLogger(f"stoploss.{part}")
    if settings.otlp_endpoint is not None:
        exporter = OTLPMetricExporter(endpoint=settings.otlp_endpoint)
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=OTLP_EVERY_MS)
        return Readers([reader], nobody)
    port = (settings.prometheus_port or port_default) + offset
    registry = prometheus_client.CollectorRegistry()
    try:
        server, thread = prometheus_client.start_http_server(
            port, settings.prometheus_host, registry
        )
    except OSError as error:
        if settings.prometheus_port is not None:
            raise InvalidFieldError("prometheus_port", port, f"a free port ({error})") from None
        log.info("%s: no metrics endpoint: port %s is taken; STOPLOSS_PROMETHEUS_PORT", part, port)
        return Readers([], nobody)

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    log.info("%s: metrics at http://%s:%s/metrics", part, settings.prometheus_host, port)
    return Readers([PrometheusMetricReader(registry=registry)], close)
