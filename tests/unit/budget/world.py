"""A partition under test: every event is folded twice, once straight through, once after a restart.

What no history may ever break is checked after each event, so that every story of the other files
is a test of these rules as well: restarts are invisible, a refused event leaves no trace, what is
sent twice changes nothing, decisions have no gaps, everything published fits its schema, and what
is kept as bytes is what it was made from.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.decode import decode_event
from schemas.envelope import rfc3339
from schemas.events import ClockTick
from schemas.outputs import OUTPUT_TYPES, Breach, Decision, ExecutionRecord, Lifecycle
from schemas.state import STATE_TYPES
from schemas.topics import Topic
from streams.budget.effects import Effect, Refused
from streams.budget.encode import ENCODER, EffectEncoder, Encoded
from streams.budget.evaluate import thresholds
from streams.budget.fold import fold
from streams.budget.ladder import REVIEW, level_at
from streams.budget.limits import LATENCY
from streams.budget.policy import Policy, builtin_policy
from streams.budget.restore import restore
from streams.budget.sleep import Patience, Sleep
from streams.budget.snapshot import drain_changes, partition_state, task_state
from streams.budget.state import PartitionState, Task, new_partition
from tests.unit.budget.plain_state import plain_state

START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
PARTITION = 3
OWN_SUBJECT = f"partition/{PARTITION}"
TYPES = OUTPUT_TYPES | STATE_TYPES


class Cause(msgspec.Struct):
    """A record of `events`."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()


class World:
    """One partition; `effects` is all it has caused so far, `last` what the last event caused."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.default_policy = policy or builtin_policy()
        self.state = new_partition(PARTITION, self.default_policy)
        self.dozing = new_partition(PARTITION, self.default_policy)
        self._sleep = Sleep(self.dozing, Patience(idle_ms=0, look_every_ms=0))
        self.records: dict[str, bytes] = {}
        self.offset = 0
        self.clock_ms = START_MS
        self.inputs: list[tuple[bytes, int]] = []
        self.output: list[tuple[Topic, Encoded]] = []
        self.effects: list[Effect] = []
        self.last: list[Effect] = []
        self._numbers: dict[str, int] = {}
        self._standing: set[tuple[str, str, str, int]] = set()

    def take(self, value: bytes, append_ms: int | None = None) -> list[Effect]:
        """Fold one record of `events` at the next offset; the clock stands without `append_ms`."""
        at_ms = self.clock_ms if append_ms is None else append_ms
        self.clock_ms = max(self.clock_ms, at_ms)
        cause = Cause(self.offset, value)
        before = self._state_at(at_ms)
        event = decode_event(value)
        effects = list(fold(self.state, event, offset=self.offset, append_ms=at_ms))
        self._fold_restarted(cause, at_ms, effects)
        self._fold_dozing(cause, at_ms, effects)
        self._check_published(effects)
        self._check_levels()
        self._check_written()
        if is_refused(effects):
            assert snapshot(self.state) == before, "a refused event left a trace"
        elif not isinstance(event, ClockTick):
            self._check_repeated(cause, at_ms)
        self.inputs.append((value, at_ms))
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
            if effect.topic is topic
            and effect.data is not None
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
        fold(moved, TICK, offset=self.offset, append_ms=at_ms)
        return snapshot(moved)

    def _check_repeated(self, cause: Cause, at_ms: int) -> None:
        """What a producer sends twice changes nothing."""
        again = restored(self.records, self.default_policy)
        event = decode_event(cause.value)
        effects = fold(again, event, offset=self.offset + 1, append_ms=at_ms)
        assert not effects, "an event that was sent twice was folded twice"
        assert snapshot(again) == snapshot(self.state), "an event sent twice left a trace"

    def _fold_restarted(self, cause: Cause, at_ms: int, effects: list[Effect]) -> None:
        """The same event, folded by a ledger that has just restored what the last one wrote."""
        again = restored(self.records, self.default_policy)
        event = decode_event(cause.value)
        caused = fold(again, event, offset=self.offset, append_ms=at_ms)
        output = [encoded(effect, self.clock_ms, cause) for effect in effects]
        assert [encoded(one, self.clock_ms, cause) for one in caused] == output, (
            "a restart changed what was published"
        )
        for effect in [*caused, *drain_changes(again)]:
            if effect.topic is Topic.TASKS:
                self._store(effect)
        assert snapshot(again) == snapshot(self.state), "a restart changed the state"
        kept = restored(self.records, self.default_policy)
        assert snapshot(kept) == snapshot(self.state), "what is stored is not the state"
        topics = (effect.topic for effect in effects)
        self.output += zip(topics, output, strict=True)

    def _fold_dozing(self, cause: Cause, at_ms: int, effects: list[Effect]) -> None:
        """The same event, folded by a ledger whose tasks sleep whenever they are not asked for."""
        dozing = self.dozing
        event = decode_event(cause.value)
        caused = list(fold(dozing, event, offset=self.offset, append_ms=at_ms))
        assert [encoded(one, self.clock_ms, cause) for one in caused] == [
            encoded(one, self.clock_ms, cause) for one in effects
        ], "sleep changed what was published"
        written = {one.key: encoded(one, self.clock_ms).value for one in drain_changes(dozing)}
        stored = {key: self.records.get(key) for key in written}
        assert stored == written, "sleep changed what is stored"
        self._sleep.step()
        assert all(
            task.verdict >= REVIEW and not task.is_ended for task in dozing.tasks.awake.values()
        ), "somebody is awake"

    def _store(self, effect: Effect) -> None:
        value = encoded(effect, self.clock_ms).value
        if value is None:
            del self.records[effect.key]
        else:
            self.records[effect.key] = value

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
                data = ENCODER.encode(effect.data)
                msgspec.json.decode(data, type=TYPES[effect.type])

    def _check_levels(self) -> None:
        """Nothing that counts is left unjudged: no cell has reached more than the level it stands at."""
        for task in self.state.tasks.awake.values():
            for name, index, cell in task.cells():
                if cell.line is not None and index != LATENCY:
                    reached = level_at(thresholds(task, name, index, cell), cell.used)
                    assert reached <= cell.level, f"{task.task_id} {name or 'task'} was not judged"

    def _check_written(self) -> None:
        """What is kept as bytes for many tasks is what would be made for each of them now."""
        for task in self.state.tasks.awake.values():
            assert ENCODER.encode(task_state(task)) == plain_state(task), task.task_id

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
    names = sorted(state.tasks)
    tasks = {name: ENCODER.encode(task_state(state.tasks[name])) for name in names}
    policies = dict(sorted(state.policies.items()))
    children = {name: sorted(found) for name, found in sorted(state.children.items())}
    return {
        "partition": ENCODER.encode(own),
        "tasks": tasks,
        "policies": policies,
        "children": children,
        "open": state.open_tasks,
    }


def encoded(effect: Effect, clock_ms: int, cause: Cause | None = None) -> Encoded:
    """The record that the ledger writes."""
    encoder = EffectEncoder(PARTITION, "stoploss.events", lambda _: True)
    return encoder.encode(effect, clock_ms, cause)


def is_refused(effects: Sequence[Effect]) -> bool:
    """Whether the event itself was refused, and not only a part of it."""
    return any(isinstance(one.data, Refused) for one in effects) and not any(
        isinstance(one.data, Lifecycle) and one.data.change == "started" for one in effects
    )


def record(
    kind: str,
    subject: str,
    event_id: str,
    data: object,
    own_ms: int,
    *,
    source: str = "enforcer",
    sequence: int | None = None,
    traceparent: str | None = None,
) -> bytes:
    """One record of `events`, as an enforcer writes it."""
    envelope: dict[str, object] = {
        "specversion": "1.0",
        "type": f"stoploss.{kind}",
        "id": event_id,
        "source": source,
        "subject": subject,
        "time": rfc3339(own_ms),
    }
    if sequence is not None:
        envelope["sequence"] = f"{sequence:020}"
    if traceparent is not None:
        envelope["traceparent"] = traceparent
    if data is not None:
        envelope["data"] = data
    return ENCODER.encode(envelope)


TICK = decode_event(record("clock.tick", OWN_SUBJECT, "tick", None, START_MS))
