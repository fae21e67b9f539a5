"""What can be measured of the agents from outside: OpenTelemetry instruments of the supervisor.

What a worker has counted is read when somebody collects; what its predecessors counted is kept.
"""

from collections.abc import Callable, Iterable, Mapping

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from streams.agents.figures import BATCHES, DROPPED, OUTPUTS, RECORDS, REFUSED, TOOK_MS, Figures
from streams.kafka.settings import Settings
from streams.kafka.telemetry import NOBODY_READS, Export, Readers, open_readers

PROMETHEUS_PORT_DEFAULT = 9564


class AgentFigures:
    """What is known of one agent, over all its workers."""

    def __init__(self) -> None:
        self.running = False
        self.lag: Mapping[str, int] = {}  # records that wait, by topic
        self._before = {RECORDS: 0, BATCHES: 0, OUTPUTS: 0, REFUSED: 0, DROPPED: 0}
        self._now: Figures | None = None

    def __repr__(self) -> str:
        return f"<AgentFigures {self.lag} behind>"

    def begins(self, figures: Figures) -> None:
        """Another worker counts from now on."""
        if self._now is not None:
            for place in self._before:
                self._before[place] += self._now[place]
        self._now = figures

    def counted(self, place: int) -> int:
        """Return what has been counted since the supervisor began."""
        return self._before[place] + (0 if self._now is None else self._now[place])

    @property
    def took_ms(self) -> int:
        """How long the last batch took."""
        return 0 if self._now is None else self._now[TOOK_MS]


class SinkFigures:
    """What is known of the delivery to one sink, over all its processes.

    `now` is what the present one says: offsets that wait, notices taken, notices refused, failed
    attempts.
    """

    def __init__(self) -> None:
        self.now = (0, 0, 0, 0)
        self._before = (0, 0, 0, 0)

    def __repr__(self) -> str:
        return f"<SinkFigures {self.now[0]} behind>"

    def begins(self, now: tuple[int, int, int, int]) -> None:
        """Another process counts from now on."""
        _, sent, refused, failures = (self[place] for place in range(len(self.now)))
        self._before = (0, sent, refused, failures)
        self.now = now

    def __getitem__(self, place: int) -> int:
        """Return one of the numbers: the lag, or a count since the supervisor began."""
        return self._before[place] + self.now[place]


class AgentsMetrics:
    """The instruments."""

    def __init__(self, meter: Meter) -> None:
        self.agents: dict[str, AgentFigures] = {}
        self.sinks: dict[str, SinkFigures] = {}
        self._restarts = meter.create_counter(
            "stoploss.agents.restarts",
            unit="{restart}",
            description="Workers that were replaced, by agent and kind: they ended, or stalled",
        )
        meter.create_observable_gauge(
            "stoploss.agents.lag",
            [self._lag],
            unit="{record}",
            description="Records there and not done, by agent and topic",
        )
        meter.create_observable_gauge(
            "stoploss.agents.running",
            [self._running],
            unit="1",
            description="1 while a worker runs, by agent",
        )
        meter.create_observable_gauge(
            "stoploss.agents.last_batch",
            [self._took],
            unit="ms",
            description="The last batch, from its first record until it is done, by agent",
        )
        for name, unit, place, description in (
            ("records", "{record}", RECORDS, "Records read and done, by agent"),
            ("batches", "{batch}", BATCHES, "Batches done, by agent"),
            ("outputs", "{record}", OUTPUTS, "Records sent, dead letters among them, by agent"),
            ("dead_letters", "{record}", REFUSED, "Records that could not be read, by agent"),
            (
                "dropped",
                "{item}",
                DROPPED,
                "Tasks, sources, readers, blocks and the like for which an agent had no room: left out, or forgotten before their time, by agent",
            ),
        ):
            meter.create_observable_counter(
                f"stoploss.agents.{name}",
                [self._counted(place)],
                unit=unit,
                description=description,
            )

        meter.create_observable_gauge(
            "stoploss.agents.delivery_lag",
            [self._of_sinks(0)],
            unit="{record}",
            description="Records of alerts and reports that wait for a sink, by sink",
        )
        for place, name, unit, description in (
            (1, "sent", "{notice}", "Notices that a sink took, by sink"),
            (
                2,
                "refused",
                "{notice}",
                "Notices that a sink will never take, and records that are none, by sink",
            ),
            (3, "failures", "{attempt}", "Attempts that did not get through, by sink"),
        ):
            meter.create_observable_counter(
                f"stoploss.agents.delivery_{name}",
                [self._of_sinks(place)],
                unit=unit,
                description=description,
            )

    def sink(self, name: str) -> SinkFigures:
        """Return where what is known of the delivery to a sink is kept."""
        return self.sinks.setdefault(name, SinkFigures())

    def agent(self, name: str) -> AgentFigures:
        """Return where what is known of an agent is kept."""
        return self.agents.setdefault(name, AgentFigures())

    def restarted(self, name: str, kind: str) -> None:
        """Count a worker that was replaced: it `ended`, or it `stalled`."""
        self._restarts.add(1, {"agent": name, "kind": kind})

    def _lag(self, _options: CallbackOptions) -> Iterable[Observation]:
        for name, agent in list(self.agents.items()):
            for topic, lag in agent.lag.items():
                yield Observation(lag, {"agent": name, "topic": topic})

    def _running(self, _options: CallbackOptions) -> Iterable[Observation]:
        for name, agent in list(self.agents.items()):
            yield Observation(int(agent.running), {"agent": name})

    def _took(self, _options: CallbackOptions) -> Iterable[Observation]:
        for name, agent in list(self.agents.items()):
            yield Observation(agent.took_ms, {"agent": name})

    def _counted(self, place: int) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            for name, agent in list(self.agents.items()):
                yield Observation(agent.counted(place), {"agent": name})

        return observe

    def _of_sinks(self, place: int) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            for name, sink in list(self.sinks.items()):
                yield Observation(sink[place], {"sink": name})

        return observe


def export_to(opened: Readers = NOBODY_READS) -> Export[AgentsMetrics]:
    """Return the instruments, and where they go."""
    return Export("agents", AgentsMetrics, opened)


def unseen() -> AgentsMetrics:
    """Return instruments that nobody reads."""
    return export_to().metrics


def start_metrics(settings: Settings) -> Export[AgentsMetrics]:
    """Start exporting, as the settings say.

    Raises:
        InvalidFieldError: the port that was asked for is taken.
    """
    return export_to(open_readers(settings, "agents", PROMETHEUS_PORT_DEFAULT))
