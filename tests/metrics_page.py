"""`python -m tests.metrics_page`: write docs/metrics.md from the instruments; with `--check`, compare only."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.metrics import Meter, NoOpMeter

from streams.agents.metrics import PROMETHEUS_PORT_DEFAULT as AGENTS_PORT
from streams.agents.metrics import AgentsMetrics
from streams.ledger.metrics import PROMETHEUS_PORT_DEFAULT as LEDGER_PORT
from streams.ledger.metrics import LedgerMetrics
from streams.view.metrics import PROMETHEUS_PORT_DEFAULT as VIEW_PORT
from streams.view.metrics import ViewMetrics

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
PARTS: tuple[tuple[str, int, Callable[[Meter], object]], ...] = (
    ("ledger", LEDGER_PORT, LedgerMetrics),
    ("agents", AGENTS_PORT, AgentsMetrics),
    ("view", VIEW_PORT, ViewMetrics),
)
UNITS = {"ms": "_milliseconds"}
HEAD = """\
# Metrics

Written by `python -m tests.metrics_page` from the instruments; changes made here are lost.

Every part sends its figures to a collector, each 10 s, where `otlp_endpoint` names one. Else they are at
`/metrics` for Prometheus, on `prometheus_port`, by default the port below. The names of a collector's
Prometheus page are the same. Durations are histograms with the usual `_bucket`, `_sum` and `_count`. A
counter appears with its first count.

[grafana/stoploss.json](grafana/stoploss.json) is a dashboard of them, to be imported as it is;
[grafana/rules.yaml](grafana/rules.yaml) are rules for Prometheus, about the system itself. The alerts
about tasks are in the topic `alerts`: [operations.md](operations.md#when-alerts-fire).
"""


@dataclass(frozen=True)
class Instrument:
    """One figure."""

    name: str
    kind: str
    unit: str
    description: str

    @property
    def prometheus(self) -> str:
        """Its name at `/metrics`, without what a histogram adds."""
        suffix = "_total" if self.kind == "counter" else ""
        return f"{self.name.replace('.', '_')}{UNITS.get(self.unit, '')}{suffix}"


class Recorder(NoOpMeter):
    """A meter that notes what is created."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.found: list[Instrument] = []

    def _note(self, kind: str, name: str, unit: str, description: str) -> None:
        self.found.append(Instrument(name, kind, unit, description))

    def create_counter(self, name: str, unit: str = "", description: str = "") -> Any:  # noqa: ANN401 - OpenTelemetry's
        self._note("counter", name, unit, description)
        return super().create_counter(name, unit, description)

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        **more: Any,  # noqa: ANN401 - OpenTelemetry's
    ) -> Any:  # noqa: ANN401 - OpenTelemetry's
        self._note("histogram", name, unit, description)
        return super().create_histogram(name, unit, description, **more)

    def create_observable_gauge(
        self,
        name: str,
        callbacks: Any = None,  # noqa: ANN401 - OpenTelemetry's
        unit: str = "",
        description: str = "",
    ) -> Any:  # noqa: ANN401 - OpenTelemetry's
        self._note("gauge", name, unit, description)
        return super().create_observable_gauge(name, callbacks, unit, description)

    def create_observable_counter(
        self,
        name: str,
        callbacks: Any = None,  # noqa: ANN401 - OpenTelemetry's
        unit: str = "",
        description: str = "",
    ) -> Any:  # noqa: ANN401 - OpenTelemetry's
        self._note("counter", name, unit, description)
        return super().create_observable_counter(name, callbacks, unit, description)


def instruments(make: Callable[[Meter], object]) -> list[Instrument]:
    """Return what a part creates, in order of its names."""
    recorder = Recorder()
    make(recorder)
    return sorted(recorder.found, key=lambda one: one.name)


def every_instrument() -> list[Instrument]:
    """Return those of all parts."""
    return [one for _, _, make in PARTS for one in instruments(make)]


def page() -> str:
    """Return the page."""
    lines = [HEAD]
    for part, port, make in PARTS:
        lines += [f"## `stoploss {part}`, port {port}", ""]
        lines += ["| name | for Prometheus | kind | unit | means |", "|---|---|---|---|---|"]
        lines += [
            f"| `{one.name}` | `{one.prometheus}` | {one.kind} | {one.unit.strip('{}')} "
            f"| {one.description} |"
            for one in instruments(make)
        ]
        lines.append("")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 1 where `--check` finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m tests.metrics_page", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 on a difference"
    )
    if not parser.parse_args(arguments).check:
        PAGE.write_text(page(), "utf-8")
        return 0
    if PAGE.read_text("utf-8") == page():
        return 0
    sys.stderr.write("docs/metrics.md is not current: python -m tests.metrics_page\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
