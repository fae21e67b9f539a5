"""What the ledger wrote, against the fold of its input straight through: record by record, all bytes.

`tasks` as well, not only its end: each of its batches says up to which input it goes, and what must
be in it follows. A judge is a function from a log to its differences, each of which says itself in
one line. The other one of `JUDGES` shares no code with the ledger: it sees what both folds get wrong.
"""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Protocol

import msgspec

from schemas.decode import Refusal, decode_event
from schemas.events import partition_subject
from schemas.topics import OUTPUTS, Topic
from streams.budget.encode import EffectEncoder, Encoded
from streams.budget.fold import fold
from streams.budget.policy import Policy, policy_json
from streams.budget.snapshot import drain_changes
from streams.budget.state import new_partition
from streams.kafka.ports import RawRecord
from streams.kafka.producers import fits
from streams.verify.difference import first_difference, shown
from streams.verify.independent.exact_json import loads
from streams.verify.independent.judge import first_difference as first_independent_difference
from streams.verify.independent.records import Records
from streams.verify.result import Difference

JUDGED = (Topic.TASKS, *OUTPUTS)


class WrittenLog(Protocol):
    """All that is committed, as anybody can read it; compaction has removed nothing from it."""

    @property
    def partitions(self) -> int:
        """How many `events` has."""

    @property
    def default_policy(self) -> Policy:
        """What the ledger folds by before the first `policy.set`, which it appends itself."""

    def topic(self, topic: Topic) -> str:
        """Return a topic's name."""

    def committed(self, topic: Topic, partition: int) -> Sequence[RawRecord]:
        """Return the records that were ever committed, in order."""


Judge = Callable[[WrittenLog], Sequence[object]]


class _Own(msgspec.Struct):
    next_offset: int


class _OwnState(msgspec.Struct):
    data: _Own


_OWN_STATE = msgspec.json.Decoder(_OwnState)


def next_offset(record: RawRecord, partition: int) -> int | None:
    """Return up to which input a batch goes, where a record of `tasks` says so."""
    if record.key != partition_subject(partition).encode() or record.value is None:
        return None
    return _OWN_STATE.decode(record.value).data.next_offset


def refold(log: WrittenLog) -> list[Difference]:
    """Return the first difference of each partition and topic."""
    found = []
    for partition in range(log.partitions):
        expected = _expected(log, partition)
        for topic in JUDGED:
            there = [Encoded(one.key, one.value) for one in log.committed(topic, partition)]
            difference = _first(log.topic(topic), partition, expected[topic], there)
            if difference is not None:
                found.append(difference)
    return found


def independent(log: WrittenLog) -> list[str]:
    """Return the first difference of each partition that a judge finds who knows the contract alone."""
    policy = log.default_policy
    found = []
    for partition in range(log.partitions):
        difference = first_independent_difference(
            Records(
                partition,
                [
                    (one.offset, one.timestamp, one.key, one.value, one.headers)
                    for one in log.committed(Topic.EVENTS, partition)
                ],
                {
                    topic.value: [
                        (one.offset, one.key, one.value) for one in log.committed(topic, partition)
                    ]
                    for topic in JUDGED
                },
                first_policy=(loads(policy_json(policy)), policy.hash),
            )
        )
        if difference is not None:
            found.append(f"the second judge: {difference}")
    return found


JUDGES: tuple[Judge, ...] = (refold, independent)


def _expected(log: WrittenLog, partition: int) -> dict[Topic, list[Encoded]]:
    """Fold all input; the batches are cut where the ledger says that it has cut them."""
    found: dict[Topic, list[Encoded]] = {topic: [] for topic in JUDGED}
    state = new_partition(partition, log.default_policy)
    encoder = EffectEncoder(partition, log.topic(Topic.EVENTS), fits)
    tasks = log.committed(Topic.TASKS, partition)
    cuts = {offset for one in tasks if (offset := next_offset(one, partition)) is not None}
    until = max(cuts, default=0)  # what is not committed yet is not judged
    for record in log.committed(Topic.EVENTS, partition):
        if record.offset >= until:
            break
        event = decode_event(record.value, record.headers)
        effects = fold(state, event, offset=record.offset, append_ms=record.timestamp)
        traceparent = None if isinstance(event, Refusal) else event.traceparent
        for effect in effects:
            made = encoder.encode(effect, state.clock_ms, record, traceparent)
            found[effect.topic].append(made)
        if record.offset + 1 in cuts:
            for effect in drain_changes(state):
                found[effect.topic].append(encoder.encode(effect, state.clock_ms))
    return found


def _first(
    topic: str, partition: int, expected: Sequence[Encoded], there: Sequence[Encoded]
) -> Difference | None:
    for one, other in zip_longest(expected, there):
        if one == other:
            continue
        key = _text((other or one).key)
        if other is None:
            return Difference(
                problem="missing",
                topic=topic,
                partition=partition,
                key=key,
                expected=_said(one.value),
            )
        if one is None:
            return Difference(
                problem="extra", topic=topic, partition=partition, key=key, found=_said(other.value)
            )
        field, wanted, found = "key", _text(one.key), key
        if one.key == other.key:
            unlike = None
            if one.value is not None and other.value is not None:
                unlike = first_difference(one.value, other.value)
            field, wanted, found = unlike or ("value", _said(one.value), _said(other.value))
        return Difference(
            problem="changed",
            topic=topic,
            partition=partition,
            key=key,
            field=field,
            expected=wanted,
            found=found,
        )
    return None


def _text(key: bytes | None) -> str:
    return "null" if key is None else key.decode(errors="replace")


def _said(value: bytes | None) -> str:
    return "a deletion" if value is None else shown(value)
