"""Partitions as enforcers, operators and time may fill them, folded by the ledger's own code."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from schemas.decode import Refusal, decode_event
from schemas.topics import OUTPUTS, Topic
from streams.budget.effects import Effect
from streams.budget.encode import EffectEncoder, Encoded
from streams.budget.fold import fold
from streams.budget.policy import Policy, builtin_policy, policy_json
from streams.budget.snapshot import drain_changes
from streams.budget.state import new_partition
from streams.verify.independent.records import Input, Output, Records
from tests.unit.budget.histories import OTHER, POLICY
from tests.unit.budget.world import OWN_SUBJECT, PARTITION, START_MS, Cause, record

WRITTEN = [topic.value for topic in (Topic.TASKS, *OUTPUTS)]

Inputs = Sequence[tuple[bytes, int]]  # value and append time
TASKS, PHASES = ("T0", "T1", "T2", "T3"), ("A", "B", "C", "X", "Y")
MOVES_MS = (0, 0, 0, 1, 1_000, 5_000, 20_000, 60_000, 200_000)
KINDS = {
    "phase.usage": 12,
    "phase.started": 7,
    "phase.ended": 6,
    "task.started": 4,
    "task.granted": 2,
    "clock.tick": 2,
    "task.ended": 1,
    "task.reclassified": 1,
    "task.explained": 1,
    "justification.reviewed": 1,
    "task.recovered": 1,
    "all.granted": 1,
    "mode.set": 1,
    "policy.set": 1,
    "garbage": 1,
}
WHO = {"by": "ada", "reason": "because"}


def folded(inputs: Inputs, *, partition: int = PARTITION, policy: Policy | None = None) -> Records:
    """What the ledger writes for these inputs, one batch each."""
    events = [(offset, at_ms, None, value, ()) for offset, (value, at_ms) in enumerate(inputs)]
    return written(events, partition=partition, policy=policy)


def written(
    events: Sequence[Input],
    *,
    partition: int = PARTITION,
    policy: Policy | None = None,
    ends_batch: Callable[[], bool] = lambda: True,
) -> Records:
    """What the ledger writes for these records; a batch ends after one where `ends_batch` says so."""
    state = new_partition(partition, policy or builtin_policy())
    encoder = EffectEncoder(partition, "stoploss.events", lambda _: True)
    outputs: dict[str, list[Output]] = defaultdict(list)

    def write(effects: Iterable[tuple[Effect, Encoded]]) -> None:
        for effect, one in effects:
            topic = outputs[effect.topic.value]
            topic.append((len(topic), one.key, one.value))

    for offset, append_ms, key, value, headers in events:
        event = decode_event(value, headers)
        effects = list(fold(state, event, offset=offset, append_ms=append_ms))
        cause = Cause(offset, value, key, headers)
        traceparent = None if isinstance(event, Refusal) else event.traceparent
        write((one, encoder.encode(one, state.clock_ms, cause, traceparent)) for one in effects)
        if ends_batch() or offset == events[-1][0]:
            write((one, encoder.encode(one, state.clock_ms)) for one in drain_changes(state))
    return Records(partition, events, {name: outputs[name] for name in WRITTEN})


def random_inputs(
    seed: int, count: int, *, repeats: bool = True, of_one_name: int = 1_000_000
) -> list[tuple[bytes, int]]:
    """A history that meets many rules: four tasks, small limits, a short memory.

    Args:
        repeats: whether some events are sent twice.
        of_one_name: after so many events there are four new tasks.
    """
    chance = random.Random(seed)
    at_ms = START_MS
    inputs = [(record("policy.set", OWN_SUBJECT, "p", policy_data(POLICY), at_ms), at_ms)]
    kinds, weights = list(KINDS), list(KINDS.values())
    for index in range(1, count):
        at_ms += chance.choice(MOVES_MS)
        (kind,) = chance.choices(kinds, weights)
        if repeats and chance.random() < 0.05 and index > 3:
            inputs.append((chance.choice(inputs[1:])[0], at_ms))  # sent twice
            continue
        inputs.append((_value(chance, kind, index, at_ms, index // of_one_name), at_ms))
    return inputs


def _value(chance: random.Random, kind: str, index: int, at_ms: int, name: int) -> bytes:
    if kind == "garbage":
        return chance.choice([b"}", b"[]", b'{"type":"stoploss.other"}', b"", b'{"id":1}'])
    is_for_all = kind in {"clock.tick", "all.granted", "mode.set", "policy.set"}
    data = DATA[kind](chance)
    if data and "parent_task_id" in data:
        data["parent_task_id"] += f"-{name}"
    return record(
        kind,
        OWN_SUBJECT if is_for_all else f"{chance.choice(TASKS)}-{name}",
        f"e-{index}",
        data,
        at_ms - chance.choice([0, 0, 0, 5_000, 400_000]),
        source=chance.choice(["one", "one", "two"]),
        sequence=chance.choice([None, index]),
        traceparent=chance.choice([None, None, f"00-{index:032x}-{index:016x}-01"]),
    )


def _some(chance: random.Random, **choices: Sequence[object]) -> dict[str, Any]:
    return {name: chance.choice(of) for name, of in choices.items() if chance.random() < 0.5}


def _limits(chance: random.Random) -> dict[str, Any]:
    names = chance.sample([*PHASES, "task"], chance.choice([1, 1, 2]))
    return {
        name: {"tokens": chance.randint(1, 900)} | _some(chance, cost_usd=[0.33, 0.02])
        for name in names
    }


def _started(chance: random.Random) -> dict[str, Any]:
    data = _some(
        chance,
        complexity=["tiny", "small", "medium", "large"],
        importance=["low", "medium", "high", "critical"],
        importance_justification=["outage", " "],
        parent_task_id=TASKS,
        budget_multiplier=[0.5, 3, 1.333333333],
        task_type=["fix"],
        owner=["ada"],
        team=["core"],
        by=["ada"],
        labels=[{"repo": "one"}, {}],
    )
    if chance.random() < 0.6:
        data["planned_phases"] = [chance.choice(PHASES) for _ in range(chance.randint(1, 4))]
    if chance.random() < 0.4:
        data["budget_overrides"] = chance.choice([_limits(chance), {"A": {}}, {"A": {"x": 1}}])
    return data


def _usage(chance: random.Random) -> dict[str, Any]:
    data = {
        "phase": chance.choice(PHASES),
        "input_tokens": chance.randint(0, 60),
        "output_tokens": chance.randint(0, 40),
    }
    return data | _some(
        chance,
        attempt=[1, 1, 2, 3],
        cache_read_tokens=[0, 3, 20],
        cost_usd=[0.01, 0.0000000005, 0.07],
        duration_ms=[-1, 5, 900, 20_000, 90_000, 86_400_001],
        usage_known=[True, True, False],
        estimated=[True, False],
        files_read=[1, 30],
        model_calls=[0, 1, 3],
    )


def _begun(chance: random.Random) -> dict[str, Any]:
    return {"phase": chance.choice(PHASES)} | _some(chance, attempt=[1, 2, 3])


def _ended(chance: random.Random) -> dict[str, Any]:
    return _begun(chance) | _some(
        chance,
        duration_ms=[-1, 5, 900, 20_000, 90_000, 86_400_001],
        outcome=["completed", "completed", "failed", "backtracked"],
    )


def _granted(chance: random.Random) -> dict[str, Any]:
    if chance.random() < 0.5:
        return WHO | {"multiplier": chance.choice([1.5, 2, 10, 1.333333333])}
    return WHO | {"limits": _limits(chance)}


def policy_data(policy: Policy) -> dict[str, Any]:
    document = Raw(policy_json(policy))
    return {"policy": document, "version": policy.version, "hash": policy.hash, "by": "ada"}


DATA: dict[str, Any] = {
    "task.started": _started,
    "phase.started": _begun,
    "phase.usage": _usage,
    "phase.ended": _ended,
    "task.ended": lambda chance: _some(chance, outcome=["completed", "failed"]),
    "task.granted": _granted,
    "task.reclassified": lambda chance: (
        WHO
        | {"complexity": chance.choice(["tiny", "large"])}
        | _some(chance, importance=["low", "high", "critical"], reason=["because", " "])
    ),
    "task.explained": lambda chance: (
        {"by": "ada", "text": "so it was"} | _some(chance, phase=PHASES)
    ),
    "justification.reviewed": lambda chance: (
        {"by": "ada", "approved": chance.random() < 0.5} | _some(chance, reason=["outage", " "])
    ),
    "task.recovered": lambda chance: (
        WHO | {"action": chance.choice(["close_phase", "end_task", "refold"])}
    ),
    "all.granted": lambda chance: WHO | {"multiplier": chance.choice([1.5, 2])},
    "mode.set": lambda chance: {
        "mode": chance.choice(["observe", "partial", "enforce"]),
        "by": chance.choice(["ada", "breaker"]),
        "reason": "because",
    },
    "policy.set": lambda chance: policy_data(chance.choice([POLICY, OTHER])),
    "clock.tick": lambda _: None,
}


def envelope_of(value: bytes) -> dict[str, Any]:
    """An output record, to be changed."""
    envelope: dict[str, Any] = msgspec.json.decode(value)
    return envelope
