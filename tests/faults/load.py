"""What agents say, from a seed: families of tasks, and everything that goes wrong between them and us.

Events come twice, late, in another order, in binary mode, without a sequence, and not as events at
all. It is known of each whether it counts, so that at the end the sums can be held against it.
"""

import random
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

PHASES = ("STRATEGIZE", "SPEC", "PLAN", "THINK", "IMPLEMENT", "VERIFY", "REVIEW", "PR", "MONITOR")
COMPLEXITIES = ("tiny", "small", "medium", "large")
IMPORTANCES = ("low", "medium", "high", "critical")
TIME = "2026-11-22T21:00:00.123Z"  # producers' clocks decide nothing
# Tasks share buckets, so that what is expected takes the same room however long it runs.
BUCKETS = 4_096
SOURCES = 8
# A task remembers 256 events without a sequence: what comes again comes before they are forgotten.
AGAIN_AFTER_MAX = 200
HELD_MAX = 200

TWICE, HELD, OVERTAKEN, BINARY, BAD, NO_SEQUENCE = 0.02, 0.005, 0.003, 0.05, 0.01, 0.1
GRANTED, RECLASSIFIED, EXPLAINED = 0.004, 0.002, 0.002


class Said(NamedTuple):
    """A record for `events`."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class Expected:
    """What has to come out of all that was said. Usage by bucket of tasks, in model calls."""

    calls: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    records: int = 0
    distinct: int = 0
    twice: int = 0
    overtaken: int = 0
    held: int = 0
    binary: int = 0
    bad: int = 0
    tasks: int = 0

    def count(self, task: str, calls: int) -> None:
        self.calls[bucket(task)] += calls


def bucket(task: str) -> int:
    return zlib.crc32(task.encode()) % BUCKETS


class Load:
    """An endless stream of records; the same seed gives the same one."""

    def __init__(self, seed: int, *, families: int = 60, usages: int = 12) -> None:
        """Begin.

        Args:
            seed: of everything.
            families: of tasks at a time.
            usages: about how many of them a phase of a task has.
        """
        self.expected = Expected()
        self._random = random.Random(f"{seed}-load")
        self._usages = usages
        self._name = f"F{seed}"
        self._count = 0
        self._sequences = [0] * SOURCES
        self._recent: deque[Said] = deque(maxlen=AGAIN_AFTER_MAX)
        self._held: deque[tuple[int, Said]] = deque()
        self._families = [self._family() for _ in range(families)]

    def take(self, count: int) -> list[Said]:
        """Return the next records, about `count`."""
        taken: list[Said] = []
        while len(taken) < count:
            place = self._random.randrange(len(self._families))
            said = next(self._families[place], None)
            if said is None:
                self._families[place] = self._family()
            else:
                self._with_trouble(said, taken)
        return self._noted(taken)

    def rest(self) -> Iterator[list[Said]]:
        """Yield what is still to be said until all tasks have ended."""
        for family in self._families:
            yield self._noted(list(family))
        yield self._noted([said for _, said in self._held])
        self._held.clear()

    def _noted(self, taken: list[Said]) -> list[Said]:
        self.expected.records += len(taken)
        return taken

    def _with_trouble(self, said: Said, taken: list[Said]) -> None:
        chance = self._random.random
        taken.append(said)
        self._recent.append(said)
        while self._held and self._held[0][0] <= self.expected.records + len(taken):
            taken.append(self._held.popleft()[1])
        if chance() < TWICE:
            self.expected.twice += 1
            taken.append(self._random.choice(self._recent))
        if chance() < BAD:
            taken.append(self._bad(said.key))

    def _family(self) -> Iterator[Said]:
        """Yield the life of a root and its descendants, mixed."""
        chance = self._random.random
        self._count += 1
        root = f"{self._name}-{self._count}"
        parents: dict[str, str | None] = {root: None}
        if chance() < 0.4:
            for number in range(self._random.randint(1, 3)):
                parents[f"{root}.{number}"] = self._random.choice(list(parents))
        self.expected.tasks += len(parents)
        source = self._random.randrange(SOURCES)
        lives = {task: self._life(root, task, parents[task], source) for task in parents}
        while lives:
            task = self._random.choice(list(lives))
            said = next(lives[task], None)
            if said is None:
                del lives[task]
            else:
                yield said

    def _life(self, root: str, task: str, parent: str | None, source: int) -> Iterator[Said]:
        chance = self._random.random
        planned = sorted(self._random.sample(PHASES, self._random.randint(1, 5)), key=PHASES.index)
        start = {
            "planned_phases": planned,
            "complexity": self._random.choice(COMPLEXITIES),
            "importance": self._random.choice(IMPORTANCES),
            "owner": "ada",
            "parent_task_id": parent,
        }
        # A child that is late to say so rolls its earlier usage up; a root may never say it.
        is_late, is_silent = chance() < 0.1, parent is None and chance() < 0.05
        if not (is_late or is_silent):
            yield self._event("task.started", root, task, source, start)
        for place, phase in enumerate(planned):
            for _ in range(2 if chance() < 0.1 else 1):
                if chance() < 0.9:
                    yield self._event("phase.started", root, task, source, {"phase": phase})
                for _ in range(self._random.randint(1, 2 * self._usages)):
                    yield from self._used(root, task, phase, source)
                if chance() < 0.85:
                    ended: dict[str, object] = {"phase": phase}
                    if chance() < 0.7:
                        ended["duration_ms"] = self._random.randrange(200_000)
                    yield self._event("phase.ended", root, task, source, ended)
            if is_late and place == 0:
                yield self._event("task.started", root, task, source, start)
        outcome = {"outcome": self._random.choice(("completed", "failed"))}
        yield self._event("task.ended", root, task, source, outcome)
        if chance() < 0.3:  # late usage is still spent
            yield from self._used(root, task, planned[-1], (source + 1) % SOURCES)

    def _used(self, root: str, task: str, phase: str, source: int) -> Iterator[Said]:
        chance = self._random.random
        rare = chance()
        if rare < GRANTED:
            granted = {"by": "ada", "reason": "more", "multiplier": 1.5}
            yield self._event("task.granted", root, task, source, granted)
        elif rare < GRANTED + RECLASSIFIED:
            change = {"by": "ada", "reason": "it grew", "complexity": "large"}
            yield self._event("task.reclassified", root, task, source, change)
        elif rare < GRANTED + RECLASSIFIED + EXPLAINED:
            yield self._event("task.explained", root, task, source, {"by": "ada", "text": "so"})
        if chance() < OVERTAKEN:
            late, early = (
                self._usage(root, task, phase, source, counts=counts) for counts in (False, True)
            )
            self.expected.overtaken += 1
            yield early
            yield late
        elif chance() < HELD and len(self._held) < HELD_MAX:
            self.expected.held += 1
            due = self.expected.records + self._random.randint(5, HELD_MAX)
            self._held.append((due, self._usage(root, task, phase, None)))
        else:
            yield self._usage(root, task, phase, None if chance() < NO_SEQUENCE else source)

    def _usage(
        self, root: str, task: str, phase: str, source: int | None, *, counts: bool = True
    ) -> Said:
        """Return usage; it has no sequence where `source` is None."""
        tokens = self._random.randrange(400)
        data: dict[str, object] = {
            "phase": phase,
            "model": "model-1",
            "input_tokens": tokens,
            "cache_read_tokens": tokens // 3,
            "output_tokens": self._random.randrange(200),
            "duration_ms": self._random.randrange(3_000),
        }
        calls = self._random.randint(1, 4)
        if calls > 1:
            data["model_calls"] = calls
        if self._random.random() < 0.1:
            data["cost_usd"] = 0.0125
        if counts:
            self.expected.count(task, calls)
        return self._event("phase.usage", root, task, source, data)

    def _event(
        self, kind: str, root: str, task: str, source: int | None, data: Mapping[str, object]
    ) -> Said:
        self.expected.distinct += 1
        attributes = {
            "specversion": "1.0",
            "id": f"{self._name}-{self.expected.distinct}",
            "source": f"{self._name}/{'any' if source is None else source}",
            "type": f"stoploss.{kind}",
            "subject": task,
            "time": TIME,
            "partitionkey": root,
        }
        if source is not None:
            self._sequences[source] += 1
            attributes["sequence"] = f"{self._sequences[source]:020d}"
        if self._random.random() < BINARY:
            self.expected.binary += 1
            headers = tuple((f"ce_{name}", value.encode()) for name, value in attributes.items())
            return Said(root.encode(), orjson.dumps(data), headers)
        return Said(root.encode(), orjson.dumps({**attributes, "data": data}))

    def _bad(self, key: bytes) -> Said:
        """Return what is no event; its number says which it was, in the letter that comes of it."""
        number = self.expected.bad
        self.expected.bad += 1
        mark = f"bad:{number};"
        event = {
            "specversion": "1.0",
            "id": mark,
            "source": self._name,
            "type": "stoploss.phase.usage",
            "subject": key.decode(),
            "time": TIME,
            "data": {"phase": "THINK", "input_tokens": 1},
        }
        wrong: Sequence[Mapping[str, object]] = (
            {"type": "stoploss.phase.imagined"},
            {"data": {"phase": "THINK", "input_tokens": -1}},
            {"data": {"phase": "NO_SUCH_PHASE", "input_tokens": 1}},
            {"data": {"phase": "THINK", "input_tokens": 1, "cache_read_tokens": 2}},
            {"subject": "partition/0"},
        )
        choice = self._random.randrange(len(wrong) + 2)
        if choice < len(wrong):
            return Said(key, orjson.dumps({**event, **wrong[choice]}))
        return Said(key, (b"\xff\xfe" if choice > len(wrong) else b'{"cut": "') + mark.encode())
