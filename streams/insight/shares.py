"""Shares over all tasks: how many come to block, and of how many calls the usage is not known.

Each is judged over a window, and only where enough was counted: 1 of 2 tasks is no rate. Source: budget
model, "Alerts"; the user's document, scenarios 1 and 2.
"""

from msgspec import Struct, field

from schemas.alerts import Severity
from streams.budget.alert_rules import ShareRule
from streams.insight.edges import Rule, Standing
from streams.insight.look import Look
from streams.insight.numbers import counted, period
from streams.insight.signals import CallsMade, TaskBegan, TaskBlocked
from streams.insight.windows import Counters, Span, load, save

STOP_LOSS_RATE = "stop_loss_rate"
USAGE_MISSING = "usage_missing"
ALL = "all"

_BEGAN, _BLOCKED = "began", "blocked"
_CALLS, _UNKNOWN, _ESTIMATED = "calls", "unknown", "estimated"


class Share(Struct, kw_only=True, omit_defaults=True):
    """What was counted for a share, and where its alert stands."""

    counters: Counters = field(default_factory=Counters)
    standing: Standing = field(default_factory=Standing)


def share_rule(name: str, rule: ShareRule) -> Rule:
    """Return when the alert on a share fires, and when it is resolved."""
    return Rule(
        name=name,
        severity=Severity.WARNING,
        fires_above=rule.fires_above,
        resolves_at=rule.resolves_at,
    )


def percent_of(part: int, whole: int) -> str:
    """Return `20 %`, rounded down."""
    return f"{part * 100 // whole:,} %"


def tell_tasks(look: Look, signal: TaskBegan | TaskBlocked | None) -> None:
    """Count a task that began or came to block, or let time pass.

    A share of tasks that began, and not of the same ones: whether a task will be blocked shows long
    after its start. Over a window longer than tasks take, the two are the same.
    """
    rule = look.rules.stop_loss_rate
    share, span = load(look.windows, STOP_LOSS_RATE, Share), Span.of(rule.window_ms)
    changed = share.counters.advance(span, look.now_ms) or look.rules_changed
    if isinstance(signal, TaskBlocked):
        share.counters.add(span, look.at_ms, _BLOCKED)
    elif signal is not None and not signal.is_late:
        share.counters.add(span, look.at_ms, _BEGAN)
    elif not changed:
        return
    began, blocked = share.counters.total(_BEGAN), share.counters.total(_BLOCKED)
    within = period(rule.window_ms)
    if began < rule.count_min:
        value = 0.0
        text = (
            f"{counted(began, 'task')} began in {within}: too few to judge how many come to block"
        )
    else:
        value = blocked / began
        text = (
            f"{counted(blocked, 'task')} came to block in {within}, or would have, while "
            f"{began:,} began: {percent_of(blocked, began)}"
        )
        if value > rule.fires_above:
            text += "; are the limits what tasks of this kind need? stoploss tasks --all shows them"
    look.judge(share_rule(STOP_LOSS_RATE, rule), share.standing, ALL, value, text)
    save(look.windows, STOP_LOSS_RATE, share)


def tell_calls(look: Look, signal: CallsMade | None) -> None:
    """Count model calls, and those whose usage is not known, or let time pass."""
    rule = look.rules.usage_missing
    share, span = load(look.windows, USAGE_MISSING, Share), Span.of(rule.window_ms)
    changed = share.counters.advance(span, look.now_ms) or look.rules_changed
    if signal is None and not changed:
        return
    if signal is not None:
        share.counters.add(span, look.at_ms, _CALLS, signal.calls)
        share.counters.add(span, look.at_ms, _UNKNOWN, signal.unknown)
        share.counters.add(span, look.at_ms, _ESTIMATED, signal.estimated)
    calls = share.counters.total(_CALLS)
    unknown, estimated = share.counters.total(_UNKNOWN), share.counters.total(_ESTIMATED)
    within = period(rule.window_ms)
    if calls < rule.count_min:
        value = 0.0
        text = f"{counted(calls, 'model call')} in {within}: too few to judge how many lack their usage"
    else:
        value = (unknown + estimated) / calls
        text = (
            f"{unknown + estimated:,} of {calls:,} model calls in {within} lack their usage "
            f"({unknown:,} unknown, {estimated:,} estimated): {percent_of(unknown + estimated, calls)}"
        )
    look.judge(share_rule(USAGE_MISSING, rule), share.standing, ALL, value, text)
    save(look.windows, USAGE_MISSING, share)
