"""A report as people read it: Markdown, and plain text for terminals and mails."""

from collections.abc import Iterator, Sequence

from schemas.fields import Metric
from schemas.reports import MetricReport, PhaseReport, Report
from streams.insight.numbers import amount, counted, percent, share_of
from streams.insight.printable import printable
from streams.insight.summary import change_text, said, verdict_text
from streams.insight.times import instant

# The user's own three marks.
MARK_FINE, MARK_LOOK, MARK_STOP, MARK_ADVICE = "✅", "⚠️", "🛑", "💡"
QUESTION = "Was this a false positive?"
_COLUMNS = ("PHASE", "ATTEMPTS", "TOKENS", "OF LIMIT", "TIME", "OF LIMIT", "COST", "SIMILAR TASKS")
_RIGHT = range(1, 7)
_MISSING = {
    "none": [],
    "asked": ["An explanation is asked for."],
    "owed": ["An explanation is owed."],
}


def summary_text(report: Report) -> str:
    """Return the three lines, each with its mark."""
    first, second, third = map(printable, report.summary)
    over = any(
        found.limit is not None and found.used > found.limit for found in report.metrics.values()
    )
    stop = report.verdict == "block"
    mark = MARK_STOP if stop else MARK_LOOK if over else MARK_FINE
    look = MARK_LOOK if report.findings else MARK_FINE
    return f"{mark} {first}\n{look} {second}\n{MARK_ADVICE} {third}\n"


def plain_text(report: Report) -> str:
    """Return the whole report as text of a fixed width font; what others have written stays in its place."""
    return "\n".join(map(printable, _plain_lines(report)))


def markdown(report: Report) -> str:
    """Return the whole report as Markdown; what others have written cannot break out of its place."""
    return "\n".join(_markdown_lines(report))


def _plain_lines(report: Report) -> Iterator[str]:
    yield report.task_id
    yield _about(report)
    yield ""
    yield from summary_text(report).splitlines()
    if report.phases:
        yield ""
        yield from _aligned([_COLUMNS, *map(_row, report.phases)])
    for title, lines in _sections(report):
        yield ""
        yield title
        for line in lines:
            for number, part in enumerate(line.splitlines()):
                yield f"    {part}" if number else f"  {part}"
    yield ""


def _markdown_lines(report: Report) -> Iterator[str]:
    yield f"# {_escaped(report.task_id)}"
    yield ""
    yield _escaped(_about(report))
    yield ""
    for line in summary_text(report).splitlines():
        yield f"- {_escaped(line)}"
    if report.phases:
        yield ""
        yield f"| {' | '.join(each.capitalize() for each in _COLUMNS)} |"
        marks = ("--:" if column in _RIGHT else "---" for column in range(len(_COLUMNS)))
        yield f"|{'|'.join(marks)}|"
        for phase in report.phases:
            yield f"| {' | '.join(map(_escaped, _row(phase)))} |"
    for title, lines in _sections(report):
        yield ""
        yield f"## {title}"
        for line in lines:
            yield f"- {_escaped(line)}"
    yield ""


def _about(report: Report) -> str:
    kind = [
        f"{report.complexity.value} complexity",
        f"{report.importance.value} importance",
        *(each for each in (report.task_type, report.owner, report.team) if each),
    ]
    when = report.status if report.outcome is None else report.outcome
    return f"{', '.join(kind)}; {when}; verdict {verdict_text(report)}"


def _sections(report: Report) -> Iterator[tuple[str, list[str]]]:
    """Yield what stands below the table; what there is nothing of is left out."""
    if report.findings:
        yield "What stood out", report.findings
    if report.blocks:
        lines = []
        for block in report.blocks:
            held = "" if block.enforced else " (not enforced)"
            answer = {None: QUESTION, True: "A false positive", False: "Rightly blocked"}
            by = "" if block.answered_by is None else f", says {block.answered_by}"
            asked = f"{answer[block.false_positive]}{by}"
            lines.append(
                f"{instant(block.time)} {block.message}{held}. {asked} [{block.decision_id}]"
            )
        yield "Blocks", lines
    if report.limits_changes:
        lines = [
            f"{instant(each.time)} {change_text(each)}"
            + (f": {each.reason}" if each.reason else "")
            for each in report.limits_changes
        ]
        yield "Limits changed (the table has those that hold now)", lines
    if report.explanation != "none" or report.explanations:
        lines = [
            f"{instant(each.time)} {each.by}: {each.text}"
            + (f" ({each.phase})" if each.phase else "")
            for each in report.explanations
        ]
        yield "Explanations", lines + _MISSING[report.explanation]
    if report.flags:
        yield "Flags", [flag.replace("_", " ") for flag in report.flags]


def _row(phase: PhaseReport) -> tuple[str, ...]:
    tokens, latency, cost = (phase.metrics.get(metric) for metric in Metric)
    similar = None if tokens is None else tokens.similar
    compared = "–"
    if similar is not None:
        mean = said(round(similar.mean), Metric.TOKENS)
        compared = f"{mean} ({counted(similar.count, 'run')})"
    return (
        phase.phase,
        str(phase.attempts),
        _used(tokens, Metric.TOKENS),
        _share(tokens),
        _used(latency, Metric.LATENCY_MS),
        _share(latency),
        _used(cost, Metric.COST_USD),
        compared,
    )


def _used(found: MetricReport | None, metric: Metric) -> str:
    return "–" if found is None else amount(found.used, metric)


def _share(found: MetricReport | None) -> str:
    return "–" if found is None else percent(share_of(found.used, found.limit))


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if column in _RIGHT else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is, on one line; code that we quote stays code."""
    kept = text
    if not text.isprintable():
        kept = "".join(each if each.isprintable() else " " for each in text)
    for mark in ("\\", "|", "<", "*", "_", "[", "]", "#"):
        kept = kept.replace(mark, f"\\{mark}")
    return kept
