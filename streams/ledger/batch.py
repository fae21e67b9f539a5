"""What has been folded and is not committed yet, and when it is time to commit it."""

from collections import Counter

from streams.kafka.ports import Record
from streams.ledger.traces import TracedDecisions

# While more is waiting anyway, a decision gains little from a commit of its own, and every commit
# writes the state of every task it touched: the longer, the fewer. Far behind, that is half the
# work: 250 tasks a partition, some 20 µs each.
GATHER_BEHIND_S = 0.2
GATHER_FAR_BEHIND_S = 1.0
FAR_BEHIND_EVENTS = 20_000
# Caught up, and nobody was told anything: only the state is new, and can wait for company.
GATHER_QUIET_S = 0.1
EVENTS_MAX = 50_000
RECORDS_MAX = 20_000
BYTES_MAX = 16 * 1024 * 1024


class OpenBatch:
    """Records of the events since the last commit. `urgent`: a verdict or its like is among them."""

    def __init__(self, started_s: float) -> None:
        self.started_s = started_s
        self.records: list[Record] = []
        self.size_bytes = 0
        self.events = 0
        self.first_append_ms: int | None = None
        self.dead_letters: Counter[str] = Counter()
        self.urgent = False
        self.traced = TracedDecisions()

    def add(self, records: list[Record]) -> None:
        """Keep what an event caused."""
        self.records += records
        self.size_bytes += sum(len(record.value or b"") for record in records)

    @property
    def is_full(self) -> bool:
        """Whether it must be committed whatever else is waiting."""
        return (
            self.events >= EVENTS_MAX
            or len(self.records) >= RECORDS_MAX
            or self.size_bytes >= BYTES_MAX
        )

    def due_in_s(self, now_s: float, *, lag: int) -> float:
        """Return how long the commit can still wait; 0 or less is now.

        Args:
            now_s: the loop's time.
            lag: how many events the partition has that can be read at once.
        """
        if self.is_full or (self.urgent and lag == 0):
            return 0.0
        if lag == 0:
            gather_s = GATHER_QUIET_S
        else:
            gather_s = GATHER_FAR_BEHIND_S if lag > FAR_BEHIND_EVENTS else GATHER_BEHIND_S
        return self.started_s + gather_s - now_s
