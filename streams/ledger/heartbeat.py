"""The sign that a partition is alive: at most one a second, outside of the transactions."""

import asyncio
import contextlib
from collections.abc import Callable

from msgspec import Struct

from schemas.envelope import Envelope, rfc3339
from schemas.errors import UnavailableError
from schemas.events import LEDGER_SOURCE
from schemas.fields import Fail, Mode
from schemas.outputs import Heartbeat
from schemas.topics import Topic
from streams.budget.encode import ENCODER
from streams.kafka.ports import Record, RecordAppender
from streams.kafka.settings import Settings

HEARTBEAT_EVERY_S = 1.0
HEARTBEAT_PARTITION = 0  # the topic has one


class Standing(Struct, frozen=True):
    """What of a partition is committed: nobody is told of what may still be taken back."""

    mode: Mode
    fail: Fail
    clock_ms: int
    next_offset: int


def heartbeat_record(
    settings: Settings, partition: int, standing: Standing, wall_ms: int
) -> Record:
    """Return a heartbeat; its id names the millisecond, so that it never repeats."""
    clock = rfc3339(standing.clock_ms)
    envelope = Envelope(
        id=f"heartbeat-{partition}-{wall_ms}",
        source=LEDGER_SOURCE,
        type="stoploss.heartbeat",
        subject=f"partition/{partition}",
        time=clock,
        data=Heartbeat(
            mode=standing.mode,
            fail=standing.fail,
            clock=clock,
            next_offset=standing.next_offset,
        ),
    )
    key = f"partition/{partition}".encode()
    topic = settings.topic(Topic.HEARTBEATS)
    return Record(topic, HEARTBEAT_PARTITION, key, ENCODER.encode(envelope))


async def beat(
    appender: RecordAppender,
    settings: Settings,
    partition: int,
    *,
    standing: Callable[[], Standing],
    wall_ms: Callable[[], int],
) -> None:
    """Send one heartbeat a second until cancelled; one that cannot be delivered is left out."""
    while True:
        with contextlib.suppress(UnavailableError):  # its absence is the message
            await appender.append(heartbeat_record(settings, partition, standing(), wall_ms()))
        await asyncio.sleep(HEARTBEAT_EVERY_S)
