"""What agents that look at windows share: entries as packed bytes, edges as records."""

from collections.abc import Iterator, MutableMapping

from msgspec import Raw

from schemas.alerts import Alert
from schemas.envelope import Envelope
from schemas.topics import Topic
from streams.agents.stages import Outbound, encode


class Packed(MutableMapping[str, bytes]):
    """The entries of a stage as the bytes that windows are kept in."""

    def __init__(self, entries: MutableMapping[str, Raw]) -> None:
        self._entries = entries

    def __getitem__(self, key: str) -> bytes:
        return bytes(self._entries[key])

    def __setitem__(self, key: str, value: bytes) -> None:
        self._entries[key] = Raw(value)

    def __delitem__(self, key: str) -> None:
        del self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def alert_record(edge: Envelope[Alert]) -> Outbound:
    """Return an edge as a record of `alerts`."""
    return Outbound(Topic.ALERTS, edge.subject.encode(), encode(edge))
