"""What retention, compaction and a ledger that goes on excuse, and what they do not."""

import base64
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from streams.budget.policy import policy_from_toml
from streams.verify.independent.judge import Judge, first_difference
from streams.verify.independent.records import Output, Records
from tests.unit.budget.histories import POLICY
from tests.unit.budget.world import OWN_SUBJECT, START_MS, record
from tests.unit.verify.planted import input_of
from tests.unit.verify.random_log import envelope_of, folded, policy_data, random_inputs

SEEDS = range(10)
NEVER_MS = 2**53


def log(seed: int) -> Records:
    return folded(random_inputs(seed, 80))


def differences(records: Records) -> list[str]:
    return [str(one) for one in Judge(records).differences()]


def compacted(records: Records) -> list[Output]:
    """What compaction leaves of the decisions: the last record of each key."""
    last = {key: offset for offset, key, _ in records.outputs["decisions"]}
    return [one for one in records.outputs["decisions"] if last[one[1]] == one[0]]


def with_outputs(records: Records, topic: str, found: list[Output]) -> Records:
    return replace(records, outputs=dict(records.outputs) | {topic: found})


@pytest.mark.parametrize("seed", SEEDS)
def test_decisions_that_were_compacted_are_not_missing(seed: int) -> None:
    left = with_outputs(log(seed), "decisions", compacted(log(seed)))
    assert len(compacted(log(seed))) < len(list(log(seed).outputs["decisions"]))
    assert differences(replace(left, compacted_before_ms=NEVER_MS)) == []


def test_the_last_decision_of_a_task_is_always_there() -> None:
    noticed = 0
    for records in map(log, SEEDS):
        left = compacted(records)
        for lost in [one for one in left if one[2] is not None]:
            damaged = with_outputs(records, "decisions", [one for one in left if one is not lost])
            found = first_difference(replace(damaged, compacted_before_ms=NEVER_MS))
            assert found is not None
            assert (found.topic, found.input_offset) == ("decisions", input_of(lost[2]))
            noticed += 1
    assert noticed > 5


@pytest.mark.parametrize("seed", SEEDS)
def test_decisions_too_young_to_be_compacted_are_missing(seed: int) -> None:
    left = with_outputs(log(seed), "decisions", compacted(log(seed)))
    assert first_difference(replace(left, compacted_before_ms=0)) is not None


def is_trimmed(topic: str) -> Callable[[str], bool]:
    return lambda one: one == topic


@pytest.mark.parametrize("seed", SEEDS)
def test_what_retention_has_removed_is_not_missing_and_what_follows_is_judged(seed: int) -> None:
    records = log(seed)
    breaches = list(records.outputs["breaches"])
    assert len(breaches) > 4
    trimmed = replace(
        with_outputs(records, "breaches", breaches[2:]), trimmed=is_trimmed("breaches")
    )
    assert differences(trimmed) == []
    assert first_difference(replace(trimmed, trimmed=is_trimmed("lifecycle"))) is not None
    torn = with_outputs(trimmed, "breaches", [*breaches[2:-2], breaches[-1]])
    found = first_difference(torn)
    assert found is not None
    assert found.input_offset == input_of(breaches[-2][2])


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_ledger_wrote_since_its_state_was_read_is_not_judged(seed: int) -> None:
    inputs = random_inputs(seed, 80)
    early, late = folded(inputs[:60]), folded(inputs)
    while_it_goes_on = with_outputs(late, "tasks", list(early.outputs["tasks"]))
    assert differences(replace(while_it_goes_on, later_offset=lambda: 80)) == []
    assert first_difference(replace(while_it_goes_on, later_offset=lambda: 60)) is not None


@pytest.mark.parametrize(
    "value",
    [b"", b"{", b"[]", b'{"id":7}', b'{"id":"3-5-x","data":{}}', b'{"id":"4-5-1","data":[]}'],
)
def test_a_torn_record_is_named_with_its_offset(value: bytes) -> None:
    records = log(0)
    breaches = list(records.outputs["breaches"])
    place = breaches[1][0]
    torn = with_outputs(records, "breaches", [breaches[0], (place, b"T0", value), *breaches[1:]])
    found = first_difference(torn)
    assert found is not None
    assert (found.topic, found.offset, found.input_offset) == ("breaches", place, None)


def told(*events: tuple[str, str, object]) -> list[tuple[bytes, int]]:
    return [
        (record(kind, subject, f"e-{index}", data, START_MS), START_MS + index)
        for index, (kind, subject, data) in enumerate(events)
    ]


def test_a_record_that_an_operator_has_rebuilt_is_told_once() -> None:
    mended = {"by": "ada", "reason": "torn", "action": "refold", "key": "T"}
    inputs = told(
        ("task.recovered", OWN_SUBJECT, mended),
        ("task.recovered", OWN_SUBJECT, mended | {"action": "end_task"}),
        ("task.recovered", "partition/9", mended),
    )
    records = folded(inputs)
    assert len(list(records.outputs["lifecycle"])) == 1
    assert len(list(records.outputs["dead-letters"])) == 2
    assert differences(records) == []
    assert first_difference(with_outputs(records, "lifecycle", [])) is not None


INSTANT = """
    version = "instant"
    [ladders.task.latency_ms]
    block = 2.0
    [clock]
    stuck_after_ms = 270_000
    abandoned_after_ms = 270_000
    retention_ms = 270_000
"""


@pytest.mark.parametrize("stranger", ["phase.started", "task.started", "task.ended"])
def test_levels_of_one_instant_are_decided_before_what_else_is_due_then(stranger: str) -> None:
    policy = policy_from_toml(INSTANT, "instant.toml")
    child = {"parent_task_id": "Z", "budget_overrides": {"task": {"latency_ms": 300_000}}}
    of_stranger = {"phase": "PR"} if stranger == "phase.started" else {}
    events = told(
        ("policy.set", OWN_SUBJECT, policy_data(policy)),
        ("task.started", "A", {"planned_phases": ["THINK"], **child}),
        ("task.started", "Z", {"planned_phases": ["THINK"]}),
        ("phase.started", "A", {"phase": "THINK"}),
        ("phase.started", "Z", {"phase": "THINK"}),
        (stranger, "M", of_stranger),
        ("phase.usage", "A", {"phase": "THINK"}),
        ("clock.tick", OWN_SUBJECT, None),
    )
    times_ms = [START_MS] * 6 + [START_MS + 1_000, START_MS + 270_000]
    inputs = [(value, at_ms) for (value, _), at_ms in zip(events, times_ms, strict=True)]
    records = folded(inputs)
    assert len(list(records.outputs["decisions"])) > 5, "else little was judged"
    assert differences(records) == []


def test_more_than_is_remembered_is_refused() -> None:
    begun = [("phase.started", "T", {"phase": "A", "attempt": at}) for at in range(1, 259)]
    used = [
        ("phase.usage", "T", {"phase": "A"}),
        ("phase.usage", "T", {"phase": "A", "attempt": 9}),
    ]
    ended = [("phase.ended", "T", {"phase": "A"}), ("phase.started", "T", {"phase": "A"})]
    others = [("phase.usage", "U", {"phase": f"p-{at}"}) for at in range(66)]
    family = [("task.started", f"F-{at}", {"parent_task_id": f"F-{at + 1}"}) for at in range(66)]
    policy = [("policy.set", OWN_SUBJECT, policy_data(POLICY))]
    records = folded(told(*policy, *begun, *used, *ended, *others, *family))
    assert len(list(records.outputs["dead-letters"])) > 5
    assert differences(records) == []


@pytest.mark.timeout(10)
def test_a_number_that_no_machine_could_write_out_is_refused_at_once() -> None:
    usage = record("phase.usage", "T", "e", {"phase": "THINK", "input_tokens": 7}, START_MS)
    records = folded([(usage.replace(b":7", b":1e999999999"), START_MS)])
    assert len(list(records.outputs["dead-letters"])) == 1
    assert differences(records) == []


def test_a_letter_that_has_kept_the_first_bytes_alone_is_judged_by_them() -> None:
    value = b"}" * 200
    inputs = [(value, START_MS)]
    records = folded(inputs)
    ((offset, key, whole),) = records.outputs["dead-letters"]
    assert whole is not None

    def letter(kept: bytes, size_bytes: int) -> Records:
        envelope = envelope_of(whole)
        envelope["data"]["original"] = base64.b64encode(kept).decode()
        envelope["data"]["original_bytes"] = size_bytes
        return with_outputs(records, "dead-letters", [(offset, key, msgspec.json.encode(envelope))])

    assert differences(letter(value[:100], 200)) == []
    assert first_difference(letter(value[:100], 201)) is not None
    assert first_difference(letter(b"]" * 100, 200)) is not None
    assert first_difference(letter(b"", 200)) is not None


def test_inputs_that_are_gone_from_the_end_are_missed() -> None:
    records = log(0)
    found = first_difference(replace(records, events=list(records.events)[:-5]))
    assert found is not None


def test_nothing_is_judged_before_a_ledger_has_written() -> None:
    records = replace(log(0), outputs={})
    assert differences(records) == []


def of_source(
    kind: str, subject: str, data: object, *, source: int, sequence: int
) -> tuple[bytes, int]:
    name = f"s-{source}"
    return (
        record(kind, subject, f"{name}/{sequence}", data, START_MS, sequence=sequence, source=name),
        START_MS,
    )


def uses(source: int, sequence: int) -> tuple[bytes, int]:
    used = {"phase": "THINK", "input_tokens": 1}
    return of_source("phase.usage", "T", used, source=source, sequence=sequence)


def recovers(source: int, sequence: int) -> tuple[bytes, int]:
    data = {"by": "ada", "reason": "torn", "action": "refold", "key": "T"}
    return of_source("task.recovered", OWN_SUBJECT, data, source=source, sequence=sequence)


def state_of(records: Records, key: str) -> dict[str, Any]:
    (*_, last) = [value for _, name, value in records.outputs["tasks"] if name == key.encode()]
    assert last is not None
    state: dict[str, Any] = envelope_of(last)["data"]
    return state


def test_of_300_sources_both_forget_the_same_and_count_again_what_those_repeat() -> None:
    history = [
        *[uses(source, 5) for source in range(255)],
        uses(0, 6),  # there is room: it keeps its place, the first
        uses(255, 5),
        uses(1, 6),  # there is none: from the second place it becomes the last
        *[uses(source, 5) for source in range(256, 300)],
        uses(0, 6),  # forgotten: it counts again, and number 45 is forgotten for it
        uses(1, 6),  # known
        uses(45, 5),  # forgotten, and for it number 46
        uses(47, 5),  # known
        uses(299, 4),  # known
    ]
    records = folded(history)
    state = state_of(records, "T")
    assert state["phases"]["THINK"]["counters"]["input_tokens"] == 300 + 2 + 2
    assert list(state["dedupe"]["sequences"])[-3:] == ["s-299", "s-0", "s-45"]
    assert len(state["dedupe"]["sequences"]) == 256
    assert differences(records) == []


def test_of_a_partition_whoever_was_silent_for_longest_is_forgotten() -> None:
    history = [
        *[recovers(source, 5) for source in range(255)],
        recovers(0, 6),  # becomes the last, though there is room
        *[recovers(source, 5) for source in range(255, 258)],
        recovers(0, 6),  # known
        recovers(1, 5),  # forgotten
        recovers(4, 5),  # known
    ]
    records = folded(history)
    told = [
        envelope_of(value)["data"]["change"]
        for _, _, value in records.outputs["lifecycle"]
        if value is not None
    ]
    assert told.count("recovered") == 255 + 1 + 3 + 1
    assert differences(records) == []


@pytest.mark.parametrize("seed", range(3))
def test_whatever_300_sources_repeat_both_say_the_same_of_it(seed: int) -> None:
    chance = random.Random(seed)
    history = [uses(chance.randrange(300), chance.randrange(4)) for _ in range(3_000)]
    records = folded(history)
    sequences = state_of(records, "T")["dedupe"]["sequences"]
    assert len(sequences) == 256
    assert differences(records) == []
