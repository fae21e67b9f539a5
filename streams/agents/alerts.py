"""The agent `alerts`: what the ledger and enforcers say → edges on `alerts`.

Two stages: what each partition tells of its tasks becomes alerts about single tasks, and signals on a
topic of one partition, where one owner looks at all tasks and sources. Breaches are not read: decisions
say all that alerts need of them.
"""

from collections.abc import Iterator

import msgspec
from msgspec import Raw

from schemas.alerts import Origin
from schemas.audit import Action, Audit
from schemas.envelope import Envelope, rfc3339
from schemas.events import ModeSetData, partition_subject
from schemas.feedback import Feedback
from schemas.health import Health
from schemas.letters import AGENTS_SOURCE
from schemas.outputs import Decision, ExecutionRecord, Lifecycle
from schemas.topics import Topic
from streams.agents import dropped
from streams.agents.stages import (
    Agent,
    Entries,
    Everywhere,
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
from streams.budget.state import BREAKER
from streams.insight import remembering
from streams.insight.look import OpenBreaker
from streams.insight.monitors import fold_signal
from streams.insight.signals import Signal, Tick, from_audit, from_feedback, from_health

SIGNALS = InternalTopic("agents-alerts-signals")
# What time alone resolves is resolved as late as this. A tick looks at every source there is, so that
# many of them (256 at most) are some hundredths of a core.
TICK_EVERY_S = 2.0
# Somebody waits for an alert; most batches are small.
LINGER_S = 0.02

_SIGNAL: msgspec.json.Decoder[Signal] = msgspec.json.Decoder(Signal)


def watch_tasks(entries: Entries[remembering.Kept], record: Inbound) -> Iterator[Outbound]:
    """Turn a record about a task into edges and signals."""
    origin = record.origin
    if record.data is None:
        alerts = remembering.tell_deletion(entries, record.key, origin, record.timestamp_ms)
        signals: list[Signal] = []
    else:
        alerts, signals = remembering.tell(entries, record.data, origin)
    yield from map(alert_record, alerts)
    for signal in signals:
        yield Outbound(SIGNALS.topic, record.key.encode(), encode(signal))


def watch_windows(entries: Entries[Raw], record: Inbound) -> Iterator[Outbound | Everywhere]:
    """Turn a signal, or what an enforcer, a ledger or a person says, into edges and effects."""
    place = record.origin
    signal = _signal(record, place)
    if signal is None:
        return
    for outcome in fold_signal(Packed(entries), signal, place):
        if isinstance(outcome, OpenBreaker):
            yield _mode(outcome)
            yield _entry(outcome)
        else:
            yield alert_record(outcome)


def _signal(record: Inbound, place: Origin) -> Signal | None:
    match record.topic:
        case Topic.HEALTH:
            return from_health(record.data, place, record.timestamp_ms)
        case Topic.FEEDBACK:
            return from_feedback(record.data, place)
        case Topic.AUDIT:
            return from_audit(record.data, place)
        case _:
            signal: Signal = record.data
            return signal


def _mode(breaker: OpenBreaker) -> Everywhere:
    """Return the events that switch enforcement off; the same ones, however often it is done."""

    def event(partition: int) -> Outbound:
        subject = partition_subject(partition)
        envelope = Envelope(
            id=breaker.event_id(partition),
            source=AGENTS_SOURCE,
            type="stoploss.mode.set",
            subject=subject,
            time=rfc3339(breaker.at_ms),
            data=ModeSetData(mode=breaker.mode, by=BREAKER, reason=breaker.reason),
        )
        return Outbound(Topic.EVENTS, subject.encode(), encode(envelope), partition)

    return Everywhere(Topic.EVENTS, event)


def _entry(breaker: OpenBreaker) -> Outbound:
    """Return what is noted of it in `audit`."""
    envelope = Envelope(
        id=f"audit-{breaker.key}",
        source=AGENTS_SOURCE,
        type="stoploss.audit",
        subject="mode",
        time=rfc3339(breaker.at_ms),
        data=Audit(
            subject="mode",
            action=Action.MODE_SET,
            by=BREAKER,
            reason=breaker.reason,
            after={"mode": breaker.mode.value},
        ),
    )
    return Outbound(Topic.AUDIT, b"mode", encode(envelope))


AGENT = Agent(
    name="alerts",
    stages=(
        Stage(
            name="tasks",
            sources=(
                source(Topic.LIFECYCLE, Lifecycle, "stoploss.lifecycle"),
                source(Topic.DECISIONS, Decision, "stoploss.decision", has_deletions=True),
                source(Topic.EXECUTIONS, ExecutionRecord, "stoploss.execution"),
            ),
            fold=watch_tasks,
            entry=remembering.Kept,
            dropped=dropped.of_tasks,
            linger_s=LINGER_S,
        ),
        Stage(
            name="windows",
            sources=(
                Source(SIGNALS.topic, _SIGNAL),
                source(Topic.HEALTH, Health, "stoploss.health"),
                source(Topic.FEEDBACK, Feedback, "stoploss.feedback"),
                source(Topic.AUDIT, Audit, "stoploss.audit"),
            ),
            fold=watch_windows,
            entry=Raw,
            dropped=dropped.of_windows,
            linger_s=LINGER_S,
        ),
    ),
    internal=(SIGNALS,),
    writes=(Topic.ALERTS, Topic.EVENTS, Topic.AUDIT),
    ticks=(Ticks(SIGNALS.topic, TICK_EVERY_S, lambda at_ms: encode(Tick(at_ms=at_ms))),),
)
