"""The agent `alerts` as a whole, but for Kafka: topics are lists, and its worker dies where it likes."""

import copy
import random
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from schemas.alerts import Alert
from schemas.audit import Action, Audit
from schemas.decode import decode_event
from schemas.envelope import Envelope
from schemas.events import ModeSet
from schemas.feedback import Feedback
from schemas.health import Health
from schemas.quantiles import with_value
from schemas.sketches import Histogram
from schemas.topics import Topic
from streams.agents.alerts import AGENT, SIGNALS
from streams.agents.folding import fold_batch
from streams.agents.stages import Stage
from streams.agents.together import Restored, announcement, with_owed
from streams.budget.policy import policy_from_toml, policy_json
from streams.insight.signals import Tick
from tests.unit.budget.story import story
from tests.unit.budget.world import PARTITION, START_MS
from tests.unit.insight.watching import edge_text

MINUTE_MS = 60_000
TASKS, WINDOWS = AGENT.stages


@dataclass
class Record:
    """A record of a topic."""

    topic: str
    partition: int
    offset: int
    timestamp: float
    key: bytes | None
    value: bytes | None
    headers: tuple[()] = ()


@dataclass
class Log:
    """All topics, what each stage keeps, and how far it has come."""

    topics: dict[str, list[Record]] = field(default_factory=dict)
    stored: dict[str, dict[int, Restored]] = field(default_factory=dict)
    written: int = 0
    done: dict[str, int] = field(default_factory=dict)

    def append(
        self, topic: str, key: bytes | None, value: bytes | None, at_ms: int, partition: int = 0
    ) -> None:
        records = self.topics.setdefault(topic, [])
        offset = sum(one.partition == partition for one in records)
        records.append(Record(topic, partition, offset, at_ms / 1000, key, value))

    def waiting(self, stage: Stage) -> list[str]:
        return [
            source.topic
            for source in stage.sources
            if self.done.get(source.topic, 0) < len(self.topics.get(source.topic, []))
        ]

    def batch(self, stage: Stage, chance: random.Random, *, written: float = 1.0) -> None:
        """Fold some records of one source, and keep only a part of it where the worker dies."""
        topic = chance.choice(self.waiting(stage))
        begin = self.done.get(topic, 0)
        records = self.topics[topic][begin : begin + chance.randint(1, 15)]
        kept = self.stored.setdefault(stage.name, {})
        folded = fold_batch(
            stage, "", records, lambda partition: kept.setdefault(partition, Restored()).entries
        )
        at_ms = round(records[-1].timestamp * 1000)
        for one in [*folded.outputs, *(one.make(p) for one in folded.everywhere for p in range(2))]:
            self.append(one.topic, one.key, one.value, at_ms, one.partition)
        for partition in {change.partition for change in folded.changes}:
            changes = [(one.key, one.value) for one in folded.changes if one.partition == partition]
            restored = kept[partition]
            changed = with_owed(restored.owed, changes)
            self.written += 1
            for key, value in _first(
                [*announcement(self.written, changed), *changed.items()], written
            ):
                restored.read(key, value)
        if written == 1.0:
            self.done[topic] = begin + len(records)

    def run(self, seed: int, *, crashes: bool) -> "Log":
        """Read everything, from whichever source chance has it."""
        chance = random.Random(seed)
        for stage in AGENT.stages:
            while self.waiting(stage):
                dies = crashes and chance.random() < 0.3
                self.batch(stage, chance, written=chance.random() * 0.99 if dies else 1.0)
        return self

    def data(self, topic: str, kind: type[Any]) -> list[Any]:
        found = [
            msgspec.json.decode(one.value or b"", type=Envelope[kind])  # type: ignore[valid-type]
            for one in self.topics.get(topic, [])
        ]
        return list({one.id: one for one in found}.values())

    def edges(self) -> list[str]:
        """Every edge, told once however often it was sent, by name and scope."""
        return sorted({edge_text(one.data) for one in self.data(Topic.ALERTS, Alert)})


def _first(records: list[Any], share: float) -> list[Any]:
    return records[: round(len(records) * share)]


def envelope(kind: str, data: object, number: int) -> bytes:
    return msgspec.json.encode(
        Envelope(
            id=f"{kind}-{number}",
            source="enforcer-1",
            type=f"stoploss.{kind}",
            subject="x",
            time="2026-01-01T00:00:00Z",
            data=data,
        )
    )


def heard(log: Log, at_ms: int, **said: Any) -> None:  # noqa: ANN401 - any field
    number = len(log.topics.get(Topic.HEALTH, []))
    value = envelope("health", Health(source="enforcer-1", **said), number)
    log.append(Topic.HEALTH, b"enforcer-1", value, at_ms)


def tick(log: Log, at_ms: int) -> None:
    log.append(SIGNALS.topic, None, msgspec.json.encode(Tick(at_ms=at_ms)), at_ms)


def took(value: float, count: int) -> Histogram:
    return with_value(Histogram(), value, count)


def ledgers(text: str) -> Log:
    """What the ledger has written about a history."""
    log = Log()
    for topic, made in story(text).output:
        if topic in {Topic.LIFECYCLE, Topic.DECISIONS, Topic.EXECUTIONS}:
            log.append(topic, made.key, made.value, START_MS, PARTITION)
    return log


HISTORY = "".join(
    f"""
    start  TASK-{n} planned=THINK
    begin  TASK-{n} THINK
    usage  TASK-{n} THINK {"12_500 calls=5 → block" if n % 3 == 0 else "100 calls=5"}
    {f"grant  TASK-{n} ×3           → continue" if n % 6 == 0 else ""}
    usage  TASK-{n} THINK calls=3 known={"false" if n % 3 else "true"}
    end    TASK-{n} THINK
    {f"finish TASK-{n}" if n % 4 else ""}
    """
    for n in range(30)
)


OF_LEDGER = ledgers(HISTORY)


def everything() -> Log:
    log = copy.deepcopy(OF_LEDGER)
    heard(log, START_MS, queue_depth=31)
    heard(log, START_MS + 1, queue_depth=10)
    return log


UNDISTURBED = everything().run(0, crashes=False).edges()


def test_edges_are_those_of_the_log() -> None:
    blocked = [n for n in range(30) if n % 3 == 0]
    resolved = [n for n in blocked if n % 6 == 0 or n % 4]
    names = ("budget_breach", "task_blocked")
    expected = [f"{name} TASK-{n} firing 1" for n in blocked for name in names]
    expected += [f"{name} TASK-{n} resolved 2" for n in resolved for name in names]
    expected += ["stop_loss_rate all firing 1", "usage_missing all firing 1"]
    expected += ["queue_depth enforcer-1 firing 1", "queue_depth enforcer-1 resolved 2"]
    assert sorted(expected) == UNDISTURBED


@pytest.mark.parametrize("seed", range(1, 41), ids="seed-{}".format)
def test_no_crash_and_no_order_is_seen_in_the_edges(seed: int) -> None:
    assert everything().run(seed, crashes=True).edges() == UNDISTURBED


def test_a_deletion_of_decisions_is_no_bad_record() -> None:
    log = ledgers("start TASK-1 planned=THINK\nusage TASK-1 THINK 12_500 → block\n")
    log.append(Topic.DECISIONS, b"TASK-1", None, START_MS, PARTITION)
    assert log.run(0, crashes=False).edges() == [
        "budget_breach TASK-1 firing 1",
        "budget_breach TASK-1 resolved 2",
        "task_blocked TASK-1 firing 1",
        "task_blocked TASK-1 resolved 2",
    ]
    assert Topic.DEAD_LETTERS not in log.topics


def test_far_too_slow_for_long_sets_the_mode_of_every_partition_once_and_notes_it() -> None:
    log = Log()
    heard(log, START_MS, transition_ms=took(300, 100))
    for minute in range(31, 45):
        heard(log, START_MS + minute * MINUTE_MS, transition_ms=took(900, 60))
    log.run(0, crashes=False)
    assert log.edges() == [
        "breaker_open enforcer-1 firing 1",
        "transition_latency enforcer-1 firing 1",
    ]
    events = [decode_event(one.value, ()) for one in log.topics[Topic.EVENTS]]
    assert [(one.partition, one.key) for one in log.topics[Topic.EVENTS]] == [
        (0, b"partition/0"),
        (1, b"partition/1"),
    ]
    (first, second) = (one for one in events if isinstance(one, ModeSet))
    assert (first.data.mode, first.data.by, second.data) == ("observe", "breaker", first.data)
    assert first.id.endswith("-0")
    assert second.id.endswith("-1")
    (noted,) = log.data(Topic.AUDIT, Audit)
    assert (noted.data.action, noted.data.by) == (Action.MODE_SET, "breaker")
    assert (noted.data.subject, noted.data.after) == ("mode", {"mode": "observe"})
    assert noted.data.reason == first.data.reason


def test_answers_and_policies_are_heard() -> None:
    log = ledgers("start TASK-1 planned=THINK\nusage TASK-1 THINK 12_500 → block\n")
    policy = policy_from_toml("[alerts.false_positive_rate]\ncount_min = 1", "policy.toml")
    document = msgspec.json.decode(policy_json(policy))
    said = Audit(subject="policy", action=Action.POLICY_SET, by="ann", policy=document)
    log.append(Topic.AUDIT, b"policy", envelope("audit", said, 0), START_MS)
    log.run(0, crashes=False)
    answer = Feedback(task_id="TASK-1", decision_id="3-1-4", false_positive=True, by="ann")
    decided = log.topics[Topic.DECISIONS][-1].value or b""
    answer = msgspec.structs.replace(answer, decision_id=msgspec.json.decode(decided)["id"])
    log.append(Topic.FEEDBACK, b"TASK-1", envelope("feedback", answer, 0), START_MS)
    log.run(0, crashes=False)
    assert "false_positive_rate medium/medium firing 1" in log.edges()


def test_health_that_cannot_be_merged_becomes_a_letter() -> None:
    log = Log()
    heard(log, START_MS, transition_ms=Histogram(relative_error=0.05))
    heard(log, START_MS, queue_depth=31)
    log.run(0, crashes=False)
    (letter,) = log.topics[Topic.DEAD_LETTERS]
    assert msgspec.json.decode(letter.value or b"")["data"]["detail"] == {
        "field": "data.transition_ms.relative_error",
        "value": "0.05",
        "allowed": "0.01",
    }
    assert log.edges() == ["queue_depth enforcer-1 firing 1"]


def test_ticks_resolve_what_time_resolves() -> None:
    log = Log()
    heard(log, START_MS, queue_depth=31)
    log.run(0, crashes=False)
    tick(log, START_MS + 31 * MINUTE_MS)
    assert log.run(0, crashes=False).edges() == [
        "queue_depth enforcer-1 firing 1",
        "queue_depth enforcer-1 resolved 2",
    ]
