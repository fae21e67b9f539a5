"""What `reports` holds: how a task went, three lines first."""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.fields import (
    Cause,
    Complexity,
    Count,
    Importance,
    Metric,
    Name,
    Number,
    Ordinal,
    Text,
    Verdict,
)
from schemas.outputs import Cell

SUMMARY_LINES = 3


class Similar(Struct, frozen=True, kw_only=True):
    """What similar executions used, in the metric's unit; `ratio` is this one's use ÷ their mean."""

    of: Text  # which they are, in words: "medium tasks"
    count: Count
    mean: float
    p50: float
    p90: float
    ratio: float


class MetricReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much of a limit was used, in the metric's unit; `share` is used ÷ limit."""

    used: Number
    limit: Number | None = None
    share: float | None = None
    level: Verdict = Verdict.CONTINUE
    similar: Similar | None = None


class LimitsChange(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What gave a task other limits: a grant, a reclassification, a review, a late start.

    `limits_version` is what they are from then on.
    """

    change: str
    by: str | None = None
    reason: str | None = None
    time: str
    limits_version: Ordinal


class CauseReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a cell was crossed, and what it says in a sentence.

    `evidence`, `used` and `limit` are those of the crossing; `used_now` and `limit_now` those of the
    report, as its table has them. `changed` is what made the limit another one, where it is.
    """

    cell: Cell
    level: Verdict
    cause: Cause
    evidence: dict[str, Number] = {}
    used: Number | None = None
    limit: Number | None = None
    used_now: Number | None = None
    limit_now: Number | None = None
    changed: LimitsChange | None = None
    text: Text


class PhaseReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One phase, all attempts together; `unusual` says why it is named among the findings."""

    phase: Name
    attempts: Count
    outcome: str | None = None
    metrics: dict[Metric, MetricReport]
    counters: dict[str, Number] = {}
    unusual: Text | None = None


class ExplanationReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What somebody wrote about a review or block."""

    by: str
    text: str
    time: str
    phase: str | None = None


class BlockReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A block, for which we ask: was this a false positive? `false_positive` None: not answered."""

    decision_id: str
    time: str
    message: str
    enforced: bool
    false_positive: bool | None = None
    answered_by: str | None = None


class Report(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a task went, or goes: `final` once it has ended.

    `summary` has three lines: within budget or not, what stood out, what to do. `revision` counts
    from 1; a later one replaces the earlier. `explanation` says whether one is owed (at review or
    block), asked for (above 150 % of a limit) or neither. Limits in `metrics` and `phases` are those
    that hold now. `inherited_from` is the task above this one whose block the verdict is: nothing
    that is given to this one lifts it, and there is nothing to explain here.
    """

    task_id: str
    revision: Ordinal
    final: bool
    status: str
    outcome: str | None = None
    verdict: Verdict
    inherited_from: Name | None = None
    complexity: Complexity
    importance: Importance
    task_type: str | None = None
    owner: str | None = None
    team: str | None = None
    started: str | None = None
    ended: str | None = None
    summary: Annotated[list[str], Meta(min_length=SUMMARY_LINES, max_length=SUMMARY_LINES)]
    metrics: dict[Metric, MetricReport]
    phases: list[PhaseReport]
    causes: list[CauseReport] = []
    findings: list[str] = []
    explanation: Annotated[str, Meta(pattern="^(none|asked|owed)$")] = "none"
    explanations: list[ExplanationReport] = []
    limits_changes: list[LimitsChange] = []
    blocks: list[BlockReport] = []
    flags: list[str] = []
    link: str | None = None


REPORT_TYPES: dict[str, type[Struct]] = {"stoploss.report": Report}
