"""What can be measured of a view from outside: OpenTelemetry instruments."""

from collections.abc import Callable, Iterable, Mapping

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from streams.kafka.settings import Settings
from streams.kafka.telemetry import NOBODY_READS, Export, Readers, open_readers

# Above those of 64 workers of a ledger, below those of the agents.
PROMETHEUS_PORT_DEFAULT = 9554


class ViewMetrics:
    """The instruments; lag and age are looked at when somebody collects."""

    def __init__(self, meter: Meter) -> None:
        self._lags: Callable[[], Mapping[str, int]] = dict
        self._age_ms: Callable[[], int | None] = lambda: None
        self._records = meter.create_counter(
            "stoploss.view.records",
            unit="{record}",
            description="Records that are in Redis, by topic",
        )
        self._unreadable = meter.create_counter(
            "stoploss.view.unreadable",
            unit="{record}",
            description="Records that could not be read and were left out, by topic",
        )
        self._failures = meter.create_counter(
            "stoploss.view.failures",
            unit="{failure}",
            description="What went wrong, by kind: redis, kafka, overtaken, damaged",
        )
        self._rebuilds = meter.create_counter(
            "stoploss.view.rebuilds", unit="{rebuild}", description="Rebuilds that began"
        )
        self._apply_ms = meter.create_histogram(
            "stoploss.view.apply", unit="ms", description="Bringing one read to Redis"
        )
        meter.create_observable_gauge(
            "stoploss.view.lag",
            [self._observe_lag],
            unit="{record}",
            description="Records that are not in Redis yet, by topic and partition",
        )
        meter.create_observable_gauge(
            "stoploss.view.age",
            [self._observe_age],
            unit="ms",
            description="How old is what Redis shows; nothing while it is rebuilt",
        )

    def watch(
        self, lags: Callable[[], Mapping[str, int]], age_ms: Callable[[], int | None]
    ) -> None:
        """Say where the lag by topic/partition, and the age of what is shown, are looked up."""
        self._lags, self._age_ms = lags, age_ms

    def applied(self, records: Mapping[str, int], unreadable: Mapping[str, int], ms: float) -> None:
        """Count one read that is in Redis: records by topic, and how long it took to bring it there."""
        for topic, count in records.items():
            self._records.add(count, {"topic": topic})
        for topic, count in unreadable.items():
            self._unreadable.add(count, {"topic": topic})
        self._apply_ms.record(ms)

    def failed(self, kind: str) -> None:
        """Count a failure: redis, kafka, overtaken by another view, or damaged by somebody else."""
        self._failures.add(1, {"kind": kind})

    def rebuilds(self) -> None:
        """Count a rebuild that began."""
        self._rebuilds.add(1)

    def _observe_lag(self, _options: CallbackOptions) -> Iterable[Observation]:
        for place, lag in self._lags().items():
            topic, _, partition = place.rpartition("/")
            yield Observation(lag, {"topic": topic, "partition": int(partition)})

    def _observe_age(self, _options: CallbackOptions) -> Iterable[Observation]:
        age_ms = self._age_ms()
        if age_ms is not None:
            yield Observation(age_ms)


def export_to(opened: Readers = NOBODY_READS) -> Export[ViewMetrics]:
    """Return the instruments, and where they go."""
    return Export("view", ViewMetrics, opened)


def unseen() -> ViewMetrics:
    """Return instruments that nobody reads."""
    return export_to().metrics


def start_metrics(settings: Settings) -> Export[ViewMetrics]:
    """Start exporting, as the settings say.

    Raises:
        InvalidFieldError: the port that was asked for is taken.
    """
    return export_to(open_readers(settings, "view", PROMETHEUS_PORT_DEFAULT))
