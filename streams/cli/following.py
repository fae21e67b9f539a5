"""Tasks, decisions and alerts as they come in the topics: what `watch` and `demo` look at."""

import asyncio
import contextlib
from collections import deque
from typing import Any

import aiokafka
import aiokafka.errors

from schemas.errors import UnavailableError
from schemas.fields import Verdict
from schemas.refusal import UNREADABLE
from schemas.topics import Topic
from streams.cli.edges import Edges
from streams.cli.live import Told
from streams.cli.reading import LedgerView, Log, alert_in, decode_decision
from streams.kafka.ports import RawRecord
from streams.kafka.settings import Settings

POLL_MS = 200
FEED_LENGTH = 200
DECISIONS_READ_BACK = 20  # of each partition
STOP_WITHIN_S = 3.0


class Followed:
    """What was seen so far. `changed` is set whenever there is more.

    Args:
        feed_length: how many decisions are kept; None for all, where somebody takes them away.
    """

    def __init__(self, feed_length: int | None = FEED_LENGTH) -> None:
        self.view = LedgerView()
        self.edges = Edges()
        self.feed: deque[Told] = deque(maxlen=feed_length)
        self.decisions: dict[Verdict, int] = {}
        self.changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Followed {self.view} decisions={sum(self.decisions.values())}>"

    def decided_up_to(self, ends: dict[int, int]) -> bool:
        """Whether every input before these offsets is folded."""
        states = self.view.partitions
        return all(
            partition in states and states[partition].next_offset >= end
            for partition, end in ends.items()
        )

    def take_decision(self, value: bytes | None) -> None:
        """Remember a decision; a tombstone and what cannot be read are none."""
        if value is None:
            return
        with contextlib.suppress(*UNREADABLE):
            envelope = decode_decision(value)
            self.feed.append(Told(envelope.time, envelope.data))
            verdict = envelope.data.verdict
            self.decisions[verdict] = self.decisions.get(verdict, 0) + 1

    def take_alert(self, record: RawRecord) -> None:
        """Remember an edge; what cannot be read is none."""
        with contextlib.suppress(*UNREADABLE):
            self.edges.take(*alert_in(record))


async def follow(settings: Settings, log: Log, followed: Followed) -> None:
    """Keep `followed` up to date until cancelled: all of `tasks` and `alerts`, the latest decisions.

    Raises:
        UnavailableError: Kafka does not answer.
    """
    consumer: Any = aiokafka.AIOKafkaConsumer(**settings.consumer_kwargs("follow"))
    tasks, decisions = settings.topic(Topic.TASKS), settings.topic(Topic.DECISIONS)
    alerts = aiokafka.TopicPartition(settings.topic(Topic.ALERTS), 0)
    try:
        consumer.assign(
            [alerts]
            + [
                aiokafka.TopicPartition(topic, partition)
                for topic in (tasks, decisions)
                for partition in log.partitions
            ]
        )
        await consumer.start()
        for partition in log.partitions:
            end = await log.reader(Topic.DECISIONS, partition).end_offset()
            first = await log.reader(Topic.DECISIONS, partition).first_offset()
            tp = aiokafka.TopicPartition(decisions, partition)
            consumer.seek(tp, max(first, end - DECISIONS_READ_BACK))
        while True:
            found = await consumer.getmany(timeout_ms=POLL_MS)
            for tp, records in found.items():
                for record in records:
                    if tp.topic == tasks:
                        followed.view.take(tp.partition, record)
                    elif tp == alerts:
                        followed.take_alert(record)
                    else:
                        followed.take_decision(record.value)
            if found:
                followed.changed.set()
    except (aiokafka.errors.KafkaError, OSError) as error:
        raise UnavailableError(f"Kafka at {settings.bootstrap_servers}: {error!r}") from error
    finally:
        with contextlib.suppress(TimeoutError, aiokafka.errors.KafkaError):
            async with asyncio.timeout(STOP_WITHIN_S):
                await consumer.stop()
