"""What the ledger publishes besides state: decisions, breaches, executions, lifecycle, letters.

`used`, `limit` and `at_block` are exact JSON numbers in the metric's unit (tokens with up to three
decimals, milliseconds, dollars with up to nine). What does not apply is left out.
"""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.fields import (
    Cause,
    Complexity,
    ExecutionOutcome,
    Fail,
    Importance,
    Metric,
    Mode,
    Number,
    Offset,
    Ordinal,
    Partition,
    Scope,
    UnenforcedReason,
    Verdict,
)


class Cell(Struct, frozen=True, omit_defaults=True):
    """What has a limit: a metric of one phase, or of the whole task."""

    scope: Scope
    metric: Metric
    phase: str | None = None


class PolicyRef(Struct, frozen=True):
    """The policy that a task was started under; `hash` names its content."""

    version: str
    hash: str


class InputRef(Struct, frozen=True):
    """The record of `events` that caused this one."""

    partition: Partition
    offset: Offset


class Decision(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A task's verdict changed, or holds differently now; `number` counts from 1 without gaps."""

    task_id: str
    number: Ordinal
    verdict: Verdict
    previous: Verdict
    enforced: bool
    unenforced_reason: UnenforcedReason | None = None
    inherited_from: str | None = None
    cell: Cell | None = None
    used: Number | None = None
    limit: Number | None = None
    ratio: float | None = None
    message: str
    cause: Cause | None = None
    mode: Mode
    policy: PolicyRef
    limits_version: Ordinal
    input: InputRef
    event_id: str | None = None


class Breach(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A cell crossed a level of its ladder, or a level reached on an estimate is withdrawn."""

    task_id: str
    cell: Cell
    used: Number
    limit: Number
    ratio: float
    limits_version: Ordinal
    level: Verdict
    withdrawn: bool = False
    cause: Cause | None = None
    evidence: dict[str, Number] = {}
    input: InputRef


class ExecutionRecord(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One finished run of a phase; published again, with the next `revision`, when it changes."""

    task_id: str
    phase: str
    attempt: Ordinal
    revision: Ordinal
    outcome: ExecutionOutcome
    started: str | None = None
    ended: str | None = None
    latency_ms: Annotated[int, Meta(ge=0)]
    metered_tokens: Number
    counters: dict[str, Number]
    limits: dict[str, Number]
    complexity: Complexity
    importance: Importance
    owner: str | None = None
    team: str | None = None
    task_type: str | None = None
    flags: list[str] = []


class Overshoot(Struct, frozen=True, kw_only=True):
    """What a blocked task used between its block and its end or grant, in the cell's unit."""

    cell: Cell
    at_block: Number
    used: Number
    overshoot: Number


# Text at run time: a reader of today does not stop at tomorrow's change.
Change = Annotated[
    str,
    Meta(
        extra_json_schema={
            "enum": [
                "started",
                "reclassified",
                "granted",
                "explained",
                "reviewed",
                "recovered",
                "stuck",
                "ended",
                "partition_checkpoint",
            ]
        }
    ),
]


class Lifecycle(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A task started, changed or ended; or where a partition stands (`partition_checkpoint`)."""

    change: Change
    task_id: str | None = None
    complexity: Complexity | None = None
    importance: Importance | None = None
    budgeted_importance: Importance | None = None
    justification: str | None = None
    previous: dict[str, str] = {}
    limits: dict[str, dict[str, Number]] = {}
    limits_version: Ordinal | None = None
    policy: PolicyRef | None = None
    parent_task_id: str | None = None
    planned_phases: list[str] = []
    owner: str | None = None
    team: str | None = None
    task_type: str | None = None
    labels: dict[str, str] = {}
    flags: list[str] = []
    by: str | None = None
    reason: str | None = None
    text: str | None = None
    phase: str | None = None
    approved: bool | None = None
    action: str | None = None
    key: str | None = None  # of `tasks`: what was rebuilt, where it is no state of a known task
    outcome: str | None = None
    verdict: Verdict | None = None
    overshoot: Overshoot | None = None
    partition: Partition | None = None
    next_offset: Offset | None = None
    clock: str | None = None
    mode: Mode | None = None
    policies: list[str] = []
    input: InputRef | None = None


class Heartbeat(Struct, frozen=True, kw_only=True):
    """The ledger lives: at most one a second and partition; `fail` is the policy's."""

    mode: Mode
    fail: Fail
    clock: str
    next_offset: Offset


class DeadLetterDetail(Struct, frozen=True, omit_defaults=True):
    """What was wrong, in the words of the error."""

    field: str
    value: str = ""
    allowed: str = ""


class DeadLetterInput(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Where the bad record stands; `key` as text, undecodable bytes replaced."""

    topic: str
    partition: Partition
    offset: Offset
    key: str | None = None


class DeadLetterHeader(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A header of the bad record: as text, or as base64 where that is no UTF-8; no value is null."""

    name: str | None = None
    name_base64: str | None = None
    value: str | None = None
    value_base64: str | None = None


class DeadLetter(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A record that was refused, whole: `original` is the base64 of its bytes.

    `headers` are in the order of the record, names may repeat. What does not pass the broker is
    cut: then `original_bytes` or `headers_count` says how much there was.
    """

    reason: str
    detail: DeadLetterDetail
    task_id: str | None = None
    input: DeadLetterInput
    headers: list[DeadLetterHeader] = []
    headers_count: Annotated[int, Meta(ge=1)] | None = None
    original: str
    original_bytes: Annotated[int, Meta(ge=1)] | None = None


OUTPUT_TYPES: dict[str, type[Struct]] = {
    "stoploss.decision": Decision,
    "stoploss.breach": Breach,
    "stoploss.execution": ExecutionRecord,
    "stoploss.lifecycle": Lifecycle,
    "stoploss.heartbeat": Heartbeat,
    "stoploss.dead_letter": DeadLetter,
}
