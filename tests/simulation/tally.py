"""What many histories came to, and how much operation they stand for."""

from collections.abc import Iterator

from tests.simulation.faults import Met
from tests.simulation.history import Outcome


class Tally:
    """A sum of outcomes."""

    def __init__(self) -> None:
        self.histories = self.events = self.failed = 0
        self.simulated_s = 0.0
        self.met = Met()

    def add(self, outcome: Outcome) -> None:
        self.histories += 1
        self.events += outcome.events
        self.failed += bool(outcome.problems)
        self.simulated_s += outcome.simulated_s
        self.met.add(outcome.met)

    def line(self, took_s: float) -> str:
        """Say it in a line; `took_s` of real time."""
        hours = self.simulated_s / 3600
        return (
            f"{self.histories} histories, {hours:.2f} simulated hours in {took_s:.0f} s "
            f"({hours * 60 / took_s:.1f} hours a minute), {self.events} events, "
            f"{self.met.crashes.total()} crashes, {self.failed} with problems"
        )

    def lines(self, took_s: float) -> Iterator[str]:
        """Yield all that is known, line by line."""
        yield self.line(took_s)
        for fault, count in self.met.faults.most_common():
            yield f"{count:9} {fault.value}"
        yield f"{self.met.fenced:9} requests of an owner that had been replaced"
        yield "crashes by place:"
        for place, count in self.met.crashes.most_common():
            yield f"{count:9} {place}"
