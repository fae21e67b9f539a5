"""Causes in words: what happened, and what to do about it.

Source: budget model, "Breach explanations"; the user's scenario 7: a report that only says "THINK
used 5,234 tokens" is not read.
"""

from fractions import Fraction
from typing import assert_never

from schemas.fields import Cause, Metric, Number
from streams.insight.numbers import amount, counted, percent

Evidence = dict[str, Number]


def what_happened(cause: Cause, evidence: Evidence) -> str:
    """Return why a cell was crossed, with its figures, as the end of a sentence."""
    calls, files = _int(evidence, "model_calls"), _int(evidence, "files_read")
    match cause:
        case Cause.EXTENSIVE_RESEARCH:
            return f"extensive research, {counted(files, 'file')} read"
        case Cause.ITERATION:
            return f"iteration, {counted(calls, 'model call')} with output still growing"
        case Cause.INEFFICIENT:
            output = amount(evidence.get("output_tokens", 0), Metric.TOKENS)
            return f"many tokens and hardly any output ({output} tokens of it)"
        case Cause.BACKTRACKING:
            again = amount(evidence.get("repeated_tokens", 0), Metric.TOKENS)
            return f"backtracking, {again} tokens of it in attempt 2 and later"
        case Cause.SLOW_MODEL:
            return "a slow model: tokens are within their limit"
        case Cause.MISSING_USAGE:
            return f"missing usage, {_missing(evidence, calls)}"
        case Cause.OVERRIDE_TOO_LOW:
            return f"an override below the computed limit{_computed(evidence)}"
        case Cause.UNCLASSIFIED:
            return "no known pattern"
        case _:
            assert_never(cause)


def what_to_do(cause: Cause, phase: str | None) -> str:
    """Return one sentence that says what to change; `phase` None: it is about the whole task."""
    where = phase or "the task"
    match cause:
        case Cause.EXTENSIVE_RESEARCH:
            return f"Name the files that matter before {where} begins, or give research a limit of its own."
        case Cause.ITERATION:
            return f"Split the work of {where} into smaller tasks; it was still making progress."
        case Cause.INEFFICIENT:
            return f"Look at the transcript of {where}: it read much and wrote hardly anything."
        case Cause.BACKTRACKING:
            return f"Look at why the first attempt at {where} was thrown away; the plan before it may be too thin."
        case Cause.SLOW_MODEL:
            return f"Raise the time limit of {where}, or use a faster model: the work itself is within budget."
        case Cause.MISSING_USAGE:
            return "Have the enforcer report usage: limits on estimates are guesses."
        case Cause.OVERRIDE_TOO_LOW:
            return f"Drop the override of {where}, or explain it: the policy allows more."
        case Cause.UNCLASSIFIED:
            return f"Look at the transcript of {where}: its counters fit no known pattern."
        case _:
            assert_never(cause)


def _missing(evidence: Evidence, calls: int) -> str:
    missing = _int(evidence, "unknown_usage") + _int(evidence, "estimated_usage")
    share = f" ({percent(Fraction(missing, calls))})" if calls else ""
    return f"{missing:,} of {counted(calls, 'model call')} unknown or estimated{share}"


def _computed(evidence: Evidence) -> str:
    computed = evidence.get("computed_limit")
    return "" if computed is None else f" of {computed:,}"


def _int(evidence: Evidence, name: str) -> int:
    return int(evidence.get(name, 0))
