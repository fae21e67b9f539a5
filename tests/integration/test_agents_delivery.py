"""Alerts and ends of tasks reach every sink, whatever is away meanwhile."""

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import msgspec
import pytest
from aiohttp import web
from aiokafka import AIOKafkaProducer

from schemas.alerts import Alert, AlertState, Severity
from schemas.envelope import Envelope
from schemas.topics import Topic
from streams.agents.delivery.deliver import deliver
from streams.agents.delivery.signing import headers
from streams.agents.delivery.sinks import Sink
from streams.kafka.settings import Settings
from streams.kafka.topics import create_or_check_topics

pytestmark = pytest.mark.integration
WITHIN_S = 30.0
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - made up


@dataclass
class Receiver:
    """Somebody's web server: what it was sent, and what it answers."""

    url: str = ""
    answer: int = 204
    bodies: list[bytes] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def taken(self) -> list[str]:
        """Ids of what it has taken, in order."""
        return [json.loads(body)["id"] for body in self.bodies]

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.asked.append({name.lower(): value for name, value in request.headers.items()})
        if self.answer < 300:
            self.bodies.append(body)
        self.changed.set()
        return web.Response(status=self.answer)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def receiver(port: int = 0) -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/hook", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    made.url = f"{site.name}/hook"
    try:
        yield made
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def delivering(settings: Settings, *sinks: Sink) -> AsyncIterator[None]:
    task = asyncio.ensure_future(deliver(settings, sinks))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def alert(number: int, severity: Severity = Severity.WARNING) -> bytes:
    record = Envelope(
        id=f"alert-{number}",
        source="stoploss-agents",
        type="stoploss.alert",
        subject="queue_depth/enforcer-1",
        time="2026-11-26T17:00:00.000Z",
        data=Alert(
            name="queue_depth",
            scope="enforcer-1",
            state=AlertState.FIRING,
            value=31,
            threshold=30,
            message="31 tasks wait",
            severity=severity,
            number=1,
            since="2026-11-26T17:00:00.000Z",
        ),
    )
    return msgspec.json.encode(record)


async def say(settings: Settings, *values: bytes | None, topic: Topic = Topic.ALERTS) -> None:
    producer = AIOKafkaProducer(**settings.producer_kwargs("test"))
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(settings.topic(topic), value, key=b"key")
    finally:
        await producer.stop()


@pytest.fixture
async def topics(settings: Settings) -> Settings:
    await create_or_check_topics(settings)
    return settings


async def test_every_alert_comes_once_in_order_and_signed(topics: Settings) -> None:
    async with receiver() as ours:
        sink = Sink(name="ops", kind="webhook", url=ours.url, secret=SECRET)
        async with delivering(topics, sink):
            await say(topics, *(alert(number) for number in range(20)), None, b"{")
            await say(topics, alert(20))
            await ours.until(lambda: len(ours.bodies) == 21)
        assert ours.taken == [f"alert-{number}" for number in range(21)]
        asked = ours.asked[0]
        at_s = int(asked["webhook-timestamp"])
        assert asked.items() >= headers("alert-0", at_s, ours.bodies[0], SECRET).items()
        assert asked["content-type"] == "application/cloudevents+json"


async def test_a_sink_that_is_away_loses_nothing_and_holds_back_no_other(topics: Settings) -> None:
    async with receiver() as near, receiver() as far:
        far.answer = 503
        sinks = [
            Sink(name=name, kind="webhook", url=one.url)
            for name, one in (("near", near), ("far", far))
        ]
        async with delivering(topics, *sinks):
            await say(topics, *(alert(number) for number in range(5)))
            await near.until(lambda: len(near.bodies) == 5)
            await far.until(lambda: len(far.asked) >= 2)
            assert far.bodies == []
            far.answer = 204
            await far.until(lambda: len(far.bodies) == 5)
        assert far.taken == near.taken


async def test_what_was_sent_is_not_sent_again_after_a_restart(topics: Settings) -> None:
    async with receiver() as ours:
        sink = Sink(name="ops", kind="webhook", url=ours.url)
        for number in range(3):
            async with delivering(topics, sink):
                await say(topics, alert(number))
                wanted = f"alert-{number}"
                await ours.until(lambda: wanted in ours.taken)  # noqa: B023 - waited for at once
        # The last one may have been taken when its sender was told to stop.
        assert set(Counter(ours.taken)) == {"alert-0", "alert-1", "alert-2"}
        assert max(Counter(ours.taken).values()) <= 2


async def test_what_will_never_be_taken_does_not_stop_the_rest(topics: Settings) -> None:
    async with receiver() as ours:
        ours.answer = 400
        async with delivering(topics, Sink(name="ops", kind="webhook", url=ours.url)):
            await say(topics, alert(0))
            await ours.until(lambda: len(ours.asked) == 1)
            ours.answer = 204
            await say(topics, alert(1))
            await ours.until(lambda: ours.taken == ["alert-1"])


async def test_slack_gets_its_own_shape_and_only_what_is_severe_enough(topics: Settings) -> None:
    async with receiver() as ours:
        sink = Sink(name="ops", kind="slack", url=ours.url, min_severity=Severity.CRITICAL)
        async with delivering(topics, sink):
            await say(topics, alert(0), alert(1, Severity.CRITICAL))
            await ours.until(lambda: len(ours.bodies) == 1)
        assert json.loads(ours.bodies[0]) == {
            "text": "*🛑 queue depth firing: enforcer-1*\n31 tasks wait"
        }


class Listener(logging.Handler):
    """Tells when a line was logged."""

    def __init__(self, wanted: str) -> None:
        super().__init__()
        self.heard, self._wanted = asyncio.Event(), wanted

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == self._wanted:
            self.heard.set()


async def test_the_log_sink_writes_a_line(topics: Settings) -> None:
    listener = Listener("⚠️ queue depth firing: enforcer-1 | 31 tasks wait")
    logger = logging.getLogger("stoploss.delivery")
    logger.addHandler(listener)
    try:
        async with delivering(topics, Sink(name="log", kind="log")):
            await say(topics, alert(0))
            async with asyncio.timeout(WITHIN_S):
                await listener.heard.wait()
    finally:
        logger.removeHandler(listener)
