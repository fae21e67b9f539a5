"""What can be measured of a ledger from outside: OpenTelemetry instruments, and where they go.

No instrument is called per event: a call costs a microsecond, an event three.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from msgspec import Struct
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from schemas.fields import Mode
from streams.kafka.settings import Settings
from streams.kafka.telemetry import NOBODY_READS, Export, Readers, open_readers
from streams.ledger.account import Account
from streams.ledger.health import Health

PROMETHEUS_PORT_DEFAULT = 9464
MODES: dict[Mode, int] = {mode: index for index, mode in enumerate(Mode)}
HEALTHS: dict[Health, int] = {health: index for index, health in enumerate(Health)}


class PartitionFigures(Struct):
    """What a partition looks like now; read when metrics are collected."""

    open_tasks: int = 0
    lag: int = 0
    next_offset: int = 0
    mode: Mode = Mode.OBSERVE


def _lag(figures: PartitionFigures) -> int:
    return figures.lag


def _open_tasks(figures: PartitionFigures) -> int:
    return figures.open_tasks


def _mode(figures: PartitionFigures) -> int:
    return MODES[figures.mode]


class LedgerMetrics:
    """The instruments; partitions and health are looked at when somebody collects."""

    def __init__(self, meter: Meter) -> None:
        self._partitions: dict[int, PartitionFigures] = {}
        self._health: Callable[[], Health] = lambda: Health.STARTING
        self.account = Account()
        self._events = meter.create_counter(
            "stoploss.ledger.events",
            unit="{event}",
            description="Events folded and committed, by partition",
        )
        self._batches = meter.create_counter(
            "stoploss.ledger.batches",
            unit="{batch}",
            description="Transactions committed, by partition",
        )
        self._records = meter.create_counter(
            "stoploss.ledger.records",
            unit="{record}",
            description="Records written by them, by partition",
        )
        self._dead_letters = meter.create_counter(
            "stoploss.ledger.dead_letters",
            unit="{record}",
            description="Records refused, by reason",
        )
        self._failures = meter.create_counter(
            "stoploss.ledger.batch_failures",
            unit="{batch}",
            description="Batches or partitions that failed, by partition and kind",
        )
        self._commit_ms = meter.create_histogram(
            "stoploss.ledger.commit",
            unit="ms",
            description="One transaction, from begin to committed",
        )
        self._latency_ms = meter.create_histogram(
            "stoploss.ledger.event_to_commit",
            unit="ms",
            description="Of the oldest event of a batch: from its append to the commit, by two clocks",
        )
        self._restore_ms = meter.create_histogram(
            "stoploss.ledger.restore",
            unit="ms",
            description="From taking a partition over until it is read on, by partition",
        )
        for name, unit, read, description in (
            ("lag", "{event}", _lag, "Events there and not committed, by partition"),
            ("open_tasks", "{task}", _open_tasks, "Open tasks, by partition"),
            ("mode", "1", _mode, "0 observe, 1 partial, 2 enforce, by partition"),
        ):
            meter.create_observable_gauge(
                f"stoploss.ledger.{name}", [self._of_each(read)], unit=unit, description=description
            )
        meter.create_observable_gauge(
            "stoploss.ledger.partitions_owned",
            [self._observe_owned],
            unit="{partition}",
            description="Partitions of this process",
        )
        meter.create_observable_gauge(
            "stoploss.ledger.health",
            [self._observe_health],
            unit="1",
            description="The number of the process's state, which is the label state",
        )

    @property
    def partitions(self) -> list[int]:
        """What this process owns now."""
        return sorted(self._partitions)

    def watch_health(self, health: Callable[[], Health]) -> None:
        """Say where the state of the process is looked up."""
        self._health = health

    def owned(self, partition: int, restore_ms: float) -> PartitionFigures:
        """A partition was restored; whoever owns it keeps the figures up to date."""
        self._restore_ms.record(restore_ms, {"partition": partition})
        self._partitions[partition] = figures = PartitionFigures()
        return figures

    def released(self, partition: int, figures: PartitionFigures) -> None:
        """Whoever kept these figures has ended; those of the next owner, if it is here, stay."""
        if self._partitions.get(partition) is figures:
            del self._partitions[partition]

    def committed(
        self,
        partition: int,
        *,
        events: int,
        records: int,
        commit_ms: float,
        latency_ms: float | None,
        dead_letters: Counter[str],
    ) -> None:
        """Count one committed batch; `latency_ms` is that of its oldest event."""
        attributes = {"partition": partition}
        self._events.add(events, attributes)
        self._batches.add(1, attributes)
        self._records.add(records, attributes)
        self._commit_ms.record(commit_ms)
        self.account.committed(commit_ms)
        if latency_ms is not None:
            self._latency_ms.record(latency_ms)
        for reason, count in dead_letters.items():
            self._dead_letters.add(count, {"reason": reason})

    def failed(self, partition: int, kind: str) -> None:
        """Count a batch that was not confirmed, or a partition that was lost."""
        self._failures.add(1, {"partition": partition, "kind": kind})
        self.account.failed(kind)

    def _of_each(
        self, read: Callable[[PartitionFigures], int]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            for partition, figures in list(self._partitions.items()):
                yield Observation(read(figures), {"partition": partition})

        return observe

    def _observe_owned(self, _options: CallbackOptions) -> Iterable[Observation]:
        yield Observation(len(self._partitions))

    def _observe_health(self, _options: CallbackOptions) -> Iterable[Observation]:
        state = self._health()
        yield Observation(HEALTHS[state], {"state": state.value})


def export_to(opened: Readers = NOBODY_READS) -> Export[LedgerMetrics]:
    """Return the instruments, and where they go."""
    return Export("ledger", LedgerMetrics, opened)


def unseen() -> LedgerMetrics:
    """Return instruments that nobody reads."""
    return export_to().metrics


def start_metrics(settings: Settings, worker: int = 0) -> Export[LedgerMetrics]:
    """Start exporting: OTLP where an endpoint is configured, a Prometheus endpoint otherwise.

    Args:
        settings: says which.
        worker: several processes of one machine use ports one after the other.

    Raises:
        InvalidFieldError: the port that was asked for is taken.
    """
    opened = open_readers(settings, "ledger", PROMETHEUS_PORT_DEFAULT, worker)
    return export_to(opened)
