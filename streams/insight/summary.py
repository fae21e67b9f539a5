"""The three lines on top of a report, and what it names as unusual.

A report of 500 lines is filed and not read; these three are shown at the VERIFY gate and sent when a
task ends. Source: budget model, "Reports"; the user's scenario 7.
"""

from collections.abc import Mapping
from decimal import Decimal

from schemas.fields import Metric, Number, Verdict
from schemas.reports import CauseReport, LimitsChange, MetricReport, PhaseReport, Report
from streams.insight.advice import what_happened, what_to_do
from streams.insight.numbers import amount, as_written, percent, share_of

UNUSUAL_ABOVE, UNUSUAL_BELOW = 1.5, 0.5  # of what similar tasks average
EXPLANATION_OWED = "owed"
_CHANGES = {
    "granted": "a grant",
    "reclassified": "a reclassification",
    "reviewed": "a review of its justification",
    "started": "a late start",
}
_BUDGET = {
    Metric.TOKENS: "token budget",
    Metric.LATENCY_MS: "time budget",
    Metric.COST_USD: "cost budget",
}


def summary(report: Report) -> list[str]:
    """Return three lines: within budget or not, what stood out, what to do."""
    return [_budget_line(report), _stood_out(report), _to_do(report)]


def findings(report: Report) -> list[str]:
    """Return what is worth a sentence, the most serious first: causes, then unusual phases."""
    unusual_phases = [each for each in report.phases if each.unusual is not None]
    unusual_phases.sort(key=_distance, reverse=True)
    return [
        *(f"{each.text}." for each in report.causes),
        *(f"{each.unusual}." for each in unusual_phases),
    ]


def unusual(phase: str, metrics: Mapping[Metric, MetricReport], *, has_ended: bool) -> str | None:
    """Return how a phase compares with similar ones, None where that is nothing to name.

    One that still runs may be above what is usual, but not yet below it.
    """
    for metric in (Metric.TOKENS, Metric.COST_USD, Metric.LATENCY_MS):
        found = metrics.get(metric)
        if found is None or (similar := found.similar) is None:
            continue
        if UNUSUAL_BELOW <= similar.ratio <= UNUSUAL_ABOVE or (similar.ratio < 1 and not has_ended):
            continue
        more = similar.ratio > 1
        apart = abs(as_written(similar.ratio) - 1)
        mean = said(Decimal(str(similar.mean)), metric)
        return (
            f"{phase} used {said(found.used, metric)}; {similar.of} average {mean}: "
            f"{percent(apart)} {'above' if more else 'below'}"
        )
    return None


def cause_text(found: CauseReport) -> str:
    """Return a crossing as a sentence without its full stop: what was over, by how much, why.

    Its figures are those of its own moment. What is used and allowed now stands behind them, where
    that is something else.
    """
    assert found.used is not None
    assert found.limit is not None
    where = found.cell.phase or "The task"
    why = what_happened(found.cause, found.evidence)
    budget = _BUDGET[found.cell.metric]
    then = _share_text(found.used, found.limit, found.cell.metric, f" of its {budget}")
    if (found.used, found.limit) == (found.used_now, found.limit_now):
        return f"{where} came to {then}: {why}"
    assert found.used_now is not None
    now = _share_text(found.used_now, found.limit_now, found.cell.metric)
    after = "" if found.changed is None else f" after {change_text(found.changed)}"
    return f"{where} came to {then}: {why} by then; now {now}{after}"


def change_text(change: LimitsChange) -> str:
    """Return `a grant by ann`: what gave a task other limits."""
    what = _CHANGES.get(change.change, change.change)
    return what if change.by is None else f"{what} by {change.by}"


def _share_text(used: Number, limit: Number | None, metric: Metric, budget: str = "") -> str:
    """Return `183 % (11,000 of 6,000 tokens)`."""
    if limit is None:
        return f"{said(used, metric)} without a limit"
    return f"{percent(share_of(used, limit))}{budget} ({of_limit(used, limit, metric)})"


def said(value: Number, metric: Metric) -> str:
    """Return an amount with its unit: `5,234 tokens`, `3 m 20 s`, `$1.23`."""
    return f"{amount(value, metric)} tokens" if metric is Metric.TOKENS else amount(value, metric)


def of_limit(used: Number, limit: Number, metric: Metric) -> str:
    """Return `4,680 of 6,000 tokens`."""
    return f"{amount(used, metric)} of {said(limit, metric)}"


def verdict_text(report: Report) -> str:
    """Return `block`, or `block, inherited from TASK-1`."""
    above = report.inherited_from
    return report.verdict.value + ("" if above is None else f", inherited from {above}")


def _budget_line(report: Report) -> str:
    limited = {metric: found for metric, found in report.metrics.items() if found.share is not None}
    how = "" if report.outcome is None else f"; {report.outcome}"
    if not limited:
        tokens = report.metrics.get(Metric.TOKENS)
        used = said(0 if tokens is None else tokens.used, Metric.TOKENS)
        return f"Used {used}; no limit is known{how}."
    metric, worst = max(limited.items(), key=lambda each: each[1].share or 0)
    assert worst.limit is not None
    over = worst.used > worst.limit
    level = "" if report.verdict is Verdict.CONTINUE else f"; at {verdict_text(report)}"
    return (
        f"{'Over' if over else 'Within'} budget: {percent(share_of(worst.used, worst.limit))} of its {_BUDGET[metric]} "
        f"({of_limit(worst.used, worst.limit, metric)}){level}{how}."
    )


def _stood_out(report: Report) -> str:
    if report.findings:
        more = len(report.findings) - 1
        return report.findings[0] + (f" {more} more below." if more else "")
    compared = any(found.similar for each in report.phases for found in each.metrics.values())
    return (
        "Nothing stood out: every phase used what similar ones use."
        if compared
        else "Nothing stood out; too few similar tasks have ended to compare with."
    )


def _to_do(report: Report) -> str:
    is_owed = report.explanation == EXPLANATION_OWED
    write_down = f"Write down why: `stoploss explain {report.task_id} --text …`."
    if report.verdict is Verdict.BLOCK and not report.final:
        owed = f" {write_down}" if is_owed else ""
        if (above := report.inherited_from) is not None:
            return (
                f"Investigate {above}, which is above it, and grant that one more (`stoploss grant "
                f"{above} …`): that lifts this block, and a grant to {report.task_id} does not.{owed}"
            )
        return f"Investigate; then grant more (`stoploss grant`) or end the task.{owed}"
    if is_owed:
        return write_down
    if (low := _low_limit(report)) is not None:
        return low
    if report.causes:
        first = report.causes[0]
        return what_to_do(first.cause, first.cell.phase)
    if report.explanation != "none":
        return f"Say why in a sentence: `stoploss explain {report.task_id} --text …`."
    raised = [each for each in report.phases if _is_above(each)]
    if raised:
        return f"Look at why {raised[0].phase} took more than usual."
    return "Nothing to do."


def _low_limit(report: Report) -> str | None:
    """Return what to say of the first phase that is over a limit which most similar ones are over."""
    for phase in report.phases:
        for metric, found in phase.metrics.items():
            limit, similar = found.limit, found.similar
            if limit is None or similar is None or found.used <= limit:
                continue
            if similar.p50 > limit:
                return (
                    f"Raise the {_BUDGET[metric]} of {phase.phase}: half of {similar.of} use more "
                    f"than its {said(limit, metric)}."
                )
    return None


def _is_above(phase: PhaseReport) -> bool:
    return any(ratio > UNUSUAL_ABOVE for ratio in _ratios(phase))


def _distance(phase: PhaseReport) -> float:
    """How far a phase is from what is usual; half and double are as far."""
    return max(max(ratio, 1 / ratio if ratio else float("inf")) for ratio in _ratios(phase))


def _ratios(phase: PhaseReport) -> list[float]:
    return [each.similar.ratio for each in phase.metrics.values() if each.similar is not None]
