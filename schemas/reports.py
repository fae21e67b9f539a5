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


class CauseReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a cell was crossed, with the evidence of its counters, and what it says in a sentence."""

    cell: Cell
    level: Verdict
    cause: Cause
    evidence: dict[str, Number] = {}
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
    block), asked for (above 150 % of a limit) or neither.
    """

    task_id: str
    revision: Ordinal
    final: bool
    status: str
    outcome: str | None = None
    verdict: Verdict
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
    blocks: list[BlockReport] = []
    flags: list[str] = []
    link: str | None = None


REPORT_TYPES: dict[str, type[Struct]] = {"stoploss.report": Report}
