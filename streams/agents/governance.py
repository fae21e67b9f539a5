"""The agent `governance`: changes of tasks → `audit`, and alerts about importance and reading.

Two stages, as those of `alerts`: what each partition tells of its tasks, and one owner who looks at the
shares of all. Source: budget model, "Governance"; the user's document, scenarios 6 and 8.
"""

from collections.abc import Iterator

import msgspec
from msgspec import Raw

from schemas.alerts import Origin
from schemas.audit import Audit
from schemas.outputs import Lifecycle
from schemas.topics import Topic
from streams.agents.dropped import of_windows
from streams.agents.stages import (
    Agent,
    Entries,
    Inbound,
    InternalTopic,
    Outbound,
    Source,
    Stage,
    Ticks,
    encode,
    source,
)
from streams.agents.windows import Packed, alert_record
from streams.insight import governing
from streams.insight.look import OpenBreaker
from streams.insight.monitors import fold_signal
from streams.insight.signals import Signal, Tick, from_audit, report_read

SIGNALS = InternalTopic("agents-governance-signals")
# A review is due after a day: time is looked at often enough.
TICK_EVERY_S = 5.0

_SIGNAL: msgspec.json.Decoder[Signal] = msgspec.json.Decoder(Signal)


def watch_importance(entries: Entries[governing.Kept], record: Inbound) -> Iterator[Outbound]:
    """Turn a change of a task into entries of the audit, edges and signals."""
    origin = record.origin
    alerts, signals, audits = governing.tell(entries, record.data, origin)
    for entry in audits:
        yield Outbound(Topic.AUDIT, entry.subject.encode(), encode(entry))
    yield from map(alert_record, alerts)
    for signal in signals:
        yield Outbound(SIGNALS.topic, record.key.encode(), encode(signal))


def tidy(entries: Entries[governing.Kept]) -> tuple[()]:
    """Forget what has ended long ago."""
    governing.tidy(entries)
    return ()


def watch_shares(entries: Entries[Raw], record: Inbound) -> Iterator[Outbound]:
    """Turn a signal, or what somebody has read or set, into edges."""
    place = record.origin
    signal = _signal(record, place)
    if signal is not None:
        for outcome in fold_signal(Packed(entries), signal, place):
            assert not isinstance(outcome, OpenBreaker), "that is the agent alerts' to do"
            yield alert_record(outcome)


def _signal(record: Inbound, place: Origin) -> Signal | None:
    if record.topic == Topic.AUDIT:
        return report_read(record.data, place) or from_audit(record.data, place)
    signal: Signal = record.data
    return signal


AGENT = Agent(
    name="governance",
    stages=(
        Stage(
            name="tasks",
            sources=(source(Topic.LIFECYCLE, Lifecycle, "stoploss.lifecycle"),),
            fold=watch_importance,
            finish=tidy,
            entry=governing.Kept,
        ),
        Stage(
            name="shares",
            sources=(Source(SIGNALS.topic, _SIGNAL), source(Topic.AUDIT, Audit, "stoploss.audit")),
            fold=watch_shares,
            entry=Raw,
            dropped=of_windows,
        ),
    ),
    internal=(SIGNALS,),
    writes=(Topic.ALERTS, Topic.AUDIT),
    ticks=(Ticks(SIGNALS.topic, TICK_EVERY_S, lambda at_ms: encode(Tick(at_ms=at_ms))),),
)
