"""Records as they stand in the topics, for the view's tests."""

from dataclasses import dataclass, field
from decimal import Decimal

import msgspec

from schemas.envelope import Envelope, rfc3339
from schemas.fields import Complexity, ExecutionOutcome, Importance, Metric, Scope, Verdict
from schemas.outputs import ExecutionRecord, PolicyRef
from schemas.state import CellState, Dedupe, TaskStateData

DAY_MS = 24 * 3_600_000
START_MS = 1_795_000_000_000  # 2026-11-18T11:06:40Z
ENCODER = msgspec.json.Encoder(decimal_format="number")


@dataclass
class Kept:
    """A `RawRecord`."""

    key: bytes | None
    value: bytes | None
    offset: int = 0
    timestamp: int = START_MS
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)


def record(
    key: str, data: msgspec.Struct | None, *, at_ms: int = START_MS, number: int = 0
) -> Kept:
    """Return a record; no data deletes its key."""
    if data is None:
        return Kept(key.encode(), None, number)
    envelope = Envelope(
        id=f"0-{number}-0",
        source="test",
        type="stoploss.test",
        subject=key,
        time=rfc3339(at_ms),
        data=data,
    )
    return Kept(key.encode(), ENCODER.encode(envelope), number, at_ms)


def execution(
    task_id: str = "TASK-1", *, revision: int = 1, at_ms: int = START_MS, **changed: object
) -> Kept:
    """Return a finished run of THINK that used 1,500.5 tokens for two dollars."""
    plain = ExecutionRecord(
        task_id=task_id,
        phase="THINK",
        attempt=1,
        revision=revision,
        outcome=ExecutionOutcome.COMPLETED,
        latency_ms=70_000,
        metered_tokens=Decimal("1500.5"),
        counters={"model_calls": 3, "input_tokens": 1_000, "cost_usd": Decimal("2.000000001")},
        limits={Metric.TOKENS: 6_000},
        complexity=Complexity.MEDIUM,
        importance=Importance.MEDIUM,
        owner="ada",
        team="core",
        task_type="bug",
    )
    return record(task_id, msgspec.structs.replace(plain, **changed), at_ms=at_ms)


def task(task_id: str = "TASK-1", *, used: int = 3_000, status: str = "open") -> Kept:
    """Return the state of a task with 6,000 tokens."""
    state = TaskStateData(
        task_id=task_id,
        status=status,
        verdict=Verdict.CONTINUE,
        cells=[
            CellState(Scope.PHASE, Metric.TOKENS, used, 1, Verdict.CONTINUE, "THINK"),
            CellState(Scope.TASK, Metric.TOKENS, used, 6_000, Verdict.CONTINUE),
        ],
        phases={},
        flags=[],
        last_offset=0,
        limits_version=1,
        policy=PolicyRef("1", "abc"),
        dedupe=Dedupe(),
        started_ms=START_MS,
        last_ms=START_MS,
        seen_ms=START_MS,
    )
    return record(task_id, state)
