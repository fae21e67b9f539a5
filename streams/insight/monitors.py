"""What is judged over all tasks and sources: one signal in, edges and effects out.

One owner folds the signals in the order of their topic; so all questions about shares have one answer.
What they are judged by is a signal as well, when a policy changes it.

Time is that of ticks, of the ledger's records, and for what sources say of themselves the broker's.
People date their own records: those do not move the clock, and what claims to come from later than a few
minutes from now counts as of then, or one wrong clock would empty every window.

Sources have a clock of their own, moved by ticks and by them alone. After an outage topics are read at
different speeds: by one clock for all, what had waited in one of them would be late because of another.
"""

from dataclasses import replace
from typing import assert_never

from msgspec import Struct, field

from schemas.alerts import Origin
from streams.budget.alert_rules import AlertRules, default_alert_rules
from streams.budget.governance_rules import GovernanceRules
from streams.budget.policy import default_governance_rules
from streams.insight import access, answers, importance, reviews, shares, sources
from streams.insight.look import Look, Outcome
from streams.insight.signals import (
    BlockAnswered,
    BlockClassed,
    CallsMade,
    ReportRead,
    ReviewAwaited,
    ReviewSettled,
    RulesSet,
    Signal,
    SourceHeard,
    TaskBegan,
    TaskBlocked,
    TaskClassed,
    Tick,
    sequence_of,
)
from streams.insight.windows import Scopes, Windows, is_new, load, save

AHEAD_MS_MAX = 5 * 60_000
RULES = "rules"
CLOCK, CLOCK_OF_SOURCES = "clock", "clock/sources"


class Clock(Struct):
    """The highest time that it has been told."""

    now_ms: int = 0


class Rules(Struct):
    """What alerts are judged by, since some policy said so."""

    rules: AlertRules = field(default_factory=default_alert_rules)
    governance: GovernanceRules = field(default_factory=default_governance_rules)


def fold_signal(windows: Windows, signal: Signal, place: Origin) -> list[Outcome]:
    """Change the windows by one signal; return what follows, in the order to send it.

    The same signal once more, at any place, changes nothing.

    Args:
        windows: what is kept, by key; only what changes is written.
        place: where the signal stands in its topic. It is the origin of what a tick causes; of all
            else that is the record which the signal follows from.
    """
    origin = place if isinstance(signal, Tick) else signal.origin
    is_counted = not isinstance(signal, Tick | BlockClassed)
    if is_counted and not is_new(windows, origin, sequence=sequence_of(signal)):
        return []
    if isinstance(signal, RulesSet):
        save(windows, RULES, Rules(signal.rules, signal.governance))
    held = load(windows, RULES, Rules)
    at_ms, now_ms = _move(windows, signal)
    look = Look(
        windows=windows,
        rules=held.rules,
        governance=held.governance,
        at_ms=at_ms,
        now_ms=now_ms,
        origin=origin,
        rules_changed=isinstance(signal, RulesSet),
    )
    match signal:
        case TaskBegan() | TaskBlocked():
            shares.tell_tasks(look, signal)
        case CallsMade():
            shares.tell_calls(look, signal)
        case BlockClassed() | BlockAnswered():
            answers.tell_block(look, signal)
        case SourceHeard():
            sources.tell_source(look, signal)
        case TaskClassed():
            importance.tell_class(look, signal)
        case ReviewAwaited() | ReviewSettled():
            reviews.tell_review(look, signal)
        case ReportRead():
            access.tell_read(look, signal)
        case Tick() | RulesSet():
            shares.tell_tasks(look, None)
            shares.tell_calls(look, None)
            answers.tell_time(look)
            sources.tell_time(replace(look, now_ms=_clock_ms(windows, CLOCK_OF_SOURCES)))
            importance.tell_class(look, None)
            reviews.tell_time(look)
            access.tell_time(look)
        case _:
            assert_never(signal)
    return look.outcomes


def importance_now(windows: Windows) -> importance.Distribution:
    """Return how many of the tasks that began lately are of which importance, and how many should."""
    held = load(windows, RULES, Rules)
    return importance.distribution(
        load(windows, importance.IMPORTANCE_INFLATION, shares.Share).counters.totals(),
        held.rules.importance_inflation,
        held.governance,
    )


def dropped(windows: Windows) -> dict[str, int]:
    """Return how much found no room, or came too late, by what it was."""
    found = {
        "sources": load(windows, f"scopes/{sources.SOURCES}", Scopes).dropped,
        "late_tasks": load(windows, shares.STOP_LOSS_RATE, shares.Share).counters.late,
        "late_calls": load(windows, shares.USAGE_MISSING, shares.Share).counters.late,
        "blocks": load(windows, answers.DROPPED, answers.Dropped).blocks,
        "late_classes": load(windows, importance.IMPORTANCE_INFLATION, shares.Share).counters.late,
        "reviews": reviews.dropped(windows),
        "readers": load(windows, f"scopes/{access.ACCESS_ANOMALY}", Scopes).dropped,
    }
    return {name: number for name, number in found.items() if number}


def _move(windows: Windows, signal: Signal) -> tuple[int, int]:
    """Let the clocks move on; return when a signal counts, and what its clock is then."""
    match signal:
        case BlockAnswered() | RulesSet() | ReportRead():
            now_ms = _clock_ms(windows, CLOCK) or signal.at_ms
            return min(signal.at_ms, now_ms + AHEAD_MS_MAX), now_ms
        case SourceHeard():
            return signal.at_ms, _advance(windows, CLOCK_OF_SOURCES, signal.at_ms)
        case Tick():
            _advance(windows, CLOCK_OF_SOURCES, signal.at_ms)
        case _:
            pass  # the ledger's
    return signal.at_ms, _advance(windows, CLOCK, signal.at_ms)


def _clock_ms(windows: Windows, key: str) -> int:
    return load(windows, key, Clock).now_ms


def _advance(windows: Windows, key: str, at_ms: int) -> int:
    clock = load(windows, key, Clock)
    if at_ms > clock.now_ms:
        clock.now_ms = at_ms
        save(windows, key, clock)
    return clock.now_ms
