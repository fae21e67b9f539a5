"""Who reads how many reports: they say a lot about a project, and nobody needs all of them at once.

Source: budget model, "Alerts"; the user's document, scenario 8.
"""

from msgspec import Struct, field

from schemas.alerts import Severity
from streams.insight.edges import Rule, Standing
from streams.insight.look import Look
from streams.insight.numbers import counted, period
from streams.insight.signals import ReportRead
from streams.insight.sources import FORGOTTEN_AFTER_MS
from streams.insight.windows import Counters, Span, admit, dismiss, load, save, scopes_of

ACCESS_ANOMALY = "access_anomaly"
_READ = "read"


class Reader(Struct, kw_only=True, omit_defaults=True):
    """What somebody has read, and where the alert about it stands."""

    read_ms: int = 0
    reads: Counters = field(default_factory=Counters)
    standing: Standing = field(default_factory=Standing)


def tell_read(look: Look, signal: ReportRead) -> None:
    """Count a report that was read; readers beyond the bound are counted as dropped."""
    name = signal.reader
    if not admit(look.windows, ACCESS_ANOMALY, name):
        return
    reader = load(look.windows, _key(name), Reader)
    span = Span.of(look.rules.access_anomaly.window_ms)
    reader.reads.advance(span, look.now_ms)
    reader.reads.add(span, look.at_ms, _READ)
    reader.read_ms = max(reader.read_ms, look.at_ms)
    _judge(look, name, reader)
    save(look.windows, _key(name), reader)


def tell_time(look: Look) -> None:
    """Let time pass for every reader; one that reads nothing any more makes room for others.

    One whose alert has fired is kept for longer, and numbered from 1 if it comes again after that.
    """
    span = Span.of(look.rules.access_anomaly.window_ms)
    for name in scopes_of(look.windows, ACCESS_ANOMALY):
        reader = load(look.windows, _key(name), Reader)
        changed = reader.reads.advance(span, look.now_ms) or look.rules_changed
        if changed:
            _judge(look, name, reader)
            save(look.windows, _key(name), reader)
        kept_ms = FORGOTTEN_AFTER_MS if reader.standing.number else 0
        if not reader.reads.buckets and look.now_ms - reader.read_ms >= kept_ms:
            dismiss(look.windows, ACCESS_ANOMALY, name)
            del look.windows[_key(name)]


def _key(name: str) -> str:
    return f"{ACCESS_ANOMALY}/{name}"


def _judge(look: Look, name: str, reader: Reader) -> None:
    rule = look.rules.access_anomaly
    reports = reader.reads.total(_READ)
    text = f"{name} has read {counted(reports, 'report')} in {period(rule.window_ms)}"
    if reports > rule.fires_above:
        text += "; stoploss audit shows which"
    anomaly = Rule(
        name=ACCESS_ANOMALY,
        severity=Severity.WARNING,
        fires_above=rule.fires_above,
        resolves_at=rule.resolves_at,
    )
    look.judge(anomaly, reader.standing, name, reports, text)
