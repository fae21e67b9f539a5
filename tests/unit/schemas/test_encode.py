"""An event written is the event read back."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest

from schemas.decode import decode_event
from schemas.encode import encode_event
from schemas.events import (
    ClockTick,
    Event,
    PhaseUsage,
    PhaseUsageData,
    TaskGranted,
    TaskGrantedData,
    TaskStarted,
    TaskStartedData,
)

AT = datetime(2026, 11, 22, 21, 0, 0, 123_000, tzinfo=UTC)
ENVELOPE = {"id": "e-1", "source": "enforcer-1/7f3a", "subject": "TASK-17", "time": AT}


def usage(**fields: object) -> PhaseUsage:
    data = msgspec.convert({"phase": "THINK", **fields}, PhaseUsageData)
    return msgspec.convert(ENVELOPE | {"type": "stoploss.phase.usage", "data": data}, PhaseUsage)


EVENTS = [
    pytest.param(usage(input_tokens=5, estimated=False), id="usage"),
    pytest.param(usage(cost_usd=Decimal("0.000000001")), id="a nano-dollar"),
    pytest.param(usage(cost_usd=Decimal("0.1")), id="a tenth"),
    pytest.param(usage(cost_usd=Decimal("Infinity")), id="a cost that is no number"),
    pytest.param(usage(cost_usd=Decimal("0.1"), model="Infinity"), id="a word like no number"),
    pytest.param(usage(cost_usd=Decimal("123456.123456789012")), id="more digits than a float has"),
    pytest.param(
        TaskStarted(
            id="e",
            source="s",
            subject="T",
            time=AT,
            data=TaskStartedData(
                labels={"a": "ü"}, budget_overrides=msgspec.Raw(b'{"task":{"tokens":5}}')
            ),
        ),
        id="start",
    ),
    pytest.param(TaskStarted(id="e", source="s", subject="T", time=AT), id="start without data"),
    pytest.param(
        TaskGranted(
            id="e",
            source="s",
            subject="T",
            time=AT,
            data=TaskGrantedData(by="me", reason="why not", multiplier=Decimal("1.5")),
        ),
        id="grant",
    ),
    pytest.param(ClockTick(id="e", source="s", subject="partition/3", time=AT), id="tick"),
]


@pytest.mark.parametrize("event", EVENTS)
def test_what_is_written_is_read_back(event: Event) -> None:
    assert decode_event(encode_event(event)) == event


@pytest.mark.parametrize("event", EVENTS)
def test_null_is_never_written(event: Event) -> None:
    assert b"null" not in encode_event(event)


def test_null_overrides_are_no_overrides() -> None:
    line = encode_event(TaskStarted(id="e", source="s", subject="T", time=AT))
    with_null = line.replace(b'"data":{}', b'"data":{"budget_overrides":null}')
    assert with_null != line
    event = decode_event(with_null)
    assert isinstance(event, TaskStarted)
    assert encode_event(event) == line


def test_a_line_holds_the_envelope_first_and_numbers_as_numbers() -> None:
    line = encode_event(usage(input_tokens=5, cost_usd=Decimal("0.25")))
    assert b"\n" not in line
    assert list(json.loads(line)) == [
        "specversion",
        "type",
        "id",
        "source",
        "subject",
        "time",
        "data",
    ]
    assert json.loads(line)["data"] == {"phase": "THINK", "input_tokens": 5, "cost_usd": 0.25}
    assert json.loads(line)["type"] == "stoploss.phase.usage"
