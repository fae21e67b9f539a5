"""A partition under test: every event is folded twice, once straight through, once after a restart.

What no history may ever break is checked after each event, so that every story of the other files
is a test of these rules as well: restarts are invisible, a refused event leaves no trace, what is
sent twice changes nothing, decisions have no gaps, and everything published fits its schema.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.decode import decode_event
from schemas.envelope import Envelope, rfc3339
from schemas.events import ClockTick, Event
from schemas.outputs import OUTPUT_TYPES, Breach, Decision, ExecutionRecord, Lifecycle
from schemas.refusal import Refusal
from schemas.state import STATE_TYPES
from schemas.topics import Topic
from streams.budget.effects import Effect, Refused
from streams.budget.fold import fold
from streams.budget.policy import Policy, builtin_policy
from streams.budget.snapshot import drain_changes, partition_state, restore, task_state
from streams.budget.state import PartitionState, Task, new_partition

START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
PARTITION = 3
OWN_SUBJECT = f"partition/{PARTITION}"
ENCODER = msgspec.json.Encoder(decimal_format="number")
TYPES = OUTPUT_TYPES | STATE_TYPES


class World:
    """One partition; `effects` is all it has caused so far, `last` what the last event caused."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.default_policy = policy or builtin_policy()
        self.state = new_partition(PARTITION, self.default_policy)
        self.restarted = new_partition(PARTITION, self.default_policy)
        self.records: dict[str, bytes] = {}
        self.offset = 0
        self.clock_ms = START_MS
        self.effects: list[Effect] = []
        self.last: list[Effect] = []
        self._numbers: dict[str, int] = {}
        self._standing: set[tuple[str, str, str, int]] = set()

    def take(self, record: bytes, append_ms: int | None = None) -> list[Effect]:
        """Decode and fold one record, as it stands in `events`."""
        return self.fold(decode_event(record), append_ms)

    def fold(self, event: Event | Refusal, append_ms: int | None = None) -> list[Effect]:
        """Fold one event at the next offset; the clock stands where no `append_ms` is given."""
        self.clock_ms = max(self.clock_ms, append_ms or 0)
        at_ms = self.clock_ms if append_ms is None else append_ms
        before = self._state_at(at_ms)
        effects = list(fold(self.state, event, offset=self.offset, append_ms=at_ms))
        self._fold_restarted(event, at_ms, effects)
        self._check_published(effects)
        if is_refused(effects):
            assert snapshot(self.state) == before, "a refused event left a trace"
        elif not isinstance(event, Refusal):
            self._check_repeated(event, at_ms)
        self.offset += 1
        self.effects += effects
        self.last = effects
        return effects

    def task(self, task_id: str) -> Task:
        return self.state.tasks[task_id]

    def of(self, topic: Topic, task_id: str | None = None) -> list[Any]:
        """What was published to one topic, in order; of one task only where it is named."""
        return [
            effect.data
            for effect in self.effects
            if effect.topic is topic and effect.data is not None
            and (task_id is None or effect.key == task_id)
        ]

    def decisions(self, task_id: str | None = None) -> list[Decision]:
        return self.of(Topic.DECISIONS, task_id)

    def breaches(self, task_id: str | None = None) -> list[Breach]:
        return self.of(Topic.BREACHES, task_id)

    def executions(self, task_id: str | None = None) -> list[ExecutionRecord]:
        return self.of(Topic.EXECUTIONS, task_id)

    def lifecycles(self, task_id: str | None = None) -> list[Lifecycle]:
        return self.of(Topic.LIFECYCLE, task_id)

    def letters(self) -> list[Refused]:
        return self.of(Topic.DEAD_LETTERS)

    def _state_at(self, at_ms: int) -> dict[str, Any]:
        """What the state is once the clock has moved there, and nothing else happened."""
        moved = restored(self.records, self.default_policy)
        fold(moved, tick(), offset=self.offset, append_ms=at_ms)
        return snapshot(moved)

    def _check_repeated(self, event: Event, at_ms: int) -> None:
        """What a producer sends twice changes nothing."""
        if isinstance(event, ClockTick):
            return
        again = restored(self.records, self.default_policy)
        effects = fold(again, event, offset=self.offset + 1, append_ms=at_ms)
        after = snapshot(again)
        assert list(effects) == [], "an event that was sent twice was folded twice"
        assert after == snapshot(self.state), "an event that was sent twice left a trace"

    def _fold_restarted(self, event: Event | Refusal, at_ms: int, effects: list[Effect]) -> None:
        """The same event, folded by a ledger that has just restored what the last one wrote."""
        self.restarted = restored(self.records, self.default_policy)
        again = fold(self.restarted, event, offset=self.offset, append_ms=at_ms)
        assert published(again) == published(effects), "a restart changed what was published"
        for effect in [*again, *drain_changes(self.restarted)]:
            if effect.topic is Topic.TASKS:
                if effect.data is None:
                    self.records.pop(effect.key)
                else:
                    self.records[effect.key] = encoded(effect)
        assert snapshot(self.restarted) == snapshot(self.state), "a restart changed the state"
        kept = restored(self.records, self.default_policy)
        assert snapshot(kept) == snapshot(self.state), "what is stored is not the state"

    def _check_published(self, effects: Sequence[Effect]) -> None:
        ids = [(effect.offset, effect.index) for effect in effects]
        assert len(set(ids)) == len(ids), "two records have the same id"
        for effect in effects:
            match effect.data:
                case Decision(task_id=task_id, number=number):
                    assert number == self._numbers.get(task_id, 0) + 1, "decisions have a gap"
                    self._numbers[task_id] = number
                case Breach() as breach:
                    self._check_breach(breach)
                case None if effect.topic is Topic.DECISIONS:
                    del self._numbers[effect.key]
                case None if effect.topic is Topic.TASKS:
                    self._standing = {one for one in self._standing if one[0] != effect.key}
                case _:
                    pass
            if effect.data is not None and not isinstance(effect.data, Refused):
                msgspec.json.decode(encoded(effect), type=Envelope[TYPES[effect.type]])  # type: ignore[name-defined]

    def _check_breach(self, breach: Breach) -> None:
        """A breach is unique by cell, level and version of the limits, unless it was withdrawn."""
        cell = f"{breach.cell.scope} {breach.cell.phase} {breach.cell.metric}"
        key = (breach.task_id, cell, breach.level.value, breach.limits_version)
        if breach.withdrawn:
            self._standing.discard(key)
            return
        assert key not in self._standing, f"{key} was published twice"
        self._standing.add(key)


def restored(records: dict[str, bytes], policy: Policy) -> PartitionState:
    """A ledger that starts on what stands in `tasks`."""
    return restore(PARTITION, list(records.items()), policy)


def snapshot(state: PartitionState) -> dict[str, Any]:
    """All that a restart would read, but for the clock and the next offset."""
    own = msgspec.structs.replace(partition_state(state), next_offset=0, clock="", clock_ms=0)
    tasks = {name: ENCODER.encode(task_state(task)) for name, task in sorted(state.tasks.items())}
    policies = dict(sorted(state.policies.items()))
    children = {name: sorted(found) for name, found in sorted(state.children.items())}
    return {
        "partition": ENCODER.encode(own),
        "tasks": tasks,
        "policies": policies,
        "children": children,
        "open": state.open_tasks,
    }


def encoded(effect: Effect) -> bytes:
    """The record that the ledger writes."""
    data = effect.data
    return ENCODER.encode(
        Envelope(
            id=f"{PARTITION}-{effect.offset}-{effect.index}",
            source="stoploss/ledger",
            type=effect.type,
            subject=effect.key,
            time=rfc3339(0),
            data=data,
        )
    )


def published(effects: Sequence[Effect]) -> list[tuple[str, bytes]]:
    return [(effect.topic.value, encoded(effect)) for effect in effects]


def is_refused(effects: Sequence[Effect]) -> bool:
    """Whether the event itself was refused, and not only a part of it."""
    return any(isinstance(one.data, Refused) for one in effects) and not any(
        isinstance(one.data, Lifecycle) and one.data.change == "started" for one in effects
    )


def tick() -> ClockTick:
    event = decode_event(record("clock.tick", OWN_SUBJECT, "tick", None, START_MS))
    assert isinstance(event, ClockTick)
    return event


def record(
    kind: str,
    subject: str,
    event_id: str,
    data: object,
    own_ms: int,
    *,
    source: str = "enforcer",
    sequence: int | None = None,
) -> bytes:
    """One record of `events`, as an enforcer writes it."""
    envelope = {
        "specversion": "1.0",
        "type": f"stoploss.{kind}",
        "id": event_id,
        "source": source,
        "subject": subject,
        "time": rfc3339(own_ms),
    }
    if sequence is not None:
        envelope["sequence"] = f"{sequence:020}"
    if data is not None:
        envelope["data"] = data
    return ENCODER.encode(envelope)


