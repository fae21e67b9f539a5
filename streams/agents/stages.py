"""What an agent is made of: sources, stages that fold their records, topics and entries of its own.

Pure. A stage is given the records of a batch one by one, with the entries of the partition that each
came from: what is in partition p of the sources has its entries in partition p, whatever the key, since
a task's children live where their root does.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from msgspec import Struct

from schemas.alerts import Origin
from schemas.envelope import Envelope
from schemas.topics import DAY_MS, Topic
from streams.kafka.settings import Settings

Entry = TypeVar("Entry")

# What agents write: records and entries; amounts are exact numbers.
encode = msgspec.json.Encoder(decimal_format="number").encode

BATCH_RECORDS_MAX = 500
# A batch waits so long for more records: what comes together is sent together.
LINGER_S = 0.05
INTERNAL_KEPT_MS = 7 * DAY_MS


class Read(Protocol):
    """A record as it was read; `timestamp` in seconds."""

    @property
    def topic(self) -> str:
        """With its prefix."""

    @property
    def partition(self) -> int:
        """Where it stands."""

    @property
    def offset(self) -> int:
        """Its place there."""

    @property
    def timestamp(self) -> float:
        """Seconds since 1970."""

    @property
    def key(self) -> bytes | None:
        """As it was sent."""

    @property
    def value(self) -> bytes | None:
        """As it was sent."""

    @property
    def headers(self) -> Any:  # noqa: ANN401 - faust's
        """Pairs of a name and bytes."""


class Inbound(Struct, frozen=True):
    """A record that was read: `topic` without its prefix, `data` as the source decodes it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: str
    data: Any

    @property
    def origin(self) -> Origin:
        """Its place in its topic: what follows from it names it."""
        return Origin(self.topic, self.partition, self.offset)


class Outbound(Struct, frozen=True):
    """A record to be sent; `topic` without the prefix, None deletes the key."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int = 0


class Everywhere(Struct, frozen=True):
    """A record for each partition of a topic, sent together; `make` is given the partition's number."""

    topic: str
    make: Callable[[int], Outbound]


@dataclass(frozen=True)
class Source:
    """A topic that a stage reads. `type` is that of the envelope; None: the decoder tells all.

    `has_deletions`: a record without a value is one, and comes with `data` None; else it is refused.
    """

    topic: str
    decoder: msgspec.json.Decoder[Any]
    type: str | None = None
    has_deletions: bool = False


def source(topic: str, data: type[Struct], kind: str, *, has_deletions: bool = False) -> Source:
    """Return a topic with envelopes of one `kind`, such as `stoploss.decision`."""
    return Source(topic, msgspec.json.Decoder(Envelope[data]), kind, has_deletions)  # type: ignore[valid-type]


@dataclass(frozen=True)
class InternalTopic:
    """A topic of one partition between two stages: `{prefix}agents-AGENT-NAME`."""

    topic: str
    kept_ms: int = INTERNAL_KEPT_MS


@dataclass(frozen=True)
class Ticks:
    """That time passes is a record as well: one in so many seconds, in a topic of one partition.

    Whoever owns that partition writes it. `make` is given a time in milliseconds since 1970, before
    which nothing is left to read in any other source of the agent; while something is, time stands
    still. What a fold knows of time comes from there, and from the records.
    """

    topic: str
    every_s: float
    make: Callable[[int], bytes]


class Entries(MutableMapping[str, Entry], Generic[Entry]):
    """The entries of one partition, and what a batch has changed of them, not written yet.

    An entry is changed by setting it; what is done to one that was only looked at is lost.
    """

    def __init__(self, stored: Mapping[bytes, bytes], decoder: msgspec.json.Decoder[Entry]) -> None:
        self._stored, self._decoder = stored, decoder
        self._seen: dict[str, Entry] = {}
        self._changed: dict[str, Entry | None] = {}

    def __repr__(self) -> str:
        return f"<Entries {len(self._stored)} stored, {len(self._changed)} changed>"

    @property
    def changed(self) -> Mapping[str, Entry | None]:
        """What was set, and with None what was deleted, in the order in which it first was."""
        return self._changed

    def __getitem__(self, key: str) -> Entry:
        if key in self._changed:
            changed = self._changed[key]
            if changed is None:
                raise KeyError(key)
            return changed
        if key not in self._seen:
            self._seen[key] = self._decoder.decode(self._stored[key.encode()])
        return self._seen[key]

    def __setitem__(self, key: str, entry: Entry) -> None:
        self._changed[key] = entry

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._changed[key] = None

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        if key in self._changed:
            return self._changed[key] is not None
        return key.encode() in self._stored

    def __iter__(self) -> Iterator[str]:
        for stored in self._stored:
            if (key := stored.decode()) not in self._changed:
                yield key
        for key, entry in self._changed.items():
            if entry is not None:
                yield key

    def __len__(self) -> int:
        stored = self._stored
        return len(stored) + sum(
            (entry is not None) - (key.encode() in stored) for key, entry in self._changed.items()
        )


Fold = Callable[[Any, Inbound], Iterable[Outbound | Everywhere]]
Finish = Callable[[Any], Iterable[Outbound]]


Dropped = Callable[[str, Any], int]


def none(_key: str, _entry: object) -> int:
    """Say that there is room for all of it."""
    return 0


def nothing(_entries: object) -> Iterable[Outbound]:
    """Say nothing more at the end of a batch."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What is done with the records of some topics, all of them with as many partitions.

    Args:
        name: of its entries' table as well.
        sources: what is read.
        fold: given the entries of the record's partition and the record, changes the entries and
            returns what is to be sent. It has no clock, no chance and no memory but the entries.
        finish: given the entries at the end of a batch; returns what is to be sent besides.
        entry: the type of the entries, a tagged union where there are several; None: none are kept.
        dropped: given the key of an entry and the entry, returns how much it says that there was no
            room for; it only ever grows.
    """

    name: str
    sources: tuple[Source, ...]
    fold: Fold
    finish: Finish = nothing
    entry: Any = None
    dropped: Dropped = none
    records_max: int = BATCH_RECORDS_MAX
    linger_s: float = LINGER_S


@dataclass(frozen=True, kw_only=True)
class Agent:
    """What runs under one name, in a consumer group of its own.

    Args:
        name: as in `stoploss agents NAME`.
        stages: each with an offset of its own.
        internal: what it writes to itself.
        writes: public topics that have to be there besides the sources.
        ticks: what tells it that time passes.
        set_up: given the settings, returns it as they want it; names and sources stay.
    """

    name: str
    stages: tuple[Stage, ...]
    internal: tuple[InternalTopic, ...] = ()
    writes: tuple[Topic, ...] = ()
    ticks: tuple[Ticks, ...] = ()
    set_up: "Callable[[Settings], Agent] | None" = None

    @property
    def group(self) -> str:
        """The name of its group, without the prefix."""
        return f"agents-{self.name}"

    def table(self, stage: Stage) -> str:
        """Return the name of a stage's changelog, without the prefix; as faust makes it."""
        return f"{self.group}-{stage.name}-changelog"
