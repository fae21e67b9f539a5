"""The three lines on top of a report, and what it names as unusual.

A report of 500 lines is filed and not read; these three are shown at the VERIFY gate and sent when a
task ends. Source: budget model, "Reports"; the user's scenario 7.
"""

from collections.abc import Mapping
from decimal import Decimal

from schemas.fields import Metric, Number, Verdict
from schemas.reports import MetricReport, PhaseReport, Report
from streams.insight.advice import what_happened, what_to_do
from streams.insight.numbers import amount, percent
from streams.insight.task_facts import Crossing

UNUSUAL_ABOVE, UNUSUAL_BELOW = 1.5, 0.5  # of what similar tasks average
EXPLANATION_OWED = "owed"
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
        apart = abs(similar.ratio - 1)
        mean = said(Decimal(str(similar.mean)), metric)
        return (
            f"{phase} used {said(found.used, metric)}; {similar.of} average {mean}: "
            f"{percent(apart)} {'above' if more else 'below'}"
        )
    return None


def cause_text(crossing: Crossing, used: Number) -> str:
    """Return a crossing as a sentence without its full stop: what is over, by how much, why.

    Args:
        crossing: its limit is the one that was crossed, whatever was granted since.
        used: what the cell has used in the end, in its metric's unit.
    """
    assert crossing.cause is not None
    cell = crossing.cell
    where = cell.phase or "The task"
    share = percent(float(used / crossing.limit)) if crossing.limit else "–"
    why = what_happened(crossing.cause, crossing.evidence)
    return (
        f"{where} came to {share} of its {_BUDGET[cell.metric]} "
        f"({of_limit(used, crossing.limit, cell.metric)}): {why}"
    )


def said(value: Number, metric: Metric) -> str:
    """Return an amount with its unit: `5,234 tokens`, `3 m 20 s`, `$1.23`."""
    return f"{amount(value, metric)} tokens" if metric is Metric.TOKENS else amount(value, metric)


def of_limit(used: Number, limit: Number, metric: Metric) -> str:
    """Return `4,680 of 6,000 tokens`."""
    return f"{amount(used, metric)} of {said(limit, metric)}"


def _budget_line(report: Report) -> str:
    limited = {metric: found for metric, found in report.metrics.items() if found.share is not None}
    how = "" if report.outcome is None else f"; {report.outcome}"
    if not limited:
        tokens = report.metrics.get(Metric.TOKENS)
        used = said(0 if tokens is None else tokens.used, Metric.TOKENS)
        return f"Used {used}; no limit is known{how}."
    metric, worst = max(limited.items(), key=lambda each: each[1].share or 0)
    assert worst.limit is not None
    over = (worst.share or 0) > 1
    level = "" if report.verdict is Verdict.CONTINUE else f"; at {report.verdict.value}"
    return (
        f"{'Over' if over else 'Within'} budget: {percent(worst.share)} of its {_BUDGET[metric]} "
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
    if report.verdict is Verdict.BLOCK and not report.final:
        return "Investigate; then grant more (`stoploss grant`) or end the task."
    if report.explanation == EXPLANATION_OWED:
        return f"Write down why: `stoploss explain {report.task_id} --text …`."
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
