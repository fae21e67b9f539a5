"""What the owner of a partition appends to `events` itself: the built-in policy, and the time.

Both come back through the log before they count, so a replay sees what the ledger saw.
"""

import asyncio
from collections.abc import Callable

import msgspec

from schemas.envelope import Envelope, rfc3339
from schemas.errors import UnavailableError
from schemas.events import LEDGER_SOURCE, ClockTickData, PolicySetData
from schemas.topics import Topic
from streams.budget.encode import ENCODER
from streams.budget.fold import next_deadline_ms
from streams.budget.policy import Policy, policy_json
from streams.budget.state import PartitionState
from streams.kafka.ports import Record, RecordAppender
from streams.kafka.settings import Settings

LOOK_EVERY_S = 0.25
# A wall clock that is ahead of the broker's would otherwise append a tick per round trip: the
# broker's time, which alone counts, has not reached the deadline when the tick comes back.
TICK_AGAIN_AFTER_S = 1.0


def policy_record(settings: Settings, partition: int, policy: Policy, wall_ms: int) -> Record:
    """Return the event that sets the built-in policy; the same one gets the same id."""
    data = PolicySetData(
        policy=msgspec.Raw(policy_json(policy)),
        version=policy.version,
        hash=policy.hash,
        by=LEDGER_SOURCE,
    )
    kind, event_id = "stoploss.policy.set", f"policy-{policy.hash}-{partition}"
    return _record(settings, partition, kind, event_id, data, wall_ms)


def tick_record(settings: Settings, partition: int, deadline_ms: int, wall_ms: int) -> Record:
    """Return the tick for a deadline that has passed."""
    event_id = f"tick-{partition}-{deadline_ms}-{wall_ms}"
    return _record(settings, partition, "stoploss.clock.tick", event_id, ClockTickData(), wall_ms)


async def tick(
    appender: RecordAppender,
    settings: Settings,
    state: PartitionState,
    *,
    held: Callable[[], bool],
    wall_ms: Callable[[], int],
) -> None:
    """Append a tick when the wall clock passes the next deadline, until cancelled.

    There is no second one for a deadline before the first came back, which moves the deadline on,
    or `TICK_AGAIN_AFTER_S` have passed.

    Args:
        appender: writes to `events`.
        settings: names the topic.
        state: of the partition; its deadlines.
        held: whether events are waiting anyway: any event moves the clock.
        wall_ms: the wall clock, in milliseconds since 1970.
    """
    ticked_ms, ticked_at_s = None, 0.0
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        deadline_ms = next_deadline_ms(state)
        now_ms = wall_ms()
        if deadline_ms is None or deadline_ms > now_ms or held():
            continue
        now_s = asyncio.get_running_loop().time()
        if deadline_ms == ticked_ms and now_s - ticked_at_s < TICK_AGAIN_AFTER_S:
            continue
        try:
            await appender.append(tick_record(settings, state.partition, deadline_ms, now_ms))
        except UnavailableError:
            continue
        ticked_ms, ticked_at_s = deadline_ms, now_s


def _record(
    settings: Settings,
    partition: int,
    kind: str,
    event_id: str,
    data: msgspec.Struct,
    wall_ms: int,
) -> Record:
    subject = f"partition/{partition}"
    envelope = Envelope(
        id=event_id,
        source=LEDGER_SOURCE,
        type=kind,
        subject=subject,
        time=rfc3339(wall_ms),
        data=data,
    )
    topic = settings.topic(Topic.EVENTS)
    return Record(topic, partition, subject.encode(), ENCODER.encode(envelope))
