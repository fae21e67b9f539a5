"""How each source is: its queue, its phase transitions against its own past, batches that failed.

A source is an enforcer or a ledger, by the name it has in `health`. What is normal for it is what its
windows before were like; one in which its transitions were slow does not become normal, until the time
that is kept is over and it is learnt anew. Source: budget model, "Alerts"; the user's document,
scenarios 3 and 4.
"""

import zlib

from msgspec import Struct, field

from schemas.alerts import Severity
from schemas.quantiles import count, quantile
from schemas.sketches import Histogram
from streams.insight.edges import Rule, Standing
from streams.insight.look import Look, OpenBreaker
from streams.insight.numbers import counted, period
from streams.insight.signals import SourceHeard
from streams.insight.windows import (
    Counters,
    Sketches,
    Span,
    admit,
    dismiss,
    load,
    save,
    scopes_of,
)

SOURCES = "source"
RECENT_BUCKETS, BASELINE_BUCKETS = 10, 28  # a source's entry holds a histogram for each
JUDGED_SHARE = 0.95  # of the transitions: p95
# A source that is gone makes room for another one; its alerts are numbered from 1 if it comes again.
FORGOTTEN_AFTER_MS = 7 * 24 * 3_600_000
_FAILED = "failed"

LEDGER_WRITE_FAILURES = Rule(
    name="ledger_write_failures", severity=Severity.CRITICAL, fires_above=0, resolves_at=0
)


class Pace(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How long transitions take now and took before, at p95 in milliseconds, and how many there were.

    `ratio` None: there is nothing to compare.
    """

    now_ms: float = 0
    before_ms: float = 0
    count: int = 0
    ratio: float | None = None

    def judged(self, count_min: int, *, goes_on: bool) -> float:
        """Return the ratio, 0 where there is too little to judge.

        What has begun goes on with any transition: where they are slow enough, there are few of them.
        """
        return self.ratio or 0.0 if goes_on or self.count >= count_min else 0.0


class Source(Struct, kw_only=True, omit_defaults=True):
    """What is known of a source, and where its alerts stand."""

    known_ms: int = 0  # since when
    heard_ms: int = 0
    waiting: int = 0
    queue: Standing = field(default_factory=Standing)
    recent: Sketches = field(default_factory=Sketches)
    baseline: Sketches = field(default_factory=Sketches)
    pace: Pace = field(default_factory=Pace)
    latency: Standing = field(default_factory=Standing)
    slow_since_ms: int | None = None  # above what opens the breaker, without a break
    breaker: Standing = field(default_factory=Standing)
    failures: Counters = field(default_factory=Counters)
    failing: Standing = field(default_factory=Standing)

    @property
    def is_firing(self) -> bool:
        """Whether any of its alerts fires."""
        standings = (self.queue, self.latency, self.breaker, self.failing)
        return any(standing.is_firing for standing in standings)


def tell_source(look: Look, signal: SourceHeard) -> None:
    """Take over what a source says of itself, and judge it; what is one too many is counted."""
    name = signal.source
    if not admit(look.windows, SOURCES, name):
        return
    source = load(look.windows, _key(name), Source)
    source.known_ms = source.known_ms or look.at_ms
    source.heard_ms = max(source.heard_ms, look.now_ms)
    _pass_time(look, source)
    if signal.queue_depth is not None:
        source.waiting = signal.queue_depth
    if signal.batch_failures:
        span = Span.of(look.rules.ledger_write_failures.quiet_ms)
        source.failures.add(span, look.at_ms, _FAILED, signal.batch_failures)
    if signal.transition_ms is not None:
        _measure(look, source, signal.transition_ms)
    _judge(look, name, source)
    save(look.windows, _key(name), source)


def tell_time(look: Look) -> None:
    """Let time pass for every source; one that has been silent for long is forgotten."""
    for name in scopes_of(look.windows, SOURCES):
        source = load(look.windows, _key(name), Source)
        silent_ms = look.now_ms - source.heard_ms
        changed = _pass_time(look, source)
        if silent_ms >= look.rules.queue_depth.silent_ms and source.waiting:
            source.waiting, changed = 0, True
        before = (len(look.outcomes), source.slow_since_ms)
        _judge(look, name, source)
        if silent_ms >= FORGOTTEN_AFTER_MS and not source.is_firing:
            dismiss(look.windows, SOURCES, name)
            del look.windows[_key(name)]
        elif changed or before != (len(look.outcomes), source.slow_since_ms):
            save(look.windows, _key(name), source)


def _key(name: str) -> str:
    return f"{SOURCES}/{name}"


def _spans(look: Look) -> tuple[Span, Span]:
    rule = look.rules.transition_latency
    return Span.of(rule.window_ms, RECENT_BUCKETS), Span.of(rule.baseline_ms, BASELINE_BUCKETS)


def _pass_time(look: Look, source: Source) -> bool:
    """Let what is old leave the windows, and tell whether anything did."""
    recent, baseline = _spans(look)
    forgotten = source.baseline.advance(baseline, look.now_ms)
    left = source.recent.advance(recent, look.now_ms)
    if not source.latency.is_firing:
        for start_ms, histogram in left.items():
            source.baseline.add(baseline, start_ms, histogram)
    if left or forgotten:
        source.pace = _pace(look, source)
    quiet = Span.of(look.rules.ledger_write_failures.quiet_ms)
    return source.failures.advance(quiet, look.now_ms) or bool(left or forgotten)


def _measure(look: Look, source: Source, histogram: Histogram) -> None:
    """Take over transitions; late ones belong to what was before, if that was not slow."""
    recent, baseline = _spans(look)
    if not source.recent.add(recent, look.at_ms, histogram) and not source.latency.is_firing:
        source.baseline.add(baseline, look.at_ms, histogram)
    source.pace = _pace(look, source)


def _pace(look: Look, source: Source) -> Pace:
    recent, baseline = source.recent.merged(), source.baseline.merged()
    now_ms, before_ms = quantile(recent, JUDGED_SHARE) or 0, quantile(baseline, JUDGED_SHARE) or 0
    is_known = count(baseline) >= look.rules.transition_latency.count_min and before_ms > 0
    return Pace(
        now_ms=now_ms,
        before_ms=before_ms,
        count=count(recent),
        ratio=now_ms / before_ms if is_known and count(recent) else None,
    )


def _judge(look: Look, name: str, source: Source) -> None:
    _judge_queue(look, name, source)
    _judge_failures(look, name, source)
    text = _pace_text(look, name, source.pace)
    rule = look.rules.transition_latency
    latency = Rule(
        name="transition_latency",
        severity=Severity.WARNING,
        fires_above=rule.fires_above,
        resolves_at=rule.resolves_at,
    )
    ratio = source.pace.judged(rule.count_min, goes_on=source.latency.is_firing)
    look.judge(latency, source.latency, name, ratio, text)
    _judge_breaker(look, name, source, text)


def _judge_queue(look: Look, name: str, source: Source) -> None:
    rule = look.rules.queue_depth
    depth = Rule(
        name="queue_depth",
        severity=Severity.WARNING,
        fires_above=rule.fires_above,
        resolves_at=rule.resolves_at,
    )
    if look.now_ms - source.heard_ms >= rule.silent_ms:
        text = f"{name} has said nothing for {period(rule.silent_ms)}: its queue is not counted"
    else:
        text = f"{counted(source.waiting, 'task')} {'waits' if source.waiting == 1 else 'wait'} at {name}"
    look.judge(depth, source.queue, name, source.waiting, text)


def _judge_failures(look: Look, name: str, source: Source) -> None:
    failed, within = (
        source.failures.total(_FAILED),
        period(look.rules.ledger_write_failures.quiet_ms),
    )
    text = (
        f"{counted(failed, 'batch', 'batches')} of {name} failed in {within}; what was not committed is "
        "folded again: stoploss doctor says whether it goes on"
        if failed
        else f"no batch of {name} has failed for {within}"
    )
    look.judge(LEDGER_WRITE_FAILURES, source.failing, name, failed, text)


def _judge_breaker(look: Look, name: str, source: Source, text: str) -> None:
    """Open the breaker where transitions have been far too slow for long, and never close it.

    Whether enforcement is switched on again is a person's decision.
    """
    rule = look.rules.breaker_open
    ratio = source.pace.judged(
        look.rules.transition_latency.count_min,
        goes_on=source.breaker.is_firing or source.slow_since_ms is not None,
    )
    if ratio <= rule.fires_above:
        source.slow_since_ms = None
    elif source.slow_since_ms is None:
        source.slow_since_ms = look.now_ms
    since_ms = source.slow_since_ms
    if source.breaker.is_firing:
        fires = ratio > rule.resolves_at
    else:
        fires = since_ms is not None and look.now_ms - since_ms > rule.after_ms
    breaker = Rule(
        name="breaker_open",
        severity=Severity.CRITICAL,
        fires_above=rule.fires_above,
        resolves_at=rule.resolves_at,
    )
    text += (
        f", for more than {period(rule.after_ms)}: enforcement is switched off"
        if fires
        else "; enforcement stays off until somebody says otherwise: stoploss mode enforce --reason …"
    )
    edge = look.turn(breaker, source.breaker, name, ratio, text, fires=fires)
    if edge is not None and fires:
        # Not when it opened: after a crash that may be at a tick, and before at a record. Names may be
        # as long as an id may be.
        source_key = f"{zlib.crc32(name.encode()):08x}-{source.known_ms}"
        look.outcomes.append(
            OpenBreaker(
                key=f"breaker-{source_key}-{source.breaker.number}",
                source=name,
                at_ms=look.now_ms,
                reason=text,
            )
        )


def _pace_text(look: Look, name: str, pace: Pace) -> str:
    within = period(look.rules.transition_latency.window_ms)
    if pace.ratio is None:
        return f"{name}: {counted(pace.count, 'phase transition')} in {within}, too few to judge"
    return (
        f"{name}: phase transitions take {pace.now_ms:,.0f} ms at p95, {pace.ratio:.1f} times the "
        f"{pace.before_ms:,.0f} ms of before ({pace.count:,} in {within})"
    )
