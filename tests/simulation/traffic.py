"""What enforcers and operators write to `events`: good, bad, late, twice; drawn from a seed."""

import random
from typing import Any

import msgspec
from msgspec import Raw, Struct

from schemas.envelope import rfc3339
from schemas.events import partition_subject
from streams.budget.policy import policy_from_toml, policy_json

# Small limits and a short memory, so that few events meet many rules; few phases, because every
# restart reads the policy again.
POLICY = policy_from_toml(
    """
    version = "small"
    closing_phases = ["B"]
    [phases.A]
    tokens = 100
    latency_ms = 60_000
    weight = 1
    cost_usd = 0.1
    [phases.B]
    tokens = 50
    latency_ms = 30_000
    weight = 1.5
    cost_usd = 0.1
    [ladders.task.latency_ms]
    block = 3.0
    [ladders.phase.tokens]
    block = 4.0
    [clock]
    execution_max_ms = 250_000
    stuck_after_ms = 120_000
    abandoned_after_ms = 600_000
    retention_ms = 300_000
    checkpoint_every_ms = 500_000
    """,
    "small.toml",
)
OTHER = policy_from_toml(
    """
    version = "other"
    closing_phases = []
    [phases.A]
    tokens = 300
    latency_ms = 10_000
    weight = 1
    """,
    "other.toml",
)
PHASES = ("A", "A", "A", "B", "C")  # C is unknown: refused
HEADERS_NONE: tuple[tuple[str, bytes | None], ...] = ()
Data = dict[str, Any]


class Upstream(Struct):
    """One record on its way to `events`."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = HEADERS_NONE


class Traffic:
    """Makes events; the tasks of a partition stay in it, children beside their parents."""

    def __init__(self, chance: random.Random, partitions: int) -> None:
        self._chance = chance
        self._partitions = partitions
        self._number = 0
        self._sequences = {"one": 0, "two": 0}

    def event(self, partition: int, own_ms: int) -> Upstream:
        """Return a good event, most of them usage."""
        chance = self._chance
        kind = chance.choices(list(_OF_TASKS), weights=_WEIGHTS)[0]
        subject = self._task(partition)
        data = _OF_TASKS[kind][1](chance)
        if kind == "task.started" and chance.random() < 0.4:
            data["parent_task_id"] = self._task(partition)
        return self._upstream(kind, subject, data, own_ms)

    def for_partition(self, partition: int, own_ms: int) -> Upstream:
        """Return what an operator writes for a whole partition."""
        chance = self._chance
        kind, data = chance.choice(_OF_PARTITIONS)
        return self._upstream(kind, partition_subject(partition), data, own_ms)

    def tick(self, partition: int, own_ms: int) -> Upstream:
        return self._upstream("clock.tick", partition_subject(partition), None, own_ms)

    def bad(self, partition: int, own_ms: int) -> Upstream:
        """Return what is no event, or one that is refused."""
        chance = self._chance
        good = self.event(partition, own_ms)
        value = good.value
        assert value is not None
        broken = chance.choice(
            (
                None,
                b"",
                b"\xff\xfe{",
                b"[]",
                value[: chance.randrange(len(value))],
                value.replace(b'"stoploss.', b'"stopless.'),
                value.replace(b'"phase":"', b'"phase":"?'),
                value.replace(b'"subject":"', b'"subject":"partition/'),
                value.replace(b'"specversion":"1.0"', b'"specversion":"0.3"'),
            )
        )
        headers = chance.choice((HEADERS_NONE, (("ce_id", b"1"),), (("trace", None),)))
        return Upstream(chance.choice((good.key, None, b"\xff")), broken, headers)

    def _task(self, partition: int) -> str:
        return f"T{self._chance.randrange(3)}-{partition}"

    def _upstream(self, kind: str, subject: str, data: object, own_ms: int) -> Upstream:
        self._number += 1
        chance = self._chance
        source = chance.choice(("one", "one", "two"))
        envelope: dict[str, Any] = {
            "specversion": "1.0",
            "type": f"stoploss.{kind}",
            "id": f"e-{self._number}",
            "source": source,
            "subject": subject,
            "time": rfc3339(own_ms),
        }
        if chance.random() < 0.5:
            self._sequences[source] += 1
            envelope["sequence"] = f"{self._sequences[source]:020}"
        if data is not None:
            envelope["data"] = data
        return Upstream(subject.encode(), msgspec.json.encode(envelope))


def _usage(chance: random.Random) -> Data:
    data: Data = {"phase": chance.choice(PHASES), "input_tokens": chance.randrange(120)}
    if chance.random() < 0.3:
        data |= {"attempt": chance.randint(1, 3)}
    if chance.random() < 0.3:
        data |= {"output_tokens": chance.randrange(40), "duration_ms": chance.randrange(90_000)}
    if chance.random() < 0.2:
        data |= {"cost_usd": chance.choice((0.01, 0.07)), "estimated": True}
    return data


def _started(chance: random.Random) -> Data:
    return {
        "complexity": chance.choice(("tiny", "medium", "large")),
        "importance": chance.choice(("low", "high", "critical")),
        "importance_justification": chance.choice(("outage", " ")),
    }


def _phase_started(chance: random.Random) -> Data:
    return {"phase": chance.choice(PHASES)}


def _phase_ended(chance: random.Random) -> Data:
    data: Data = {"phase": chance.choice(PHASES)}
    if chance.random() < 0.5:
        data["duration_ms"] = chance.choice((-1, 10, 20_000, 86_400_001))
    return data


def _granted(chance: random.Random) -> Data:
    return {"by": "ada", "reason": "because", "multiplier": chance.choice((1.5, 2, 10))}


def _reclassified(chance: random.Random) -> Data:
    return {"by": "ada", "reason": "because", "complexity": chance.choice(("tiny", "large"))}


def _ended(chance: random.Random) -> Data:
    return {"outcome": chance.choice(("completed", "failed"))}


def _reviewed(chance: random.Random) -> Data:
    return {"by": "ada", "approved": chance.random() < 0.5}


_OF_TASKS = {
    "phase.usage": (10, _usage),
    "phase.started": (5, _phase_started),
    "phase.ended": (4, _phase_ended),
    "task.started": (3, _started),
    "task.granted": (1, _granted),
    "task.reclassified": (1, _reclassified),
    "task.ended": (1, _ended),
    "justification.reviewed": (1, _reviewed),
}
_WEIGHTS = [weight for weight, _ in _OF_TASKS.values()]
_OF_PARTITIONS: list[tuple[str, Data]] = [
    *(
        ("mode.set", {"mode": mode, "by": by, "reason": "because"})
        for mode in ("observe", "partial", "enforce")
        for by in ("ada", "breaker")
    ),
    ("all.granted", {"by": "ada", "reason": "because", "multiplier": 2}),
    *(
        (
            "policy.set",
            {
                "policy": Raw(policy_json(one)),
                "version": one.version,
                "hash": one.hash,
                "by": "ada",
            },
        )
        for one in (POLICY, OTHER)
    ),
]
