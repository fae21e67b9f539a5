"""One record of every type, as the contract has it, and one that it has not."""

from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from schemas.contract import MESSAGES, Message, message_schema
from schemas.decode import Refusal, decode_event
from schemas.topics import Topic

Data = dict[str, Any]

POLICY = {"version": "2026-11", "hash": "9f2c"}
INPUT = {"partition": 3, "offset": 1042}
CELL = {"scope": "phase", "metric": "tokens", "phase": "THINK"}
CLASS = {"complexity": "medium", "importance": "high"}
REPORT: Data = CLASS | {
    "task_id": "TASK-17",
    "revision": 1,
    "final": True,
    "status": "ended",
    "outcome": "completed",
    "verdict": "review",
    "summary": ["Over budget.", "THINK stood out.", "Write down why."],
    "metrics": {"tokens": {"used": 9_000.5, "limit": 6_000, "share": 1.5, "level": "review"}},
    "phases": [{"phase": "THINK", "attempts": 2, "metrics": {"latency_ms": {"used": 5}}}],
    "causes": [{"cell": CELL, "level": "review", "cause": "iteration", "text": "iteration"}],
    "explanation": "owed",
    "blocks": [
        {"decision_id": "3-7-0", "time": "2026-11-22T21:00:00Z", "message": "", "enforced": False}
    ],
}
STATE: Data = {
    "task_id": "TASK-17",
    "status": "open",
    "verdict": "warn",
    "cells": [CELL | {"used": 9000.5, "limit": 6000, "level": "warn"}],
    "phases": {
        "THINK": {
            "attempts": 1,
            "counters": {"input_tokens": 9_000},
            "executions": [[1, None, 0, 1_700, 1_600, 0, None, 400, 0, None]],
        }
    },
    "flags": ["inferred"],
    "last_offset": 1042,
    "limits_version": 1,
    "policy": POLICY,
    "dedupe": {"sequences": {"enforcer-1/7f3a": 42}, "recent": [17]},
    "started_ms": 1_763_845_200_000,
    "last_ms": 1_763_845_201_000,
    "seen_ms": 1_763_845_201_000,
}

# type → (data that is right, data that is wrong)
EXAMPLES: dict[str, tuple[Data | None, Data | None]] = {
    "stoploss.task.started": (
        {
            "complexity": "large",
            "importance": "critical",
            "importance_justification": "the login is open",
            "by": "ada",
            "planned_phases": ["SPEC", "THINK"],
            "parent_task_id": "TASK-3",
            "budget_multiplier": 1.5,
            "budget_overrides": {"THINK": {"tokens": 10_000}, "task": {"cost_usd": 2.5}},
            "owner": "ada",
            "team": "core",
            "task_type": "bugfix",
            "labels": {"repo": "web"},
        },
        {"complexity": "huge"},
    ),
    "stoploss.phase.started": ({"phase": "THINK", "attempt": 2}, {"attempt": 2}),
    "stoploss.phase.usage": (
        {
            "phase": "THINK",
            "attempt": 1,
            "model": "some-model",
            "input_tokens": 12_000,
            "cache_read_tokens": 11_000,
            "cache_write_tokens": 500,
            "output_tokens": 400,
            "reasoning_tokens": 100,
            "cost_usd": 0.012345678,
            "duration_ms": 4_200,
            "model_calls": 1,
            "tool_calls": 2,
            "files_read": 3,
            "output_chars": 1_600,
            "estimated": False,
            "usage_known": True,
        },
        {"phase": "THINK", "input_tokens": -1},
    ),
    "stoploss.phase.ended": (
        {"phase": "THINK", "duration_ms": 4_200, "outcome": "failed", "transition_ms": 3},
        {"phase": "THINK", "outcome": "superseded"},
    ),
    "stoploss.task.ended": ({"outcome": "completed"}, {"outcome": "open"}),
    "stoploss.task.granted": (
        {"by": "ada", "reason": "nearly there", "limits": {"THINK": {"tokens": 20_000}}},
        {"by": "ada", "reason": "nearly there", "limits": {"THINK": {"tokens": 0}}},
    ),
    "stoploss.task.reclassified": (
        {"by": "ada", "reason": "an outage", "importance": "critical"},
        {"by": "ada", "importance": "critical"},
    ),
    "stoploss.task.explained": (
        {"by": "ada", "text": "The tests were slow.", "phase": "VERIFY"},
        {"by": "ada", "text": ""},
    ),
    "stoploss.justification.reviewed": (
        {"by": "ada", "approved": False, "reason": "no data is lost"},
        {"by": "ada", "approved": None},
    ),
    "stoploss.task.recovered": (
        {"by": "ada", "reason": "stuck", "action": "close_phase"},
        {"by": "ada", "reason": "stuck", "action": "forget"},
    ),
    "stoploss.all.granted": (
        {"by": "ada", "reason": "wrong policy", "multiplier": 2},
        {"by": "ada", "reason": "wrong policy"},
    ),
    "stoploss.mode.set": (
        {"mode": "partial", "by": "ada", "reason": "two weeks of observing"},
        {"mode": "off", "by": "ada", "reason": "two weeks of observing"},
    ),
    "stoploss.policy.set": (
        {"policy": {"phases": {}}, "by": "ada"} | POLICY,
        {"policy": {"phases": {}}, "by": ""} | POLICY,
    ),
    "stoploss.clock.tick": (None, None),
    "stoploss.decision": (
        {
            "task_id": "TASK-17",
            "number": 2,
            "verdict": "block",
            "previous": "review",
            "enforced": False,
            "unenforced_reason": "observe",
            "inherited_from": "TASK-3",
            "cell": CELL,
            "used": 9000.5,
            "limit": 6_000,
            "ratio": 1.5,
            "message": "THINK at 150 % of its budget",
            "cause": "iteration",
            "mode": "observe",
            "policy": POLICY,
            "limits_version": 1,
            "input": INPUT,
            "event_id": "e-1",
        },
        {"task_id": "TASK-17", "number": 0},
    ),
    "stoploss.breach": (
        {
            "task_id": "TASK-17",
            "cell": {"scope": "task", "metric": "cost_usd"},
            "used": 2.000000001,
            "limit": 2,
            "ratio": 1.0,
            "limits_version": 1,
            "level": "notice",
            "withdrawn": False,
            "cause": "unclassified",
            "evidence": {"model_calls": 12},
            "input": INPUT,
        },
        {"task_id": "TASK-17", "cell": {"scope": "team", "metric": "tokens"}},
    ),
    "stoploss.execution": (
        {
            "task_id": "TASK-17",
            "phase": "THINK",
            "attempt": 1,
            "revision": 1,
            "outcome": "open_at_end",
            "started": "2026-11-22T21:00:00.123Z",
            "ended": "2026-11-22T21:00:04.323Z",
            "latency_ms": 4_200,
            "metered_tokens": 2_100.1,
            "counters": {"model_calls": 1, "unknown_usage": 0},
            "limits": {"tokens": 6_000},
            "complexity": "medium",
            "importance": "medium",
            "owner": "ada",
            "team": "core",
            "task_type": "bugfix",
            "flags": ["inferred"],
        },
        {"task_id": "TASK-17", "phase": "THINK", "attempt": 0},
    ),
    "stoploss.lifecycle": (
        {
            "change": "ended",
            "task_id": "TASK-17",
            "complexity": "medium",
            "importance": "high",
            "limits": {"THINK": {"tokens": 6_000}},
            "outcome": "blocked",
            "verdict": "block",
            "overshoot": {"cell": CELL, "at_block": 12_000, "used": 12_100, "overshoot": 100},
            "input": INPUT,
        },
        {"task_id": "TASK-17"},
    ),
    "stoploss.heartbeat": (
        {"mode": "enforce", "fail": "closed", "clock": "2026-11-22T21:00:00Z", "next_offset": 7},
        {"mode": "enforce", "fail": "shut", "clock": "2026-11-22T21:00:00Z", "next_offset": 7},
    ),
    "stoploss.dead_letter": (
        {
            "reason": "invalid_field",
            "detail": {"field": "data.phase", "value": "", "allowed": "text"},
            "task_id": "TASK-17",
            "input": {"topic": "stoploss.events", "key": "TASK-17"} | INPUT,
            "original": "e30=",
        },
        {"reason": "invalid_field", "detail": {}},
    ),
    "stoploss.task.state": (STATE, STATE | {"cells": [CELL]}),
    "stoploss.partition.state": (
        {
            "partition": 3,
            "next_offset": 1_043,
            "clock": "2026-11-22T21:00:00.123Z",
            "clock_ms": 1_763_845_200_123,
            "mode": "observe",
            "mode_by": "ada",
            "previous_mode": "partial",
            "policy": POLICY,
            "dedupe": {},
        },
        {"partition": -1},
    ),
    "stoploss.policy.state": (POLICY | {"policy": {"phases": {}}}, POLICY | {"policy": []}),
    "stoploss.health": (
        {
            "source": "enforcer-1",
            "queue_depth": 3,
            "transition_ms": {"relative_error": 0.01, "zeros": 1, "buckets": {"-4": 1, "17": 3}},
            "emitter": {"queued": 0, "spooled": 0, "dropped": 0},
            "ledger": {"batches": 9, "batch_failures": 1, "commit_ms": {"buckets": {"90": 9}}},
        },
        {"source": "enforcer-1", "transition_ms": {"buckets": {"fast": 1}}},
    ),
    "stoploss.feedback": (
        {"task_id": "TASK-17", "decision_id": "3-1042-0", "false_positive": True, "by": "ada"},
        {"task_id": "TASK-17", "decision_id": "3-1042-0", "false_positive": "no", "by": "ada"},
    ),
    "stoploss.alert": (
        {
            "name": "stuck_task",
            "scope": "TASK-17",
            "state": "firing",
            "value": 5,
            "threshold": 4,
            "message": "in one phase for 5 h",
            "severity": "warning",
            "number": 1,
            "since": "2026-11-22T21:00:00.123Z",
            "task_id": "TASK-17",
            "origin": {"topic": "lifecycle"} | INPUT,
        },
        {"name": "stuck_task", "scope": "TASK-17", "state": "maybe"},
    ),
    "stoploss.baseline": (
        CLASS
        | {
            "phase": "THINK",
            "executions": 20,
            "metrics": {
                "tokens": {
                    "count": 20,
                    "sum": 70_000.5,
                    "p50": 3_500,
                    "p75": 4_000,
                    "p90": 4_500,
                    "p99": 5_000,
                    "sketch": {"buckets": {"408": 20}},
                }
            },
        },
        CLASS | {"phase": "THINK", "executions": 20, "metrics": {"words": {}}},
    ),
    "stoploss.report": (REPORT, REPORT | {"summary": ["one line"]}),
    "stoploss.audit": (
        {
            "subject": "TASK-17",
            "action": "task_reclassified",
            "by": "ada",
            "reason": "it loses data",
            "task_id": "TASK-17",
            "before": {"importance": "low"},
            "after": {"importance": "critical"},
            "origin": {"topic": "lifecycle"} | INPUT,
        },
        {"subject": "TASK-17", "action": "task_renamed", "by": "ada"},
    ),
}
OF_PARTITIONS = {"all.granted", "mode.set", "policy.set", "clock.tick", "partition.state"}


def record(message: Message, data: Data | None) -> Data:
    of_partition = message.type.removeprefix("stoploss.") in OF_PARTITIONS
    envelope = {
        "specversion": "1.0",
        "id": "3-1042-0",
        "source": "enforcer-1/7f3a",
        "type": message.type,
        "subject": "partition/3" if of_partition else "TASK-17",
        "time": "2026-11-22T21:00:00.123Z",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }
    return envelope if data is None else envelope | {"data": data}


def fits_type(message: Message, document: Data) -> bool:
    value = msgspec.json.encode(document)
    if message.topic is Topic.EVENTS:
        return not isinstance(decode_event(value), Refusal)
    try:
        msgspec.json.decode(value, type=message.shape)
    except msgspec.ValidationError:
        return False
    return True


def fits_schema(message: Message, document: Data) -> bool:
    return Draft202012Validator(message_schema(message)).is_valid(document)


every_message = pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.type)


@every_message
def test_every_schema_is_one(message: Message) -> None:
    Draft202012Validator.check_schema(message_schema(message))


@every_message
def test_a_record_as_the_contract_has_it_fits_type_and_schema(message: Message) -> None:
    document = record(message, EXAMPLES[message.type][0])
    assert (fits_type(message, document), fits_schema(message, document)) == (True, True)


@every_message
def test_a_record_with_wrong_data_fits_neither(message: Message) -> None:
    wrong = EXAMPLES[message.type][1]
    document = record(message, wrong) | ({"subject": 5} if wrong is None else {})
    assert (fits_type(message, document), fits_schema(message, document)) == (False, False)


@every_message
def test_the_envelope_is_required(message: Message) -> None:
    document = record(message, EXAMPLES[message.type][0])
    for name in ("id", "source", "type", "subject", "time"):
        less = {key: value for key, value in document.items() if key != name}
        assert (fits_type(message, less), fits_schema(message, less)) == (False, False), name


@every_message
def test_fields_of_a_later_version_are_ignored(message: Message) -> None:
    document = record(message, EXAMPLES[message.type][0]) | {"later": 1}
    document["data"] = document.get("data", {}) | {"later": 1}
    assert (fits_type(message, document), fits_schema(message, document)) == (True, True)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        pytest.param("stoploss.phase.usage", {"subject": "partition/3"}, id="no task's id"),
        pytest.param("stoploss.phase.usage", {"sequence": "4a"}, id="no digits"),
        pytest.param("stoploss.clock.tick", {"subject": "partition/x"}, id="no partition"),
        pytest.param(
            "stoploss.task.started",
            {"data": {"budget_overrides": {"THINK": {"tokens": 0}}}},
            id="an override of nothing",
        ),
        pytest.param(
            "stoploss.lifecycle", {"data": {"change": "renamed"}}, id="a change of no kind"
        ),
    ],
)
def test_the_schema_also_says_what_is_judged_after_decoding(kind: str, changes: Data) -> None:
    (message,) = (one for one in MESSAGES if one.type == kind)
    document = record(message, EXAMPLES[kind][0]) | changes
    assert (fits_type(message, document), fits_schema(message, document)) == (True, False)


def test_the_examples_name_every_field_of_the_data_of_an_event() -> None:
    for message in MESSAGES:
        example = EXAMPLES[message.type][0]
        if message.topic is Topic.EVENTS and example is not None:
            data = next(
                part.type for part in msgspec.structs.fields(message.shape) if part.name == "data"
            )
            assert example.keys() <= {part.name for part in msgspec.structs.fields(data)}
