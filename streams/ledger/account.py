"""What a ledger process says of itself on `health`: how its batches went since it last said so.

Counted by batch, never by event. Other programs judge by it; no judge of the log does, since no event
has caused it.
"""

import asyncio
import contextlib
import os
import socket
from collections import Counter
from collections.abc import Callable

from schemas.envelope import Envelope, rfc3339
from schemas.errors import UnavailableError
from schemas.fields import NAME_LENGTH_MAX
from schemas.health import Health, LedgerHealth
from schemas.quantiles import with_value
from schemas.sketches import Histogram
from schemas.topics import Topic
from streams.budget.encode import ENCODER
from streams.kafka.ports import Record, RecordAppender
from streams.kafka.settings import Settings

SAY_EVERY_S = 10.0
HEALTH_PARTITION = 0  # the topic has one
# Of what `LedgerMetrics.failed` counts. A fence is not among them: where a ledger comes or goes, the
# next owner fences the last one, and has its batch folded again; nothing is wrong then.
FAILURES = frozenset({"unconfirmed", "stopped", "mistake"})


class Account:
    """How batches went since the last record."""

    def __init__(self) -> None:
        self.batches = 0
        self.failures = 0
        self.commit_ms: Counter[int] = Counter()

    def __repr__(self) -> str:
        return f"<Account {self.batches} batches, {self.failures} failed>"

    def committed(self, commit_ms: float) -> None:
        """Count a batch."""
        self.batches += 1
        self.commit_ms[round(commit_ms)] += 1

    def failed(self, kind: str) -> None:
        """Count a batch that failed, if it is the kind that somebody has to know of."""
        self.failures += kind in FAILURES

    def take(self) -> LedgerHealth | None:
        """Return what there is to say, and begin anew; None where nothing happened."""
        if not self.batches and not self.failures:
            return None
        commit_ms = Histogram()
        for value, count in self.commit_ms.items():
            commit_ms = with_value(commit_ms, value, count)
        said = LedgerHealth(batches=self.batches, batch_failures=self.failures, commit_ms=commit_ms)
        self.batches = self.failures = 0
        self.commit_ms.clear()
        return said


def process_source() -> str:
    """Return what names this process among all ledgers: `ledger/HOST/PID`."""
    pid = os.getpid()
    return f"ledger/{socket.gethostname()[: NAME_LENGTH_MAX - 32]}/{pid}"


def health_record(settings: Settings, source: str, said: LedgerHealth, wall_ms: int) -> Record:
    """Return the record; its id names the millisecond, so that it never repeats."""
    envelope = Envelope(
        id=f"{source}-{wall_ms}",
        source=source,
        type="stoploss.health",
        subject=source,
        time=rfc3339(wall_ms),
        data=Health(source=source, ledger=said),
    )
    topic = settings.topic(Topic.HEALTH)
    return Record(topic, HEALTH_PARTITION, source.encode(), ENCODER.encode(envelope))


async def keep_saying(
    appender: RecordAppender, settings: Settings, account: Account, wall_ms: Callable[[], int]
) -> None:
    """Say it every `SAY_EVERY_S` until cancelled, where anything happened.

    What cannot be delivered is tried again, and what happens meanwhile said after it.
    """
    source = process_source()
    unsaid: Record | None = None
    while True:
        await asyncio.sleep(SAY_EVERY_S)
        if unsaid is None:
            said = account.take()
            if said is None:
                continue
            unsaid = health_record(settings, source, said, wall_ms())
        with contextlib.suppress(UnavailableError):
            await appender.append(unsaid)
            unsaid = None
