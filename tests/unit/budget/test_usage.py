"""A report of usage is taken apart by the order of its fields: each must come to its own counter."""

from typing import get_args, get_type_hints

import msgspec

from schemas.decode import Refusal, decode_event
from schemas.events import PhaseUsageData
from streams.budget.fold import fold
from streams.budget.policy import builtin_policy
from streams.budget.state import COUNTER_NAMES, new_partition
from streams.budget.usage import Reported

AMOUNTS = {
    "input_tokens": 1_000,
    "cache_read_tokens": 200,
    "cache_write_tokens": 30,
    "output_tokens": 4_000,
    "reasoning_tokens": 500,
    "duration_ms": 600,
    "model_calls": 7,
    "tool_calls": 80,
    "files_read": 9,
    "output_chars": 10,
}


def test_a_report_is_read_with_the_types_that_its_fields_have() -> None:
    assert get_args(Reported) == tuple(get_type_hints(PhaseUsageData).values())


def test_every_field_of_a_report_comes_to_the_counter_of_its_name() -> None:
    data = {"phase": "THINK", "model": "m", "cost_usd": 0.5, "estimated": True, **AMOUNTS}
    event = decode_event(
        msgspec.json.encode(
            {
                "specversion": "1.0",
                "id": "1",
                "source": "s",
                "type": "stoploss.phase.usage",
                "subject": "TASK-1",
                "time": "2026-11-22T21:00:00Z",
                "data": data | {"attempt": 2, "usage_known": False},
            }
        )
    )
    assert not isinstance(event, Refusal)
    state = new_partition(0, builtin_policy())
    fold(state, event, offset=0, append_ms=1_780_000_000_000)
    execution = state.tasks["TASK-1"].phases["THINK"].find(2)
    assert execution is not None
    assert {name: getattr(execution.counters, name) for name in COUNTER_NAMES} == {
        **AMOUNTS,
        "cost_usd": 500_000_000,
        "unknown_usage": 7,
        "estimated_usage": 7,
    }
