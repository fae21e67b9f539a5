"""How often workers were replaced, and why the last time: said where doctor looks from anywhere.

A supervisor's metrics are gone where nobody collects them, and its log is on one machine. So it says in
a topic of its own how it goes with each agent: when it begins, and whenever a worker was replaced. That
is worth no wait: where Kafka does not take it in a moment, the next time says more.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Annotated

import aiokafka.errors
import msgspec
from aiokafka import AIOKafkaProducer
from msgspec import Meta, Struct

from schemas.envelope import EPOCH_MS_MAX
from schemas.errors import StoplossError, UnavailableError
from schemas.refusal import UNREADABLE
from schemas.topics import DAY_MS
from streams.kafka.producers import discard
from streams.kafka.reader import KafkaReader, close_client, start_client
from streams.kafka.settings import Settings
from streams.kafka.topics import WantedTopic, create_wanted_topics, partition_counts

log = logging.getLogger("stoploss.agents")

TOPIC = "agents-restarts"
KEPT_MS = 7 * DAY_MS
SAID_WITHIN_S = 2.0
READ_WITHIN_S = 5.0
_SETTINGS = {"cleanup.policy": "compact,delete", "retention.ms": str(KEPT_MS)}


# What can be written as a time; milliseconds since 1970.
Instant = Annotated[int, Meta(ge=0, le=EPOCH_MS_MAX)]


class Restarts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How often a supervisor had to replace workers of an agent since it began."""

    agent: str
    host: str
    since_ms: Instant
    count: Annotated[int, Meta(ge=0)] = 0
    last_ms: Instant | None = None
    why: str | None = None


_DECODER = msgspec.json.Decoder(Restarts)


def together(told: Iterable[Restarts]) -> dict[str, Restarts]:
    """Return what the supervisors of all hosts say of each agent; the reason is that of the last."""
    found: dict[str, Restarts] = {}
    for each in told:
        known = found.get(each.agent)
        if known is None:
            found[each.agent] = each
            continue
        last = max(known, each, key=lambda one: one.last_ms or 0)
        found[each.agent] = msgspec.structs.replace(
            last,
            since_ms=min(known.since_ms, each.since_ms),
            count=known.count + each.count,
        )
    return found


class RestartsLog:
    """Says it for one agent."""

    def __init__(self, settings: Settings, agent: str) -> None:
        self._settings = settings
        self._now = Restarts(agent=agent, host=socket.gethostname(), since_ms=_wall_ms())
        self._is_created = False

    def __repr__(self) -> str:
        return f"<RestartsLog {self._now}>"

    async def begin(self) -> None:
        """Say that a supervisor has begun: what an earlier one said no longer counts."""
        await self._say()

    async def add(self, why: str) -> None:
        """Count a worker that was replaced, and say so."""
        self._now = msgspec.structs.replace(
            self._now, count=self._now.count + 1, last_ms=_wall_ms(), why=why
        )
        await self._say()

    async def _say(self) -> None:
        producer = AIOKafkaProducer(**self._settings.producer_kwargs("agents-restarts"))
        try:
            async with asyncio.timeout(SAID_WITHIN_S):
                await self._create()
                await producer.start()
                key = f"{self._now.agent}/{self._now.host}".encode()
                topic = f"{self._settings.topic_prefix}{TOPIC}"
                await producer.send_and_wait(topic, msgspec.json.encode(self._now), key, 0)
                await producer.stop()
        except (aiokafka.errors.KafkaError, OSError, TimeoutError, StoplossError) as error:
            log.debug("agents: %s: restarts are not said: %r", self._now.agent, error)
            await discard(producer)

    async def _create(self) -> None:
        if not self._is_created:
            wanted = WantedTopic(f"{self._settings.topic_prefix}{TOPIC}", 1, _SETTINGS)
            await create_wanted_topics(self._settings, [wanted])
            self._is_created = True


async def read_restarts(settings: Settings) -> Mapping[str, Restarts]:
    """Return what supervisors say of each agent; nothing where none has ever run.

    Raises:
        UnavailableError: Kafka does not answer.
    """
    name = f"{settings.topic_prefix}{TOPIC}"
    if name not in await partition_counts(settings, [name]):
        return {}
    client = await start_client(settings, [name], "doctor")
    try:
        async with asyncio.timeout(READ_WITHIN_S):
            return together((await _last(KafkaReader(client, name, 0))).values())
    except TimeoutError as error:
        raise UnavailableError(f"{name}: it cannot be read in {READ_WITHIN_S:g} s") from error
    finally:
        await close_client(client)


async def _last(reader: KafkaReader) -> dict[bytes, Restarts]:
    """Return the last record of each key; what cannot be read, a newer version's too, says nothing."""
    end = await reader.end_offset()
    reader.seek(await reader.first_offset())
    found: dict[bytes, Restarts] = {}
    while reader.offset < end:
        for chunk in await reader.read():
            for record in chunk.records:
                if record.key is not None and record.value is not None:
                    with contextlib.suppress(*UNREADABLE):
                        found[record.key] = _DECODER.decode(record.value)
    return found


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
