"""Damage planted in what the ledger wrote: each kind of it, and where it must be found.

`of_outputs` change the records of a good log; `of_folds` let the ledger fold other inputs than those
that stand in `events`, so that all that follows is changed as well.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from streams.budget.encode import ENCODER
from streams.budget.policy import Policy, policy_from_json, policy_json
from streams.verify.independent.records import Output, Records
from tests.unit.budget.histories import POLICY
from tests.unit.budget.world import OWN_SUBJECT, PARTITION, record
from tests.unit.verify.altered import (
    another_cause,
    another_input,
    flag_lost,
    has_overshoot,
    is_explained,
    is_of_a_task,
    more_evidence,
    more_overshoot,
    one_flag_more,
    put,
)
from tests.unit.verify.random_log import Inputs, envelope_of, folded, policy_data

JUDGED = ("decisions", "breaches", "executions", "lifecycle", "dead-letters")


@dataclass(frozen=True)
class Planted:
    """A damaged log. The difference is of `topic`, and of input `at` or, if `is_exact` is not set, later.

    Empty `topic`: of any.
    """

    records: Records
    topic: str
    at: int | None
    is_exact: bool = True


Plant = Callable[[random.Random, Inputs], Planted | None]


def input_of(value: bytes | None) -> int:
    """The input that has caused a record, as its id says."""
    assert value is not None
    return int(str(envelope_of(value)["id"]).split("-")[1])


def _outputs(records: Records) -> dict[str, list[Output]]:
    return {name: list(found) for name, found in records.outputs.items()}


def _with(records: Records, topic: str, found: list[Output]) -> Records:
    """The same log with other records in one topic, at the offsets that they stand at."""
    numbered = [(offset, key, value) for offset, (_, key, value) in enumerate(found)]
    return replace(records, outputs=dict(records.outputs) | {topic: numbered})


def _pick(
    chance: random.Random, found: list[Output], wanted: Callable[[dict[str, Any]], bool]
) -> int | None:
    there = [
        index
        for index, (_, _, value) in enumerate(found)
        if value is not None and wanted(envelope_of(value))
    ]
    return chance.choice(there) if there else None


def _any(_: dict[str, Any]) -> bool:
    return True


def _ours(envelope: dict[str, Any]) -> bool:
    """Whether a record is judged: a checkpoint says what others say as well."""
    return bool(envelope["data"].get("change") != "partition_checkpoint")


def without(topic: str, wanted: Callable[[dict[str, Any]], bool] = _ours) -> Plant:
    """A record is missing."""

    def plant(chance: random.Random, inputs: Inputs) -> Planted | None:
        records = folded(inputs)
        found = _outputs(records)[topic]
        at = _pick(chance, found, wanted)
        if at is None:
            return None
        cause = input_of(found[at][2])
        return Planted(_with(records, topic, found[:at] + found[at + 1 :]), topic, cause)

    return plant


def twice(topic: str) -> Plant:
    """A record stands there twice."""

    def plant(chance: random.Random, inputs: Inputs) -> Planted | None:
        records = folded(inputs)
        found = _outputs(records)[topic]
        at = _pick(chance, found, _any)
        if at is None:
            return None
        cause = input_of(found[at][2])
        copies = [*found[: at + 1], found[at], *found[at + 1 :]]
        return Planted(_with(records, topic, copies), topic, cause)

    return plant


def changed(
    topic: str,
    change: Callable[[dict[str, Any]], None],
    wanted: Callable[[dict[str, Any]], bool] = _ours,
) -> Plant:
    """A record says something else: `change` changes its data."""

    def plant(chance: random.Random, inputs: Inputs) -> Planted | None:
        records = folded(inputs)
        found = _outputs(records)[topic]
        at = _pick(chance, found, wanted)
        if at is None:
            return None
        offset, key, value = found[at]
        assert value is not None
        envelope = envelope_of(value)
        change(envelope["data"])
        found[at] = offset, key, ENCODER.encode(envelope)
        return Planted(_with(records, topic, found), topic, input_of(value))

    return plant


def state_changed(change: Callable[[dict[str, Any]], bool]) -> Plant:
    """The last state of a task says something else."""

    def plant(chance: random.Random, inputs: Inputs) -> Planted | None:
        records = folded(inputs)
        found = _outputs(records)["tasks"]
        last = {key: index for index, (_, key, _) in enumerate(found)}
        there = [
            index for key, index in sorted(last.items(), key=lambda one: one[1]) if _is_task(key)
        ]
        chance.shuffle(there)
        for at in there:
            offset, key, value = found[at]
            if value is None:
                continue
            envelope = envelope_of(value)
            if change(envelope["data"]):
                found[at] = offset, key, ENCODER.encode(envelope)
                return Planted(_with(records, "tasks", found), "tasks", None)
        return None

    return plant


def _is_task(key: bytes | None) -> bool:
    return key is not None and not key.startswith((b"partition/", b"policy/"))


def state_gone(chance: random.Random, inputs: Inputs) -> Planted | None:
    """A task's state was deleted too early."""
    records = folded(inputs)
    found = _outputs(records)["tasks"]
    last = {key: value for _, key, value in found}
    there = sorted(key for key, value in last.items() if key and _is_task(key) and value)
    if not there:
        return None
    return Planted(
        _with(records, "tasks", [*found, (0, chance.choice(there), None)]), "tasks", None
    )


def state_kept(chance: random.Random, inputs: Inputs) -> Planted | None:
    """A forgotten task's state is still there."""
    records = folded(inputs)
    found = _outputs(records)["tasks"]
    last = {key: index for index, (_, key, _) in enumerate(found) if _is_task(key)}
    gone = sorted(index for index in last.values() if found[index][2] is None)
    if not gone:
        return None
    at = chance.choice(gone)
    return Planted(_with(records, "tasks", found[:at] + found[at + 1 :]), "tasks", None)


def deletion_gone(chance: random.Random, inputs: Inputs) -> Planted | None:
    """The decisions of a forgotten task are still there."""
    records = folded(inputs)
    found = _outputs(records)["decisions"]
    gone = [index for index, (_, _, value) in enumerate(found) if value is None]
    if not gone:
        return None
    at = chance.choice(gone)
    left = found[:at] + found[at + 1 :]
    return Planted(_with(records, "decisions", left), "decisions", 0, is_exact=False)


def offset_wrong(chance: random.Random, inputs: Inputs) -> Planted | None:
    """The partition's record says that more inputs were folded, or fewer than before."""
    records = folded(inputs)
    found = _outputs(records)["tasks"]
    at = chance.choice(
        [index for index, (_, key, _) in enumerate(found) if key == OWN_SUBJECT.encode()][-1:]
    )
    value = found[at][2]
    assert value is not None
    envelope = envelope_of(value)
    envelope["data"]["next_offset"] += chance.choice([1, 5, -20])
    found[at] = 0, found[at][1], ENCODER.encode(envelope)
    return Planted(_with(records, "tasks", found), "tasks", None)


def out_of_order(chance: random.Random, inputs: Inputs) -> Planted | None:
    """Two decisions stand in the wrong order."""
    records = folded(inputs)
    found = _outputs(records)["decisions"]
    pairs = [
        index
        for index in range(len(found) - 1)
        if found[index][2] is not None and found[index + 1][2] is not None
    ]
    if not pairs:
        return None
    at = chance.choice(pairs)
    cause = input_of(found[at][2])
    found[at], found[at + 1] = found[at + 1], found[at]
    return Planted(_with(records, "decisions", found), "decisions", cause)


def aborted_made_visible(chance: random.Random, inputs: Inputs) -> Planted | None:
    """All that one input has caused stands there twice, as if an aborted transaction were visible."""
    records = folded(inputs)
    outputs = _outputs(records)
    causes = sorted(
        {input_of(value) for topic in JUDGED for _, _, value in outputs[topic] if value is not None}
    )
    if not causes:
        return None
    cause = chance.choice(causes)
    for topic in JUDGED:
        ours = [
            index
            for index, (_, _, value) in enumerate(outputs[topic])
            if value is not None and input_of(value) == cause
        ]
        if ours:
            end = ours[-1] + 1
            again = [outputs[topic][index] for index in ours]
            records = _with(records, topic, [*outputs[topic][:end], *again, *outputs[topic][end:]])
    return Planted(records, "", cause)


def inherited_missing(chance: random.Random, inputs: Inputs) -> Planted | None:
    """A block was not passed down, and the decisions after it are numbered as if it never was."""
    records = folded(inputs)
    found = _outputs(records)["decisions"]
    at = _pick(chance, found, lambda one: "inherited_from" in one["data"])
    if at is None:
        return None
    cause, key = input_of(found[at][2]), found[at][1]
    left = found[:at]
    for offset, own, value in found[at + 1 :]:
        if own == key and value is None:
            key = b""  # its next life
        if own != key or value is None:
            left.append((offset, own, value))
            continue
        envelope = envelope_of(value)
        envelope["data"]["number"] -= 1
        left.append((offset, own, ENCODER.encode(envelope)))
    return Planted(_with(records, "decisions", left), "decisions", cause)


def letter_of_a_good_event(chance: random.Random, inputs: Inputs) -> Planted | None:
    """An input that has counted stands in the dead letters as well."""
    records = folded(inputs)
    found = _outputs(records)["dead-letters"]
    at = _counted(chance, inputs)
    if at is None or not found:
        return None
    template = envelope_of(found[0][2] or b"")
    template["id"] = f"{PARTITION}-{at}-0"
    template["data"]["input"]["offset"] = at
    place = sum(1 for _, _, value in found if input_of(value) < at)
    letter = 0, None, ENCODER.encode(template)
    letters = [*found[:place], letter, *found[place:]]
    return Planted(_with(records, "dead-letters", letters), "dead-letters", at)


# What the ledger has folded is not what stands in `events`


def _counted(chance: random.Random, inputs: Inputs) -> int | None:
    """A report of usage that the ledger has counted: without it, the state is another."""
    there = [index for index, (value, _) in enumerate(inputs) if b"stoploss.phase.usage" in value]
    chance.shuffle(there)
    for at in there[:8]:
        data = envelope_of(inputs[at][0])["data"]
        if not data["input_tokens"] + data["output_tokens"]:
            continue
        start = list(inputs[: at + 1])
        if _phases(folded(start)) != _phases(folded(_replaced(start, at))):
            return at
    return None


def _phases(records: Records) -> dict[bytes | None, Any]:
    last = {key: value for _, key, value in records.outputs["tasks"]}
    return {
        key: envelope_of(value)["data"]["phases"]
        for key, value in last.items()
        if value is not None and _is_task(key)
    }


def _replaced(inputs: Inputs, at: int, value: bytes | None = None) -> list[tuple[bytes, int]]:
    """Inputs with another one in its place; a tick does nothing."""
    append_ms = inputs[at][1]
    tick = record("clock.tick", OWN_SUBJECT, "tick", None, append_ms)
    return [*inputs[:at], (tick if value is None else value, append_ms), *inputs[at + 1 :]]


def _folded_otherwise(inputs: Inputs, otherwise: Inputs) -> Records:
    return replace(folded(otherwise), events=folded(inputs).events)


def lost(chance: random.Random, inputs: Inputs) -> Planted | None:
    """The ledger has passed over an event."""
    at = _counted(chance, inputs)
    if at is None:
        return None
    records = _folded_otherwise(inputs, _replaced(inputs, at))
    return Planted(records, "", at, is_exact=False)


def counted_twice(chance: random.Random, inputs: Inputs) -> Planted | None:
    """The ledger has counted one report of usage twice."""
    at = _counted(chance, inputs)
    if at is None:
        return None
    envelope = envelope_of(inputs[at][0])
    data = envelope["data"]
    for name in ("input_tokens", "output_tokens", "cache_read_tokens", "files_read"):
        if name in data:
            data[name] *= 2
    data["model_calls"] = 2 * data.get("model_calls", 1)
    records = _folded_otherwise(inputs, _replaced(inputs, at, msgspec.json.encode(envelope)))
    return Planted(records, "", at, is_exact=False)


def counted_though_refused(chance: random.Random, inputs: Inputs) -> Planted | None:
    """An event is in the dead letters, and has counted nevertheless."""
    letters = {input_of(value) for _, _, value in folded(inputs).outputs["dead-letters"]}
    at = _counted(chance, inputs)
    if at is None:
        return None
    assert at not in letters
    envelope = envelope_of(inputs[at][0])
    envelope["data"]["cache_read_tokens"] = envelope["data"]["input_tokens"] + 1
    refused = _replaced(inputs, at, msgspec.json.encode(envelope))
    truth, counted = folded(refused), folded(inputs)
    return Planted(
        replace(
            counted,
            events=truth.events,
            outputs=dict(counted.outputs) | {"dead-letters": truth.outputs["dead-letters"]},
        ),
        "",
        at,
        is_exact=False,
    )


def ignored(kind: str, topic: str) -> Plant:
    """The ledger has passed over an event that is published by itself."""

    def plant(chance: random.Random, inputs: Inputs) -> Planted | None:
        caused = {
            input_of(value)
            for _, _, value in folded(inputs).outputs[topic]
            if value is not None and _ours(envelope_of(value))
        }
        there = [
            index
            for index, (value, _) in enumerate(inputs)
            if f'"stoploss.{kind}"'.encode() in value and index in caused
        ]
        if not there:
            return None
        at = chance.choice(there)
        return Planted(_folded_otherwise(inputs, _replaced(inputs, at)), "", at)

    return plant


def another_policy(_: random.Random, inputs: Inputs) -> Planted | None:
    """The ledger has computed with another base than the policy has, and names the right one."""
    document = envelope_of(policy_json(POLICY))
    document["phases"]["A"]["tokens"] += 1
    other = policy_from_json(msgspec.json.encode(document), "other")
    value = record("policy.set", OWN_SUBJECT, "p", policy_data(other), inputs[0][1])
    records = _folded_otherwise(inputs, _replaced(inputs, 0, value))
    outputs = {
        topic: [(offset, _renamed(key, other), _renamed(one, other)) for offset, key, one in found]
        for topic, found in records.outputs.items()
    }
    if outputs["lifecycle"] == folded(inputs).outputs["lifecycle"]:
        return None  # no task began under it
    return Planted(replace(records, outputs=outputs), "lifecycle", 0, is_exact=False)


def _renamed(text: bytes | None, other: Policy) -> bytes | None:
    return None if text is None else text.replace(other.hash.encode(), POLICY.hash.encode())


def another_clock(chance: random.Random, inputs: Inputs) -> Planted | None:
    """The ledger has taken another time for that of the broker: from one input on it is late."""
    caused = sorted(
        {
            input_of(value)
            for _, _, value in folded(inputs).outputs["lifecycle"]
            if value is not None and _ours(envelope_of(value))
        }
    )
    if not caused:
        return None
    at = chance.choice(caused)
    late = [
        (value, at_ms + (7 if index >= at else 0)) for index, (value, at_ms) in enumerate(inputs)
    ]
    return Planted(_folded_otherwise(inputs, late), "", at)


def _more(name: str) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        data[name] = data[name] + 1

    return change


def _flip_enforced(data: dict[str, Any]) -> None:
    data["enforced"] = not data["enforced"]


def trace_lost(topic: str) -> Plant:
    """The trace of an event was not carried on."""

    def plant(chance: random.Random, inputs: Inputs) -> Planted | None:
        records = folded(inputs)
        found = _outputs(records)[topic]
        at = _pick(chance, found, lambda one: "traceparent" in one)
        if at is None:
            return None
        offset, key, value = found[at]
        assert value is not None
        envelope = envelope_of(value)
        del envelope["traceparent"]
        found[at] = offset, key, ENCODER.encode(envelope)
        return Planted(_with(records, topic, found), topic, input_of(value))

    return plant


def _used_more(data: dict[str, Any]) -> bool:
    settled = [one for one in data["cells"] if one["metric"] == "tokens"]
    settled[0]["used"] += 0.1
    return True


def _another_verdict(data: dict[str, Any]) -> bool:
    data["verdict"] = "notice" if data["verdict"] == "continue" else "continue"
    return True


def _another_level(data: dict[str, Any]) -> bool:
    there = [one for one in data["cells"] if one["level"] != "continue"]
    for one in there[:1]:
        one["level"] = "continue"
    return bool(there)


def _another_limit(data: dict[str, Any]) -> bool:
    data["cells"][-1]["limit"] *= 2
    return True


def _older_sequence(data: dict[str, Any]) -> bool:
    sequences = data["dedupe"].get("sequences", {})
    for source in sequences:
        sequences[source] -= 1
        return True
    return False


def _is_withdrawn(envelope: dict[str, Any]) -> bool:
    return bool(envelope["data"].get("withdrawn"))


KINDS: dict[str, Plant] = {
    "a breach is missing": without("breaches"),
    "a breach stands there twice": twice("breaches"),
    "a withdrawn level is not withdrawn": without("breaches", _is_withdrawn),
    "a breach has another use": changed("breaches", _more("used")),
    "a breach has another version of the limits": changed("breaches", _more("limits_version")),
    "a decision is missing": without("decisions"),
    "a decision stands there twice": twice("decisions"),
    "two decisions are out of order": out_of_order,
    "a decision has another number": changed("decisions", _more("number")),
    "a decision holds whom nobody may hold": changed("decisions", _flip_enforced),
    "a breach has another cause": changed("breaches", another_cause, is_explained),
    "a breach has other evidence": changed("breaches", more_evidence, is_explained),
    "a breach names another input": changed("breaches", another_input),
    "a decision has another cause": changed("decisions", another_cause, is_explained),
    "a decision names another event": changed("decisions", put("event_id", "e-0")),
    "a decision names another input": changed("decisions", another_input),
    "the trace of a decision is lost": trace_lost("decisions"),
    "the trace of an execution is lost": trace_lost("executions"),
    "an execution has a flag too many": changed("executions", one_flag_more),
    "an execution has another owner": changed("executions", put("owner", "bob")),
    "an execution began at another time": changed(
        "executions", put("started", "2026-01-01T00:00:00.001Z")
    ),
    "a change has a flag too many": changed("lifecycle", one_flag_more, is_of_a_task),
    "a change is somebody else's": changed("lifecycle", put("by", "bob"), is_of_a_task),
    "an overshoot is another": changed("lifecycle", more_overshoot, has_overshoot),
    "a dead letter names another input": changed("dead-letters", another_input),
    "a task has lost a flag": state_changed(flag_lost),
    "an inherited block is missing": inherited_missing,
    "a deletion of decisions is missing": deletion_gone,
    "an execution is missing": without("executions"),
    "an execution has another revision": changed("executions", _more("revision")),
    "an execution has another latency": changed("executions", _more("latency_ms")),
    "a start, change or end is missing": without("lifecycle"),
    "a dead letter is missing": without("dead-letters"),
    "a dead letter stands there twice": twice("dead-letters"),
    "a good event is in the dead letters": letter_of_a_good_event,
    "an aborted record is visible": aborted_made_visible,
    "a task has used more": state_changed(_used_more),
    "a task has another verdict": state_changed(_another_verdict),
    "a cell has another level": state_changed(_another_level),
    "a cell has another limit": state_changed(_another_limit),
    "a task has forgotten an event": state_changed(_older_sequence),
    "a task's state is gone": state_gone,
    "a forgotten task's state is there": state_kept,
    "the next offset is another": offset_wrong,
    "an event is lost": lost,
    "an event counts twice": counted_twice,
    "a refused event has counted": counted_though_refused,
    "a grant is ignored": ignored("task.granted", "lifecycle"),
    "an end is ignored": ignored("task.ended", "lifecycle"),
    "another policy was taken": another_policy,
    "another clock was taken": another_clock,
}


def planted(kind: str, seed: int, logs: Iterable[Inputs]) -> Planted:
    """The first of the logs in which this damage can be planted, damaged."""
    chance = random.Random(f"{kind} {seed}")
    for inputs in logs:
        found = KINDS[kind](chance, inputs)
        if found is not None:
            return found
    raise AssertionError(f"{kind}: none of the logs has what it takes")
