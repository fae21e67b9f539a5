"""What one read of the topics changes in Redis: gathered first, so that the last word of each key wins.

Of ten states of a task in one read, Redis gets one.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from streams.view.keys import FEED_RECORDS, SOURCES_MAX, TASK_RECORDS

Command = list[bytes]
# A command's arguments go over Lua's stack, which takes 8,000.
ARGUMENTS_MAX = 1_000


class Changes:
    """Commands for Redis, by kind; `commands` gives them in an order that does not matter."""

    def __init__(self) -> None:
        self.fields: dict[bytes, dict[bytes, bytes | None]] = {}
        self.scores: dict[bytes, dict[bytes, float | None]] = {}
        self.members: dict[bytes, set[bytes]] = {}
        self.counts: Counter[tuple[bytes, bytes]] = Counter()
        self.lists: dict[bytes, list[bytes]] = {}
        self.feeds: dict[bytes, list[tuple[int, bytes]]] = {}
        self.texts: dict[bytes, bytes | None] = {}
        self.expiries_s: dict[bytes, int] = {}
        self.bounded: dict[bytes, bytes] = {}

    def __repr__(self) -> str:
        return f"<Changes of {len(self.fields) + len(self.lists) + len(self.texts)} keys>"

    def set_field(self, key: bytes, field: bytes, value: bytes | None) -> None:
        """Set a field of a hash; None deletes it."""
        self.fields.setdefault(key, {})[field] = value

    def score(self, key: bytes, member: bytes, score: float | None) -> None:
        """Place a member of a sorted set; None removes it."""
        self.scores.setdefault(key, {})[member] = score

    def add_member(self, key: bytes, member: bytes) -> None:
        """Add a member of a set."""
        self.members.setdefault(key, set()).add(member)

    def count(self, key: bytes, field: bytes, amount: int) -> None:
        """Add to a number; the field goes when it comes to 0."""
        self.counts[key, field] += amount

    def push(self, key: bytes, value: bytes) -> None:
        """Append to a list that keeps its last `TASK_RECORDS`."""
        self.lists.setdefault(key, []).append(value)

    def feed(self, key: bytes, at_ms: int, value: bytes) -> None:
        """Add to a feed that keeps the `FEED_RECORDS` of the latest times."""
        entries = self.feeds.setdefault(key, [])
        entries.append((at_ms, value))
        if len(entries) > 4 * FEED_RECORDS:
            self.feeds[key] = heapq.nlargest(FEED_RECORDS, entries)

    def set_text(self, key: bytes, value: bytes | None) -> None:
        """Set a key; None deletes it."""
        self.texts[key] = value

    def expire(self, key: bytes, at_s: int) -> None:
        """Have a key end then, in Unix seconds; the latest word counts."""
        self.expiries_s[key] = max(at_s, self.expiries_s.get(key, 0))

    def bound(self, ranking: bytes, companion: bytes) -> None:
        """Keep the `SOURCES_MAX` highest of a sorted set, and their fields in its companion."""
        self.bounded[ranking] = companion

    def commands(self) -> Iterator[Command]:
        """Yield what to do in Redis; COUNT, BOUND and EXPIREAT are those of `apply.lua`."""
        yield from self._of_fields()
        yield from self._of_scores()
        for key, members in self.members.items():
            yield from _in_parts([b"SADD", key], sorted(members))
        for (key, field), amount in self.counts.items():
            if amount:
                yield [b"COUNT", key, field, b"%d" % amount]
        for key, values in self.lists.items():
            yield from _in_parts([b"RPUSH", key], values[-TASK_RECORDS:])
            yield [b"LTRIM", key, b"%d" % -TASK_RECORDS, b"-1"]
        for key, entries in self.feeds.items():
            latest = heapq.nlargest(FEED_RECORDS, entries)
            yield from _in_parts([b"ZADD", key], _flat((b"%d" % at, value) for at, value in latest))
            yield [b"ZREMRANGEBYRANK", key, b"0", b"%d" % -(FEED_RECORDS + 1)]
        for key, value in self.texts.items():
            yield [b"UNLINK", key] if value is None else [b"SET", key, value]
        for key, at_s in self.expiries_s.items():
            yield [b"EXPIREAT", key, b"%d" % at_s]
        for ranking, companion in self.bounded.items():
            yield [b"BOUND", ranking, companion, b"%d" % SOURCES_MAX]

    def _of_fields(self) -> Iterator[Command]:
        for key, fields in self.fields.items():
            present = ((field, value) for field, value in fields.items() if value is not None)
            yield from _in_parts([b"HSET", key], _flat(present))
            gone = [field for field, value in fields.items() if value is None]
            yield from _in_parts([b"HDEL", key], gone)

    def _of_scores(self) -> Iterator[Command]:
        for key, scores in self.scores.items():
            placed = (
                (repr(score).encode(), member)
                for member, score in scores.items()
                if score is not None
            )
            yield from _in_parts([b"ZADD", key], _flat(placed))
            gone = [member for member, score in scores.items() if score is None]
            yield from _in_parts([b"ZREM", key], gone)


def _flat(pairs: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    return [each for pair in pairs for each in pair]


def _in_parts(command: Command, arguments: Sequence[bytes]) -> Iterator[Command]:
    """Yield a command as often as its arguments need, nothing where there are none."""
    for start in range(0, len(arguments), ARGUMENTS_MAX):
        yield [*command, *arguments[start : start + ARGUMENTS_MAX]]
