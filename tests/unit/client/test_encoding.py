"""What an enforcer says becomes an event of the wire contract, or a refusal that names why."""

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from schemas.decode import Refusal, decode_event
from schemas.events import PhaseUsage, PhaseUsageData
from streams.client.encoding import PHASE_USAGE, TASK_STARTED, encode
from streams.client.spool import Item

AT_NS = 1_763_845_200_123_456_789


def event_of(item: Item | Refusal) -> dict[str, Any]:
    assert isinstance(item, Item)
    event: dict[str, Any] = msgspec.json.decode(item.value)
    return event


def test_an_event_has_the_envelope_of_the_contract_and_nothing_that_is_none() -> None:
    fields = {"phase": "THINK", "input_tokens": 5, "model": None, "root": "TASK-3"}
    item = encode((PHASE_USAGE, "TASK-17", AT_NS, fields), "enforcer-1/7f3a", 42)
    assert event_of(item) == {
        "specversion": "1.0",
        "id": "enforcer-1/7f3a-42",
        "source": "enforcer-1/7f3a",
        "type": "stoploss.phase.usage",
        "subject": "TASK-17",
        "time": "2025-11-22T21:00:00.123Z",
        "sequence": "00000000000000000042",
        "partitionkey": "TASK-3",
        "data": {"phase": "THINK", "input_tokens": 5},
    }
    assert isinstance(item, Item)
    assert item.key == b"TASK-3"


def test_a_root_task_is_its_own_key() -> None:
    item = encode((PHASE_USAGE, "TASK-3", AT_NS, {"phase": "THINK", "root": "TASK-3"}), "e/1", 1)
    assert "partitionkey" not in event_of(item)
    assert isinstance(item, Item)
    assert item.key == b"TASK-3"


@pytest.mark.parametrize(
    "cost", [0.1, Decimal("0.1")], ids=["a float by its shortest text", "a decimal"]
)
def test_money_is_exact(cost: float | Decimal) -> None:
    item = encode((PHASE_USAGE, "TASK-3", AT_NS, {"phase": "THINK", "cost_usd": cost}), "e/1", 1)
    assert isinstance(item, Item)
    event = decode_event(item.value)
    assert isinstance(event, PhaseUsage)
    assert event.data == PhaseUsageData(phase="THINK", cost_usd=Decimal("0.1"))


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


THINK = {"phase": "THINK"}


@pytest.mark.parametrize(
    ("task_id", "fields", "field"),
    [
        pytest.param("", THINK, "subject", id="an empty task id"),
        pytest.param("x" * 201, THINK, "subject", id="a long task id"),
        pytest.param("partition/3", THINK, "subject", id="a partition is no task"),
        pytest.param("policy/3", THINK, "subject", id="a policy is no task"),
        pytest.param(17, THINK, "subject", id="a number as task id"),
        pytest.param(Hostile(), THINK, "subject", id="an object without a repr"),
        pytest.param("T", {**THINK, "root": 3}, "root", id="a number as root"),
        pytest.param("T", {}, "data.phase", id="no phase"),
        pytest.param("T", {"phase": None}, "data.phase", id="None as phase"),
        pytest.param("T", {**THINK, "input_tokens": -1}, "data.input_tokens", id="negative tokens"),
        pytest.param("T", {**THINK, "input_tokens": 1.5}, "data.input_tokens", id="half a token"),
        pytest.param("T", {**THINK, "input_tokens": True}, "data.input_tokens", id="true tokens"),
        pytest.param("T", {**THINK, "cost_usd": float("nan")}, "data.cost_usd", id="NaN dollars"),
        pytest.param("T", {**THINK, "cost_usd": float("inf")}, "data.cost_usd", id="infinity"),
        pytest.param("T", {**THINK, "tokens": 5}, "data.tokens", id="a field that there is not"),
        pytest.param("T", {**THINK, "model": Hostile()}, "value", id="an object"),
        pytest.param("T", {**THINK, "model": "\ud800"}, "value", id="half a surrogate pair"),
        pytest.param("T", {**THINK, "traceparent": "x" * 200}, "traceparent", id="a long trace"),
        pytest.param("T", {**THINK, "model": "x" * 2_000_000}, "value", id="more than a record"),
    ],
)
def test_what_is_no_event_is_refused_with_its_field(
    task_id: str, fields: Mapping[str, Any], field: str
) -> None:
    refusal = encode((PHASE_USAGE, task_id, AT_NS, fields), "e/1", 1)
    assert isinstance(refusal, Refusal)
    assert refusal.detail.field == field


@pytest.mark.parametrize(
    "fields",
    [
        {"complexity": "huge"},
        {"labels": {"a": 1}},
        {"planned_phases": []},
        {"owner": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "team": {1, 2}},
    ],
    ids=str,
)
def test_a_task_that_is_none_is_refused(fields: dict[str, Any]) -> None:
    assert isinstance(encode((TASK_STARTED, "T", AT_NS, fields), "e/1", 1), Refusal)
