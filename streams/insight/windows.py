"""Windows on the records' own time, and how they are kept: what every rule over many tasks is made of.

A window is a ring of buckets, named by the time at which they begin. Its clock is the highest time
it has been told, by a record or by a tick; no rule reads another clock. What it holds does not depend
on the order in which records come: a record that is late counts in its own bucket as long as that is
in the window, and is counted as `late` afterwards.

Windows live in a mapping from key to bytes (a table of the agent's, under an overlay), one entry for
each rule and scope: an entry that was read is nobody else's, so that a batch that is thrown away has
changed nothing.
"""

from collections.abc import Iterator, MutableMapping
from typing import TypeVar

import msgspec
from msgspec import Struct

from schemas.alerts import Origin
from schemas.quantiles import merged
from schemas.sketches import Histogram

BUCKETS = 48  # of a window: as fine as 2 % of it
SCOPES_MAX = 256  # of one rule: names come from outside, and each has an entry that is never small

Windows = MutableMapping[str, bytes]
Entry = TypeVar("Entry", bound=Struct)


class Span(Struct, frozen=True):
    """How far back a window looks, and how long its buckets are, in milliseconds."""

    window_ms: int
    bucket_ms: int

    def __post_init__(self) -> None:
        assert 0 < self.bucket_ms <= self.window_ms, self

    @classmethod
    def of(cls, window_ms: int, buckets: int = BUCKETS) -> "Span":
        """Return the span of a window with at most that many whole buckets."""
        return cls(window_ms, -(-window_ms // buckets))

    def bucket(self, at_ms: int) -> int:
        """Return the time at which the bucket of a record begins."""
        return at_ms - at_ms % self.bucket_ms

    def has_left(self, start_ms: int, now_ms: int) -> bool:
        """Tell whether a bucket lies before the window altogether; the oldest one may reach into it."""
        return start_ms + self.bucket_ms <= now_ms - self.window_ms


class Counters(Struct, kw_only=True, omit_defaults=True):
    """How often what happened, by bucket; a count of 0 is not kept, so equal contents are equal."""

    now_ms: int = 0
    buckets: dict[int, dict[str, int]] = {}
    late: int = 0

    def advance(self, span: Span, now_ms: int) -> bool:
        """Let time pass: what is older than the window leaves it. Tell whether anything did."""
        self.now_ms = max(self.now_ms, now_ms)
        left = [one for one in self.buckets if span.has_left(one, self.now_ms)]
        for start_ms in left:
            del self.buckets[start_ms]
        return bool(left)

    def add(self, span: Span, at_ms: int, name: str, count: int = 1) -> None:
        """Count something at its own time; a negative `count` takes back what was counted then."""
        self.advance(span, at_ms)
        start_ms = span.bucket(at_ms)
        if span.has_left(start_ms, self.now_ms):
            self.late += max(count, 0)
            return
        counts = self.buckets.setdefault(start_ms, {})
        counts[name] = counts.get(name, 0) + count
        if not counts[name]:
            del counts[name]
        if not counts:
            del self.buckets[start_ms]

    def total(self, name: str) -> int:
        """Return how often something happened in the window."""
        return sum(counts.get(name, 0) for counts in self.buckets.values())

    def totals(self) -> dict[str, int]:
        """Return how often each thing happened in the window, by name, in order of the names."""
        names = sorted({name for counts in self.buckets.values() for name in counts})
        return {name: self.total(name) for name in names}


class Sketches(Struct, kw_only=True, omit_defaults=True):
    """What was measured, by bucket."""

    now_ms: int = 0
    buckets: dict[int, Histogram] = {}
    late: int = 0

    def advance(self, span: Span, now_ms: int) -> dict[int, Histogram]:
        """Let time pass; return what has left the window, by the time at which its bucket began."""
        self.now_ms = max(self.now_ms, now_ms)
        left = [one for one in self.buckets if span.has_left(one, self.now_ms)]
        return {start_ms: self.buckets.pop(start_ms) for start_ms in sorted(left)}

    def add(self, span: Span, at_ms: int, histogram: Histogram) -> bool:
        """Merge what was measured at a time; return False where that is before the window.

        The clock is not moved: `advance` does that, and says what leaves.
        """
        start_ms = span.bucket(at_ms)
        if span.has_left(start_ms, self.now_ms):
            self.late += 1
            return False
        self.buckets[start_ms] = merged(self.buckets.get(start_ms, Histogram()), histogram)
        return True

    def merged(self) -> Histogram:
        """Return all that was measured in the window."""
        return merged(*(self.buckets[start_ms] for start_ms in sorted(self.buckets)))


class Scopes(Struct, kw_only=True, omit_defaults=True):
    """Which scopes of a rule have an entry; `dropped` counts what came for one too many."""

    names: list[str] = []
    dropped: int = 0


class Seen(Struct, frozen=True, array_like=True):
    """The last signal that came from a partition of a topic: its record, its place among its own."""

    offset: int
    index: int


def load(windows: Windows, key: str, kind: type[Entry]) -> Entry:
    """Return the entry under a key, or a new one; it is the caller's own, to be saved."""
    packed = windows.get(key)
    return kind() if packed is None else msgspec.json.decode(packed, type=kind)


def save(windows: Windows, key: str, entry: Struct) -> None:
    """Keep an entry."""
    windows[key] = msgspec.json.encode(entry)


def is_new(windows: Windows, origin: Origin, index: int = 0, *, sequence: str = "") -> bool:
    """Tell whether a signal has not been counted yet, and note that it is now.

    Each `sequence` has a highest place of its own: of one record there may be a signal in several.

    Signals of one partition of a topic come in the order of their records, repeated ones in the order
    in which they came first; so the highest place is all that has to be kept. This holds for signals
    that follow from their own topic alone: what follows from several comes in another order after a
    restart, and must be harmless by itself when it is repeated.
    """
    key = f"seen/{sequence}{'/' if sequence else ''}{origin.topic}-{origin.partition}"
    place = (origin.offset, index)
    packed = windows.get(key)
    if packed is not None:
        seen = msgspec.json.decode(packed, type=Seen)
        if place <= (seen.offset, seen.index):
            return False
    save(windows, key, Seen(*place))
    return True


def admit(windows: Windows, rule: str, scope: str, scopes_max: int = SCOPES_MAX) -> bool:
    """Give a scope of a rule its place among those that ticks visit; False where there is none."""
    key = f"scopes/{rule}"
    scopes = load(windows, key, Scopes)
    if scope in scopes.names:
        return True
    is_admitted = len(scopes.names) < scopes_max
    if is_admitted:
        scopes.names.append(scope)
    else:
        scopes.dropped += 1
    save(windows, key, scopes)
    return is_admitted


def dismiss(windows: Windows, rule: str, scope: str) -> None:
    """Forget a scope of a rule; its place is free for another one."""
    key = f"scopes/{rule}"
    scopes = load(windows, key, Scopes)
    scopes.names.remove(scope)
    save(windows, key, scopes)


def scopes_of(windows: Windows, rule: str) -> Iterator[str]:
    """Yield the scopes of a rule in the order in which they came."""
    yield from load(windows, f"scopes/{rule}", Scopes).names
