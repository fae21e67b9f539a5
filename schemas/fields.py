"""Bounds that several messages share: what a field may hold, in its unit.

Every string, list and number that comes from outside has an upper bound, so that one record can
neither fill the memory nor leave the range that is folded exactly.
"""

import enum
from decimal import Decimal
from typing import Annotated

from msgspec import Meta

NAME_LENGTH_MAX = 200
TEXT_LENGTH_MAX = 4_000
LABELS_MAX = 16
TOKENS_MAX = 10_000_000_000  # in one report; the largest context windows are four decimals smaller
COUNT_MAX = 1_000_000_000
DURATION_MS_MAX = 10 * 365 * 24 * 3_600_000  # ten years: clocks jump; 24 h is judged in the fold
LIMIT_MAX = 1_000_000_000_000_000  # tokens or milliseconds: exact in JSON readers that use doubles
PHASES_MAX = 64
COST_USD_MAX = Decimal(1_000_000)

# An exact JSON number. We may write a float whose shortest text is exact; we never read one.
Number = int | Decimal

Name = Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH_MAX)]
# The patterns below are for the generated schemas only: msgspec would run them through `re` for
# each event, 0.8 µs of 1.8; the fold checks the same rule when it sees a task or source first.
TASK_ID_PATTERN = r"^(?!partition/|policy/)"
TaskId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=NAME_LENGTH_MAX,
        description="A task's id; must not begin with partition/ or policy/",
        extra_json_schema={"pattern": TASK_ID_PATTERN},
    ),
]
Decimals = Annotated[
    Decimal, Meta(extra_json_schema={"type": "number"}, description="An exact decimal number")
]
PhaseName = Annotated[str, Meta(min_length=1, max_length=64, description="A phase of the policy")]
Text = Annotated[str, Meta(max_length=TEXT_LENGTH_MAX)]
RequiredText = Annotated[str, Meta(min_length=1, max_length=TEXT_LENGTH_MAX)]
Attempt = Annotated[int, Meta(ge=1, le=1_000_000)]
Tokens = Annotated[int, Meta(ge=0, le=TOKENS_MAX)]
Count = Annotated[int, Meta(ge=0, le=COUNT_MAX)]
DurationMs = Annotated[int, Meta(ge=-DURATION_MS_MAX, le=DURATION_MS_MAX)]
Offset = Annotated[int, Meta(ge=0)]
Partition = Annotated[int, Meta(ge=0)]
Ordinal = Annotated[int, Meta(ge=1)]  # counts from 1
Labels = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=256)]],
    Meta(max_length=LABELS_MAX),
]


class Complexity(enum.StrEnum):
    """How much work a task is."""

    TINY = "tiny"
    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


class Importance(enum.StrEnum):
    """How much a task matters; defined for people in the policy."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Mode(enum.StrEnum):
    """Who is really held: nobody, tasks of importance low and medium, everybody."""

    OBSERVE = "observe"
    PARTIAL = "partial"
    ENFORCE = "enforce"


class Fail(enum.StrEnum):
    """What a verdict is when the feed is stale: continue, or block."""

    OPEN = "open"
    CLOSED = "closed"


class Verdict(enum.StrEnum):
    """What the enforcer is told; the order of the members is the order of severity."""

    CONTINUE = "continue"
    NOTICE = "notice"
    WARN = "warn"
    REVIEW = "review"
    BLOCK = "block"


class Scope(enum.StrEnum):
    """What a limit belongs to."""

    PHASE = "phase"
    TASK = "task"


class Metric(enum.StrEnum):
    """What is limited, in this unit on the wire."""

    TOKENS = "tokens"
    LATENCY_MS = "latency_ms"
    COST_USD = "cost_usd"


class PhaseOutcome(enum.StrEnum):
    """How a phase ended, as the enforcer says."""

    COMPLETED = "completed"
    FAILED = "failed"
    BACKTRACKED = "backtracked"
    ABANDONED = "abandoned"


class ExecutionOutcome(enum.StrEnum):
    """How one run of a phase ended, as the ledger publishes it."""

    COMPLETED = "completed"
    FAILED = "failed"
    BACKTRACKED = "backtracked"
    ABANDONED = "abandoned"
    SUPERSEDED = "superseded"
    OPEN_AT_END = "open_at_end"


class TaskOutcome(enum.StrEnum):
    """How a task ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    ABANDONED = "abandoned"
    BLOCKED = "blocked"


class UnenforcedReason(enum.StrEnum):
    """Why a decision holds nobody; the first that applies, in this order."""

    ENDED = "ended"
    BREAKER = "breaker"
    OBSERVE = "observe"
    PARTIAL = "partial"


class Cause(enum.StrEnum):
    """Why a cell was crossed, as far as its counters tell."""

    EXTENSIVE_RESEARCH = "extensive_research"
    ITERATION = "iteration"
    INEFFICIENT = "inefficient"
    BACKTRACKING = "backtracking"
    SLOW_MODEL = "slow_model"
    MISSING_USAGE = "missing_usage"
    OVERRIDE_TOO_LOW = "override_too_low"
    UNCLASSIFIED = "unclassified"


class RecoverAction(enum.StrEnum):
    """What an operator does to a task that is stuck."""

    CLOSE_PHASE = "close_phase"
    END_TASK = "end_task"
    REFOLD = "refold"
