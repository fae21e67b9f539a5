"""What makes a run one that shows something: it came to its end, under the load it was to have."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Line = Mapping[str, Any]
Lines = Sequence[Line]

PEERS = frozenset({"faust", "quix-streams"})
SENT_LEAST = 0.99  # of the rate that was asked for


def flaws(line: Line) -> list[str]:
    """Say what keeps a measurement from showing anything; nothing where it does.

    Of a peer that is fifty times slower the time is over before its events are: what it did until
    then is its rate. Of the ledger and of Kafka Streams all has to be done.
    """
    return list(_flaws(line))


def _flaws(line: Line) -> Iterator[str]:
    finished = line.get("finished", True) and line.get("throughput", {}).get("finished", True)
    if not finished and line.get("system") not in PEERS:
        yield "not finished"
    if not line.get("drained", True):
        yield "not all was sent"
    if "sent_per_s" in line and line["sent_per_s"] < line["events_per_s"] * SENT_LEAST:
        yield f"sent: {line['sent_per_s']:,}/s of {line['events_per_s']:,}"
