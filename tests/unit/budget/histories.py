"""Random histories for the properties: likely ones, and any that can be decoded at all."""

import os
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from msgspec import Raw, Struct, inspect

from schemas.events import EVENT_TYPES, PartitionEventBase
from streams.budget.policy import policy_from_toml, policy_json
from tests.unit.budget.world import OWN_SUBJECT, START_MS, record

# Small limits, a cost, a block by time, phases beyond the list, and a short memory: so that few
# events meet many rules.
POLICY = policy_from_toml(
    """
    version = "small"
    closing_phases = ["C"]
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
    [phases.C]
    tokens = 20
    latency_ms = 10_000
    weight = 0.3333
    cost_usd = 0.01
    [phases.default]
    tokens = 10
    latency_ms = 5_000
    weight = 1
    cost_usd = 0.05
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
    [governance]
    critical_requires_review = true
    """,
    "small.toml",
)
OTHER = policy_from_toml('version = "other"', "other.toml")
OPEN_LIST = policy_from_toml(
    """
    version = "open"
    [phases.THINK]
    tokens = 1000
    latency_ms = 1000
    weight = 1
    [phases.default]
    tokens = 100
    latency_ms = 60000
    weight = 1
    """,
    "open.toml",
)
TASKS = ("T0", "T1", "T2", "T3")
PHASES = ("A", "B", "C", "X", "Y")


# More of them on a long run: `STOPLOSS_TEST_EXAMPLES=100 pytest tests/unit/budget`.
TIMES_AS_MANY = int(os.environ.get("STOPLOSS_TEST_EXAMPLES", "1"))


def examples(count: int) -> settings:
    """How many histories a property is tried on: the unit tests are to be quick."""
    return settings(max_examples=count * TIMES_AS_MANY, deadline=None)


class Happening(Struct, frozen=True):
    """One record of `events`; `moves_ms` is how far the clock goes before it."""

    value: bytes
    moves_ms: int


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


phases = st.sampled_from(PHASES)
attempts = st.integers(1, 3)
tokens = st.integers(0, 120)
durations = st.integers(-1, 90_000) | st.just(86_400_001)
multipliers = st.sampled_from([1.5, 2, 10])
limits = st.dictionaries(
    st.sampled_from([*PHASES, "task"]),
    st.fixed_dictionaries({"tokens": st.integers(1, 900)}, optional={"cost_usd": st.just(0.33)}),
    min_size=1,
    max_size=2,
)
who = {"by": st.just("ada"), "reason": st.sampled_from(["because", " "])}
complexities = st.sampled_from(["tiny", "small", "medium", "large"])
importances = st.sampled_from(["low", "medium", "high", "critical"])

started = _some(
    complexity=complexities,
    importance=importances,
    importance_justification=st.sampled_from(["outage", " "]),
    planned_phases=st.lists(phases, min_size=1, max_size=4),
    parent_task_id=st.sampled_from(TASKS),
    budget_multiplier=st.sampled_from([0.5, 3]),
    budget_overrides=limits | st.just({"A": {}}),
    labels=st.just({"repo": "x"}),
)
usage = st.fixed_dictionaries(
    {"phase": phases, "input_tokens": tokens, "output_tokens": tokens},
    optional={
        "attempt": attempts,
        "cache_read_tokens": st.integers(0, 20),
        "cost_usd": st.sampled_from([0.01, 0.0000000005, 0.07]),
        "duration_ms": durations,
        "usage_known": st.booleans(),
        "estimated": st.booleans(),
        "files_read": st.integers(0, 30),
    },
)
begun = st.fixed_dictionaries({"phase": phases}, optional={"attempt": attempts})
ended = st.fixed_dictionaries(
    {"phase": phases},
    optional={
        "attempt": attempts,
        "duration_ms": durations,
        "outcome": st.sampled_from(["completed", "completed", "failed", "backtracked"]),
    },
)
of_tasks: dict[str, tuple[int, st.SearchStrategy[Any]]] = {
    "task.started": (3, started),
    "phase.usage": (8, usage),
    "phase.started": (5, begun),
    "phase.ended": (5, ended),
    "task.ended": (1, st.just({})),
    "task.granted": (
        2,
        st.fixed_dictionaries(who | {"multiplier": multipliers})
        | st.fixed_dictionaries(who | {"limits": limits}),
    ),
    "task.reclassified": (
        1,
        st.fixed_dictionaries(
            {**who, "complexity": complexities}, optional={"importance": importances}
        ),
    ),
    "task.explained": (1, st.just({"by": "ada", "text": "so it was"})),
    "justification.reviewed": (
        1,
        st.fixed_dictionaries({"by": st.just("ada"), "approved": st.booleans()}),
    ),
    "task.recovered": (
        1,
        st.fixed_dictionaries(
            who | {"action": st.sampled_from(["close_phase", "end_task", "refold"])}
        ),
    ),
}
of_partitions: dict[str, st.SearchStrategy[Any]] = {
    "all.granted": st.fixed_dictionaries(who | {"multiplier": multipliers}),
    "mode.set": st.fixed_dictionaries(
        {
            "mode": st.sampled_from(["observe", "partial", "enforce"]),
            "by": st.sampled_from(["ada", "breaker"]),
            "reason": st.just("because"),
        }
    ),
    "policy.set": st.sampled_from(
        [
            {
                "policy": Raw(policy_json(one)),
                "version": one.version,
                "hash": one.hash,
                "by": "ada",
            }
            for one in (POLICY, OTHER)
        ]
    ),
    "clock.tick": st.none(),
}
_kinds = [kind for kind, (weight, _) in of_tasks.items() for _ in range(weight)]
_kinds += list(of_partitions)


@st.composite
def histories(
    draw: st.DrawFn, *, events_max: int = 25, moves_max_ms: int = 200_000
) -> list[Happening]:
    """Events as an enforcer, its operators and the ledger's own clock may write them."""
    history: list[Happening] = []
    own_ms = START_MS
    for index in range(draw(st.integers(1, events_max))):
        kind = draw(st.sampled_from(_kinds))
        moves_ms = draw(st.sampled_from([0, 0, 1, 1_000, 20_000, moves_max_ms]))
        own_ms += moves_ms
        if kind in of_partitions:
            subject, data = OWN_SUBJECT, draw(of_partitions[kind])
        else:
            subject, data = draw(st.sampled_from(TASKS)), draw(of_tasks[kind][1])
        value = record(
            kind,
            subject,
            f"e-{index}",
            data,
            own_ms - draw(st.sampled_from([0, 0, 0, 5_000, 400_000])),
            source=draw(st.sampled_from(["one", "one", "two"])),
            sequence=draw(st.sampled_from([None, index])),
        )
        history.append(Happening(value, moves_ms))
    return history


def _any_of(found: inspect.Type, name: str) -> st.SearchStrategy[Any]:
    """Any JSON that msgspec takes for this type, and now and then what is at its bounds."""
    match found:
        case inspect.Metadata(type=inner):
            return _any_of(inner, name)
        case inspect.UnionType(types=types):
            return st.one_of(*(_any_of(one, name) for one in types))
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType(ge=low, le=high):
            return st.sampled_from([low, high]) | st.integers(low, high)
        case inspect.DecimalType():
            return _decimals
        case inspect.EnumType(cls=members):
            return st.sampled_from([member.value for member in members])
        case inspect.LiteralType(values=values):
            return st.sampled_from(list(values))
        case inspect.DateTimeType():
            return _times
        case inspect.RawType():
            return _json
        case inspect.ListType(item_type=item, min_length=low, max_length=high):
            return st.lists(_any_of(item, name), min_size=low or 0, max_size=min(high or 4, 4))
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(_any_of(key, name), _any_of(value, name), max_size=3)
        case inspect.StructType(fields=fields):
            return _struct(fields)
        case inspect.StrType(min_length=low):
            return _text(name, low or 0)
        case _:
            raise AssertionError(found)


def _text(name: str, at_least: int) -> st.SearchStrategy[str]:
    known: tuple[str, ...] = ("a", "b")
    if name in {"phase", "planned_phases", "limits"}:
        known = (*PHASES, "task")
    elif name in {"subject", "parent_task_id"}:
        known = (*TASKS, "partition/3")
    elif name == "sequence":
        known = ("0", "1", "7", str(2**63), "x")
    return st.sampled_from(known) | st.text(min_size=at_least, max_size=5)


def _struct(fields: tuple[inspect.Field, ...]) -> st.SearchStrategy[dict[str, Any]]:
    made = {one.encode_name: _any_of(one.type, one.encode_name) for one in fields}
    required = {name: made[name] for name in made if name in _required(fields)}
    return st.fixed_dictionaries(
        required, optional={name: one for name, one in made.items() if name not in required}
    )


def _required(fields: tuple[inspect.Field, ...]) -> set[str]:
    return {one.encode_name for one in fields if one.required}


_numbers = ["0", "0.5", "1E-999999", "1E+999999", "9" * 40, "0." + "7" * 40, "10", "1.000000001"]
_decimals = st.sampled_from([*_numbers, "NaN", "sNaN", "-Infinity", "-0", "-1"]) | st.decimals(
    allow_nan=False, allow_infinity=False
).map(str)
_zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_times = st.sampled_from(
    [
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59.999999-14:00",
        datetime.fromtimestamp(START_MS / 1_000, UTC).isoformat(),
    ]
) | st.datetimes(timezones=_zones).map(datetime.isoformat)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(_text("phase", 1), inner, max_size=2)
    ),
    max_leaves=4,
) | st.sampled_from([Raw(policy_json(POLICY)), Raw(b"1e999999"), {"A": {"tokens": 5}}])


@st.composite
def anything(draw: st.DrawFn) -> bytes:
    """Any record of `events` that can be decoded, mostly for a few tasks."""
    kind = draw(st.sampled_from(sorted(EVENT_TYPES)))
    found = inspect.type_info(EVENT_TYPES[kind])
    assert isinstance(found, inspect.StructType)
    event = draw(_struct(found.fields))
    event["type"] = kind
    if issubclass(EVENT_TYPES[kind], PartitionEventBase):
        event["subject"] = draw(st.sampled_from([OWN_SUBJECT, OWN_SUBJECT, "partition/4"]))
    return msgspec.json.encode(event)
