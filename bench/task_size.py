"""How large an open task is, in memory and in `tasks`: `python -m bench.task_size`.

A task has four planned phases, two sources, three labels, and limits of tokens, latency and cost
everywhere. All numbers differ from task to task, as real ones do. How many of its phases have
begun makes most of the difference to one that is awake; after five idle minutes, or ten seconds
where there are many, a task sleeps.
"""

import gc
import json
import tracemalloc
from collections.abc import Iterator
from random import Random

import msgspec

from schemas.decode import Refusal, decode_event
from schemas.envelope import rfc3339
from schemas.state import PolicyStateData
from schemas.topics import Topic
from streams.budget.effects import Effect
from streams.budget.encode import EffectEncoder
from streams.budget.fold import fold
from streams.budget.policy import Policy, builtin_policy, policy_from_toml
from streams.budget.restore import restore
from streams.budget.snapshot import drain_changes
from streams.budget.state import PartitionState, new_partition

TASKS = 5_000
MEMORY_BYTES_MAX = 4_096
RECORD_BYTES_MAX = 2_560
START_MS = 1_767_225_600_000
PHASES = ("STRATEGIZE", "PLAN", "THINK", "IMPLEMENT")
REPORTS = 5  # of usage in each phase
PARTITION = 0


class Sizes(msgspec.Struct, frozen=True):
    """Means over all tasks, in bytes; `asleep` is the memory of an idle one, and after a restart."""

    begun_phases: int
    awake: int
    asleep: int
    record: int
    record_max: int


def records(
    number: int, random: Random, begun_phases: int, start_ms: int = START_MS
) -> Iterator[bytes]:
    """The events of one task, by two emitters that count."""
    task_id = f"TASK-{number:06}"
    sources = [f"enforcer-{(number + one) % 7}/7f3a21bc" for one in range(2)]
    sequence = random.randrange(10**6)
    own_ms = start_ms + number * 10

    def event(kind: str, data: object) -> bytes:
        nonlocal sequence, own_ms
        sequence += 1
        own_ms += 10
        envelope = {
            "specversion": "1.0",
            "id": f"{sequence}",
            "source": sources[sequence % 2],
            "type": f"stoploss.{kind}",
            "subject": task_id,
            "time": rfc3339(own_ms),
            "sequence": f"{sequence:020}",
            "data": data,
        }
        return msgspec.json.encode(envelope)

    yield event(
        "task.started",
        {
            "complexity": "large",
            "importance": "high",
            "planned_phases": PHASES,
            "owner": f"owner-{number % 50}",
            "team": "core",
            "labels": {"repo": f"service-{number % 40}", "branch": f"fix/{number}", "ci": "yes"},
        },
    )
    for phase in PHASES[:begun_phases]:
        yield event("phase.started", {"phase": phase})
        for _ in range(REPORTS):
            yield event(
                "phase.usage",
                {
                    "phase": phase,
                    "input_tokens": random.randrange(900, 1_800),
                    "cache_read_tokens": random.randrange(900),
                    "output_tokens": random.randrange(90),
                    "reasoning_tokens": 0,
                    "cost_usd": random.randrange(10**6) / 10**8,
                    "duration_ms": random.randrange(10**4),
                    "tool_calls": random.randrange(1, 9),
                    "files_read": random.randrange(1, 9),
                    "output_chars": random.randrange(1, 999),
                },
            )
        if phase != PHASES[begun_phases - 1]:
            yield event("phase.ended", {"phase": phase, "duration_ms": random.randrange(10**4)})


def priced() -> Policy:
    """The built-in policy, with a limit of cost for each phase."""
    phases = "".join(
        f"[phases.{name}]\ntokens = {base.tokens}\nlatency_ms = {base.latency_ms}\n"
        f"weight = {base.weight}\ncost_usd = 2.5\n"
        for name, base in builtin_policy().phases.items()
    )
    return policy_from_toml(f'version = "priced"\n{phases}', "priced.toml")


def folded(tasks: int, begun_phases: int, start_ms: int = START_MS) -> PartitionState:
    """A partition with that many open tasks, the first of which began at `start_ms`."""
    random = Random(1)
    state = new_partition(PARTITION, priced())
    offset = 0
    for number in range(tasks):
        for value in records(number, random, begun_phases, start_ms):
            event = decode_event(value)
            assert not isinstance(event, Refusal), event
            effects = fold(state, event, offset=offset, append_ms=start_ms + offset)
            assert not any(one.topic is Topic.DEAD_LETTERS for one in effects)
            offset += 1
    state.effects = []
    return state


def stored(state: PartitionState) -> dict[str, bytes]:
    """The records of `tasks` for all that has changed."""
    encoder = EffectEncoder(PARTITION, "stoploss.events", lambda _: True)
    policy = state.default_policy
    data = PolicyStateData(hash=policy.hash, version=policy.version, policy=policy.document)
    effect = Effect(Topic.TASKS, "stoploss.policy.state", f"policy/{policy.hash}", data, 0, 0)
    return {
        one.key: encoder.encode(one, state.clock_ms).value or b""
        for one in [effect, *drain_changes(state)]
    }


def measure(begun_phases: int, tasks: int = TASKS) -> Sizes:
    """Fold the tasks, store them, and restore them from what was stored."""
    warm = folded(1, begun_phases)  # what is made once for all tasks is no part of any
    gc.collect()
    tracemalloc.start()
    try:
        empty = tracemalloc.get_traced_memory()[0]
        state = folded(tasks, begun_phases)
        gc.collect()
        memory = tracemalloc.get_traced_memory()[0] - empty
        assert state.open_tasks == tasks
    finally:
        tracemalloc.stop()
    found = stored(state)
    sizes = [len(value) for key, value in found.items() if key.startswith("TASK-")]
    policy = state.default_policy
    assert warm.open_tasks == 1
    del state
    gc.collect()
    tracemalloc.start()
    try:
        again = restore(PARTITION, list(found.items()), policy)
        gc.collect()
        asleep = tracemalloc.get_traced_memory()[0]
        assert again.open_tasks == tasks == len(again.tasks.asleep)
    finally:
        tracemalloc.stop()
    return Sizes(begun_phases, memory // tasks, asleep // tasks, sum(sizes) // tasks, max(sizes))


def main() -> None:
    """Print the sizes as lines of JSON; fail where an idle task is too large."""
    for begun_phases in range(1, len(PHASES) + 1):
        sizes = measure(begun_phases)
        print(json.dumps(msgspec.to_builtins(sizes)))
        assert sizes.asleep < MEMORY_BYTES_MAX, sizes
        if begun_phases == 1:
            assert sizes.record_max < RECORD_BYTES_MAX, sizes


if __name__ == "__main__":
    main()
