"""What a partition's records become, batch by batch, as the agent's first stage has it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from schemas.alerts import Origin
from schemas.envelope import Envelope
from schemas.topics import Topic
from streams.insight.gathering import Due, Entry, finish, fold_told

PARTITION = 3
Read = tuple[Topic, int, Envelope[Any]]


def numbered(told: Iterable[tuple[Topic, Envelope[Any]]]) -> list[Read]:
    """Give each record its offset in its topic."""
    counts: dict[Topic, int] = defaultdict(int)
    found = []
    for topic, record in told:
        found.append((topic, counts[topic], record))
        counts[topic] += 1
    return found


class Gathering:
    """Entries as they are stored between batches, and what was said."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.said: list[Due] = []

    def batch(self, records: Sequence[Read]) -> list[Due]:
        """Tell records."""
        entries = {key: _DECODE(value) for key, value in self.stored.items()}
        before = dict(self.stored)
        for topic, offset, record in records:
            fold_told(entries, Origin(topic, PARTITION, offset), record)
        changed = [key for key, entry in entries.items() if before.get(key) != _ENCODE(entry)]
        said = finish(entries, changed)
        self.stored = {key: _ENCODE(entry) for key, entry in entries.items()}
        self.said += said
        return said

    @property
    def entries(self) -> dict[str, Entry]:
        return {key: _DECODE(value) for key, value in self.stored.items()}

    @property
    def last_due(self) -> dict[str, Due]:
        """The last that was said of each task."""
        return {one.facts.task_id: one for one in self.said}


_ENCODE = msgspec.json.Encoder(decimal_format="number").encode
_DECODER: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)
_DECODE = _DECODER.decode
