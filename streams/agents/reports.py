"""The agent `reports`: what the ledger says of tasks → a report of each that has ended.

Two stages: what is known of tasks is gathered in each partition, and what is due goes to a topic of one,
where it waits until it is whole and is written.
"""

import logging

import msgspec

from schemas.baselines import Baseline
from schemas.envelope import Envelope
from schemas.feedback import Feedback
from schemas.outputs import Breach, Decision, ExecutionRecord, Lifecycle
from schemas.reports import Report
from schemas.topics import Topic
from streams.agents import dropped
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
from streams.insight import gathering, writing
from streams.kafka.settings import Settings

log = logging.getLogger("stoploss.agents")

DUE = InternalTopic("agents-reports-due")
TICK_EVERY_S = 1.0
# Of a batch, so that what is due of one task is not said much oftener than five times a second.
LINGER_S = 0.2
# A record of `due` may be large, and so may what is held of it.
RECORDS_MAX = 200


def gather(entries: Entries[gathering.Entry], record: Inbound) -> list[Outbound]:
    """Tell the facts of a task what the ledger says."""
    if record.data is not None:  # the ledger deletes decisions about tasks that it forgets
        gathering.fold_told(entries, record.origin, record.data)
    return []


def send_due(entries: Entries[gathering.Entry]) -> list[Outbound]:
    """Send on what is due after a batch."""
    said = gathering.finish(entries, list(entries.changed))
    return [Outbound(DUE.topic, None, encode(one)) for one in said]


def hold(entries: Entries[writing.Entry], record: Inbound) -> list[Outbound]:
    """Take over what is due, how late it is, what similar tasks use, and answers of people."""
    origin = record.origin
    if record.data is None:
        return []
    match record.topic:
        case Topic.BASELINES:
            writing.fold_baseline(entries, origin, record.data)
        case Topic.FEEDBACK:
            writing.fold_feedback(entries, origin, record.timestamp_ms, record.data)
        case _:
            writing.fold_said(entries, origin, record.timestamp_ms, record.data)
    return []


def tick(now_ms: int) -> bytes:
    """Return the record that says how late it is."""
    return encode(gathering.Tick(now_ms))


def agent(link: str | None = None) -> Agent:
    """Return the agent; `link` is the template of the address at which a report is to be read."""

    def write(entries: Entries[writing.Entry]) -> list[Outbound]:
        return [_report(one) for one in writing.finish(entries, _say_failed, link)]

    return Agent(
        name="reports",
        stages=(
            Stage(
                name="gather",
                sources=(
                    source(Topic.LIFECYCLE, Lifecycle, "stoploss.lifecycle"),
                    source(Topic.EXECUTIONS, ExecutionRecord, "stoploss.execution"),
                    source(Topic.BREACHES, Breach, "stoploss.breach"),
                    source(Topic.DECISIONS, Decision, "stoploss.decision", has_deletions=True),
                ),
                fold=gather,
                finish=send_due,
                entry=gathering.Entry,
                dropped=dropped.of_gathered,
                linger_s=LINGER_S,
            ),
            Stage(
                name="write",
                sources=(
                    Source(DUE.topic, msgspec.json.Decoder(gathering.Said)),
                    source(Topic.BASELINES, Baseline, "stoploss.baseline", has_deletions=True),
                    source(Topic.FEEDBACK, Feedback, "stoploss.feedback"),
                ),
                fold=hold,
                finish=write,
                entry=writing.Entry,
                dropped=dropped.of_written,
                records_max=RECORDS_MAX,
            ),
        ),
        internal=(DUE,),
        writes=(Topic.REPORTS,),
        ticks=(Ticks(DUE.topic, TICK_EVERY_S, tick),),
        set_up=_set_up,
    )


def _say_failed(task_id: str, error: Exception) -> None:
    log.error("agents: reports: the one of %r cannot be made", task_id, exc_info=error)


def _set_up(settings: Settings) -> Agent:
    return agent(settings.report_url)


def _report(envelope: Envelope[Report]) -> Outbound:
    return Outbound(Topic.REPORTS, envelope.subject.encode(), encode(envelope))


AGENT = agent()
