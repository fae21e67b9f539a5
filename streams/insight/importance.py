"""How many tasks are of which importance, and whether too many call themselves critical.

A task counts where it began, as what it is classified now: a reclassification takes it away from what it
was and adds it to what it is, so that the counts do not depend on the order between partitions. Source:
budget model, "Governance"; the user's document, scenario 6.
"""

from collections.abc import Mapping

from msgspec import Struct

from schemas.alerts import Severity
from schemas.fields import Importance
from streams.budget.alert_rules import InflationRule
from streams.budget.governance_rules import GovernanceRules
from streams.insight.edges import Rule
from streams.insight.look import Look
from streams.insight.numbers import counted, percent, period
from streams.insight.shares import ALL, Share, percent_of
from streams.insight.signals import TaskClassed
from streams.insight.windows import Span, load, save

IMPORTANCE_INFLATION = "importance_inflation"
SHARE_DIGITS = 4


class ImportanceShare(Struct, frozen=True, kw_only=True):
    """How many tasks are of an importance, beside the share of them that a policy expects.

    `share` and `drift` (what it is above the expected one, or below 0 under it) are None where no
    task began.
    """

    importance: Importance
    tasks: int
    share: float | None
    expected: float
    drift: float | None


class Distribution(Struct, frozen=True, kw_only=True):
    """The tasks that began in a window, by importance, the most important first.

    `drift` is the share of tasks that would have to be of another importance for all shares to be the
    expected ones; None where no task began. `is_judged`: there are enough of them for an alert.
    """

    window_ms: int
    tasks: int
    is_judged: bool
    critical_share_max: float
    drift: float | None
    shares: list[ImportanceShare]


def distribution(
    counts: Mapping[str, int], rule: InflationRule, governance: GovernanceRules
) -> Distribution:
    """Return the distribution that follows from the number of tasks of each importance.

    A number below 0 is none: after a policy has made the window longer, a task may be taken away from
    what was not counted.
    """
    numbers = {importance: max(counts.get(importance, 0), 0) for importance in reversed(Importance)}
    tasks = sum(numbers.values())
    shares = [
        _share(importance, number, tasks, governance.expected_share[importance])
        for importance, number in numbers.items()
    ]
    away = sum(abs(one.drift) for one in shares if one.drift is not None)
    return Distribution(
        window_ms=rule.window_ms,
        tasks=tasks,
        is_judged=tasks >= rule.count_min,
        critical_share_max=governance.critical_share_max,
        drift=round(away / 2, SHARE_DIGITS) if tasks else None,
        shares=shares,
    )


def _share(importance: Importance, count: int, tasks: int, expected: float) -> ImportanceShare:
    share = count / tasks if tasks else None
    return ImportanceShare(
        importance=importance,
        tasks=count,
        share=None if share is None else round(share, SHARE_DIGITS),
        expected=expected,
        drift=None if share is None else round(share - expected, SHARE_DIGITS),
    )


def tell_class(look: Look, signal: TaskClassed | None) -> None:
    """Count a task as what it is now, or let time pass."""
    rule = look.rules.importance_inflation
    share, span = load(look.windows, IMPORTANCE_INFLATION, Share), Span.of(rule.window_ms)
    changed = share.counters.advance(span, look.now_ms) or look.rules_changed
    if signal is None and not changed:
        return
    if signal is not None:
        share.counters.add(span, signal.began_ms, signal.importance.value)
        if signal.previous is not None:
            share.counters.add(span, signal.began_ms, signal.previous.value, -1)
    found = distribution(share.counters.totals(), rule, look.governance)
    critical = found.shares[0].tasks
    value = critical / found.tasks if found.is_judged else 0.0
    text = _text(look, found.tasks, critical, value)
    look.judge(_rule(look), share.standing, ALL, value, text)
    save(look.windows, IMPORTANCE_INFLATION, share)


def _rule(look: Look) -> Rule:
    most = look.governance.critical_share_max
    return Rule(
        name=IMPORTANCE_INFLATION,
        severity=Severity.WARNING,
        fires_above=most,
        resolves_at=most * look.rules.importance_inflation.resolves_part,
    )


def _text(look: Look, tasks: int, critical: int, value: float) -> str:
    rule = look.rules.importance_inflation
    within = period(rule.window_ms)
    if tasks < rule.count_min:
        return f"{counted(tasks, 'task')} began in {within}: too few to judge how many are critical"
    expected = percent(look.governance.expected_share[Importance.CRITICAL])
    text = (
        f"{critical:,} of {counted(tasks, 'task')} that began in {within} are critical: "
        f"{percent_of(critical, tasks)}, where {expected} are expected"
    )
    if value > look.governance.critical_share_max:
        text += "; stoploss audit shows who said so, and why"
    return text
