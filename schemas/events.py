"""What enters: one Struct per event of the wire contract, told apart by `type`.

`null` is the same as absent everywhere, hence `| None` also where the contract has a default; the
default is applied in the fold. Bounds of one field stand here; rules between fields (a part larger
than its whole) and of decimals are the fold's, which refuses with the same kind of error.
"""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct, field

from schemas.fields import (
    LIMIT_MAX,
    NAME_LENGTH_MAX,
    PHASES_MAX,
    TASK_ID_PATTERN,
    Attempt,
    Complexity,
    Count,
    Decimals,
    DurationMs,
    Importance,
    Labels,
    Mode,
    Name,
    PhaseName,
    PhaseOutcome,
    RecoverAction,
    RequiredText,
    TaskId,
    TaskOutcome,
    Text,
    Tokens,
)

Time = Annotated[datetime, Meta(tz=True)]
SEQUENCE_DIGITS_MAX = 40
Sequence = Annotated[
    str,
    Meta(max_length=SEQUENCE_DIGITS_MAX, extra_json_schema={"pattern": "^[0-9]+$"}),
]
TraceParent = Annotated[str, Meta(max_length=128)]
Reason = RequiredText


class CellLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """Absolute limits of one phase, or of the task, each in the unit its name ends with."""

    tokens: Annotated[int, Meta(ge=1, le=LIMIT_MAX)] | None = None
    latency_ms: Annotated[int, Meta(ge=1, le=LIMIT_MAX)] | None = None
    cost_usd: Decimals | None = None


# A factory in the fields below, because msgspec's JSON Schema cannot write a Raw default.
NO_OVERRIDES = Raw(b"null")
PhaseLimits = Annotated[
    dict[Name, CellLimits],
    Meta(max_length=PHASES_MAX + 1, description='By phase, or by "task" for the whole task'),
]


class TaskStartedData(Struct, frozen=True):
    """`budget_overrides` is read leniently: a bad one refuses the overrides, not the task."""

    complexity: Complexity | None = None
    importance: Importance | None = None
    importance_justification: Text | None = None
    by: Name | None = None
    planned_phases: Annotated[list[PhaseName], Meta(min_length=1, max_length=PHASES_MAX)] | None = (
        None
    )
    parent_task_id: TaskId | None = None
    budget_multiplier: Decimals | None = None
    # msgspec cannot tell Raw from None: `null` stays Raw.
    budget_overrides: Raw = field(default_factory=lambda: NO_OVERRIDES)
    owner: Name | None = None
    team: Name | None = None
    task_type: Name | None = None
    labels: Labels | None = None


class PhaseStartedData(Struct, frozen=True):
    """`attempt` is left out by enforcers that do not count: the next one begins."""

    phase: PhaseName
    attempt: Attempt | None = None


class PhaseUsageData(Struct, frozen=True, gc=False):
    """One report of usage, not cumulative. Parts (`cache_*`, `reasoning`) are inside their whole."""

    phase: PhaseName
    attempt: Attempt | None = None
    model: Name | None = None
    input_tokens: Tokens | None = None
    cache_read_tokens: Tokens | None = None
    cache_write_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    reasoning_tokens: Tokens | None = None
    cost_usd: Decimals | None = None
    duration_ms: DurationMs | None = None
    model_calls: Count | None = None
    tool_calls: Count | None = None
    files_read: Count | None = None
    output_chars: Count | None = None
    estimated: bool | None = None
    usage_known: bool | None = None


class PhaseEndedData(Struct, frozen=True):
    """`duration_ms` is the enforcer's own measurement; `transition_ms` what the change of phase took."""

    phase: PhaseName
    attempt: Attempt | None = None
    duration_ms: DurationMs | None = None
    outcome: PhaseOutcome | None = None
    transition_ms: DurationMs | None = None


class TaskEndedData(Struct, frozen=True):
    """`outcome` is `completed` where it is left out."""

    outcome: TaskOutcome | None = None


class TaskGrantedData(Struct, frozen=True):
    """Either `multiplier` (above 1, at most 10) or `limits` (new absolute ones, never lower)."""

    by: Name
    reason: Reason
    multiplier: Decimals | None = None
    limits: PhaseLimits | None = None


class TaskReclassifiedData(Struct, frozen=True):
    """`reason` serves as the justification for critical."""

    by: Name
    reason: Reason
    complexity: Complexity | None = None
    importance: Importance | None = None


class TaskExplainedData(Struct, frozen=True):
    """The written explanation that a review or block asks for."""

    by: Name
    text: RequiredText
    phase: PhaseName | None = None


class JustificationReviewedData(Struct, frozen=True):
    """Somebody judged why a task is critical."""

    by: Name
    approved: bool
    reason: Text | None = None


class TaskRecoveredData(Struct, frozen=True):
    """An operator mended a task that was stuck, or (`key`) a record of `tasks` that was torn."""

    by: Name
    reason: Reason
    action: RecoverAction
    key: Text | None = None


class AllGrantedData(Struct, frozen=True):
    """The emergency grant: every open task of every partition."""

    by: Name
    reason: Reason
    multiplier: Decimals


class ModeSetData(Struct, frozen=True):
    """Who is held from now on; `by` is `breaker` when the breaker wrote it."""

    mode: Mode
    by: Name
    reason: Reason


class PolicySetData(Struct, frozen=True):
    """`policy` is checked as a whole by the fold; its numbers are read exactly from the text."""

    policy: Raw
    version: Name
    hash: Name
    by: Name


class ClockTickData(Struct, frozen=True):
    """Nothing: the append time is what counts."""


PartitionSubject = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=NAME_LENGTH_MAX,
        description="The partition that it is for",
        extra_json_schema={"pattern": "^partition/[0-9]+$"},
    ),
]


RecoveredSubject = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=NAME_LENGTH_MAX,
        description="A task's id; or the partition, where what was mended is no task's",
        extra_json_schema={"pattern": f"{TASK_ID_PATTERN}|^partition/[0-9]+$"},
    ),
]


class EventBase(Struct, tag_field="type", kw_only=True, frozen=True, gc=False):
    """CloudEvents 1.0 attributes, structured mode; `sequence` grows strictly per `source`."""

    specversion: Literal["1.0"] = "1.0"
    id: Name
    source: Name
    subject: TaskId
    time: Time
    sequence: Sequence | None = None
    partitionkey: Name | None = None
    traceparent: TraceParent | None = None


class PartitionEventBase(Struct, tag_field="type", kw_only=True, frozen=True):
    """As `EventBase`, for a whole partition: `subject` is `partition/N`."""

    specversion: Literal["1.0"] = "1.0"
    id: Name
    source: Name
    subject: PartitionSubject
    time: Time
    sequence: Sequence | None = None
    partitionkey: Name | None = None
    traceparent: TraceParent | None = None


class TaskStarted(EventBase, tag="stoploss.task.started", frozen=True):
    """A task begins; a late one completes what usage has opened already."""

    data: TaskStartedData = field(default_factory=TaskStartedData)


class PhaseStarted(EventBase, tag="stoploss.phase.started", frozen=True):
    """A phase of a task begins."""

    data: PhaseStartedData


class PhaseUsage(EventBase, tag="stoploss.phase.usage", frozen=True, gc=False):
    """Something was used in a phase."""

    data: PhaseUsageData


class PhaseEnded(EventBase, tag="stoploss.phase.ended", frozen=True):
    """A phase of a task ended."""

    data: PhaseEndedData


class TaskEnded(EventBase, tag="stoploss.task.ended", frozen=True):
    """A task ended; later usage is still spent."""

    data: TaskEndedData = TaskEndedData()


class TaskGranted(EventBase, tag="stoploss.task.granted", frozen=True):
    """Limits of one task are raised; what was used stays."""

    data: TaskGrantedData


class TaskReclassified(EventBase, tag="stoploss.task.reclassified", frozen=True):
    """Complexity or importance of a task changed."""

    data: TaskReclassifiedData


class TaskExplained(EventBase, tag="stoploss.task.explained", frozen=True):
    """An explanation was written."""

    data: TaskExplainedData


class JustificationReviewed(EventBase, tag="stoploss.justification.reviewed", frozen=True):
    """A justification was approved or refused."""

    data: JustificationReviewedData


class TaskRecovered(EventBase, tag="stoploss.task.recovered", frozen=True):
    """An operator mended a task; or, with subject `partition/N`, a record that is no task's."""

    subject: RecoveredSubject
    data: TaskRecoveredData


class AllGranted(PartitionEventBase, tag="stoploss.all.granted", frozen=True):
    """Every open task of the partition gets more."""

    data: AllGrantedData


class ModeSet(PartitionEventBase, tag="stoploss.mode.set", frozen=True):
    """The mode of the partition changed."""

    data: ModeSetData


class PolicySet(PartitionEventBase, tag="stoploss.policy.set", frozen=True):
    """New tasks of the partition run under this policy."""

    data: PolicySetData


class ClockTick(PartitionEventBase, tag="stoploss.clock.tick", frozen=True):
    """Time passed: its append time is what counts."""

    data: ClockTickData | None = None


TaskEvent = (
    TaskStarted
    | PhaseStarted
    | PhaseUsage
    | PhaseEnded
    | TaskEnded
    | TaskGranted
    | TaskReclassified
    | TaskExplained
    | JustificationReviewed
    | TaskRecovered
)
PartitionEvent = AllGranted | ModeSet | PolicySet | ClockTick
Event = TaskEvent | PartitionEvent

EVENT_TYPES: dict[str, type[Event]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        TaskStarted,
        PhaseStarted,
        PhaseUsage,
        PhaseEnded,
        TaskEnded,
        TaskGranted,
        TaskReclassified,
        TaskExplained,
        JustificationReviewed,
        TaskRecovered,
        AllGranted,
        ModeSet,
        PolicySet,
        ClockTick,
    )
}


# The `source` of the ledger's own events: ticks, and the built-in policy of a new partition.
LEDGER_SOURCE = "stoploss/ledger"


PARTITION_PREFIX = "partition/"


def partition_subject(partition: int) -> str:
    """Return the subject of an event that concerns all of a partition."""
    return f"{PARTITION_PREFIX}{partition}"
