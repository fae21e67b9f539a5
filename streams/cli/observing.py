"""What a promotion depends on, read from the topics of a system that runs."""

import time
from collections.abc import AsyncIterator, Callable

import msgspec

from schemas.alerts import Severity
from schemas.envelope import Envelope, epoch_ms_of
from schemas.feedback import Feedback
from schemas.outputs import Breach, Lifecycle
from schemas.topics import Topic
from streams.cli.edges import Edges
from streams.cli.histories import TOPICS as HISTORY_TOPICS
from streams.cli.histories import checked_policy, live_history
from streams.cli.policies import running_policy
from streams.cli.reading import Log
from streams.client.freshness import STALE_AFTER_S
from streams.insight.gate import gate
from streams.insight.observed import LOOKED_BACK_MS, Observed
from streams.insight.promotion import Runaways, Situation
from streams.insight.runaways import find_runaways
from streams.kafka.ports import RawRecord

TOPICS = (*HISTORY_TOPICS, Topic.BREACHES, Topic.FEEDBACK, Topic.ALERTS, Topic.HEARTBEATS)

_LIFECYCLE = msgspec.json.Decoder(Envelope[Lifecycle])
_BREACH = msgspec.json.Decoder(Envelope[Breach])
_FEEDBACK = msgspec.json.Decoder(Envelope[Feedback])


async def situation_of(log: Log) -> Situation:
    """Return what is known now. `log` has `TOPICS`.

    Raises:
        UnavailableError: Kafka cannot be reached.
    """
    now_ms = time.time_ns() // 1_000_000
    policy = checked_policy(await running_policy(log))
    history = await live_history(log, policy)
    observed = await observed_in(log)
    judged = observed.judged(history.tasks, policy.hash, now_ms - LOOKED_BACK_MS)
    runaways = find_runaways(history.tasks)
    view, beats = await log.ledger_view(), await log.heartbeats()
    heard_since_ms = now_ms - round(STALE_AFTER_S * 1_000)
    return Situation(
        modes=tuple(state.mode for _, state in sorted(view.partitions.items())),
        gate=gate(judged),
        observed_ms=0 if observed.first_ms is None else max(now_ms - observed.first_ms, 0),
        runaways=Runaways(runaways.tasks, runaways.runaways, runaways.share, runaways.interval),
        critical=tuple([name async for name in _critical(log)]),
        silent=tuple(
            each
            for each in log.partitions
            if each not in beats or beats[each].at_ms < heard_since_ms
        ),
    )


async def observed_in(log: Log) -> Observed:
    """Return what the topics say of tasks while they ran; what cannot be read is left out."""
    found = Observed()

    def lifecycle(value: bytes) -> None:
        record = _LIFECYCLE.decode(value)
        found.tell_lifecycle(record.data, epoch_ms_of(record.time))

    takers: tuple[tuple[Topic, range, Callable[[bytes], None]], ...] = (
        (Topic.LIFECYCLE, log.partitions, lifecycle),
        (
            Topic.BREACHES,
            log.partitions,
            lambda value: found.tell_breach(_BREACH.decode(value).data),
        ),
        (Topic.FEEDBACK, range(1), lambda value: found.tell_feedback(_FEEDBACK.decode(value).data)),
    )
    for topic, partitions, take in takers:
        for partition in partitions:
            async for record in log.records(topic, partition):
                _take(take, record)
    return found


def _take(take: Callable[[bytes], None], record: RawRecord) -> None:
    if record.value is None:
        return
    try:
        take(record.value)
    except (msgspec.MsgspecError, ValueError):
        return


async def _critical(log: Log) -> AsyncIterator[str]:
    edges = Edges()
    async for key, edge in log.alerts():
        edges.take(key, edge)
    for each in edges.firing:
        if each.data.severity is Severity.CRITICAL:
            yield f"{each.data.name} ({each.data.scope})"
