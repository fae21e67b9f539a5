"""Alerts and ends of tasks reach every sink, whatever is away meanwhile."""

import asyncio
import base64
import contextlib
import hmac
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp
import msgspec
import psutil
import pytest
from aiohttp import web
from aiokafka import AIOKafkaProducer

from schemas.alerts import Alert, AlertState, Severity
from schemas.envelope import Envelope
from schemas.fields import Complexity, Importance, Verdict
from schemas.reports import Report
from schemas.topics import Topic
from streams.agents.delivery.deliver import Deliverer, deliver
from streams.agents.delivery.keeping import FAILURES, LAG, SENT
from streams.agents.delivery.send import Courier
from streams.agents.delivery.signing import headers
from streams.agents.delivery.sinks import Sink
from streams.agents.metrics import unseen
from streams.agents.supervisor import supervise
from streams.kafka.settings import Settings
from streams.kafka.topics import create_or_check_topics
from tests.integration.kafka_world import eventually
from tests.integration.shell import environ, start, stoploss

pytestmark = pytest.mark.integration
WITHIN_S = 100.0  # beside other tests on the machine
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


def alert(number: int, severity: Severity = Severity.WARNING, named: str = "alert") -> bytes:
    record = Envelope(
        id=f"{named}-{number}",
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


async def test_a_name_of_any_characters_is_told_and_holds_up_nothing(topics: Settings) -> None:
    """An id has that of a task in it, which may be any text; a header may not."""
    async with receiver() as ours, receiver() as other:
        sinks = [
            Sink(name="ops", kind="webhook", url=ours.url, secret=SECRET),
            Sink(name="other", kind="slack", url=other.url),
        ]
        async with delivering(topics, *sinks):
            await say(topics, alert(0, named="report-T\n1\x00"), alert(1, named="Größe"), alert(2))
            await ours.until(lambda: len(ours.bodies) == 3)
            await other.until(lambda: len(other.bodies) == 3)
        assert ours.taken == ["report-T\n1\x00-0", "Größe-1", "alert-2"]
        ids = ["report-T%0A1%00-0", "Gr%C3%B6%C3%9Fe-1", "alert-2"]
        assert [each["webhook-id"] for each in ours.asked] == ids
        assert [each["webhook-id"] for each in other.asked] == ids
        asked = ours.asked[0]
        signed = f"{ids[0]}.{asked['webhook-timestamp']}.".encode() + ours.bodies[0]
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        digest = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
        assert asked["webhook-signature"] == f"v1,{digest}"


async def test_what_is_no_record_or_cannot_be_sent_is_refused_once_and_passed_over(
    topics: Settings,
) -> None:
    not_utf_8 = alert(0).replace(b"31 tasks", b"31 \xff tasks")
    told: Sequence[Deliverer] = ()

    def tell(deliverers: Sequence[Deliverer]) -> None:
        nonlocal told
        told = deliverers

    def refused() -> list[int]:
        return [each.courier.outcomes.refused for each in told]

    async with receiver() as ours:
        # Its severity is none: whether it wants a notice cannot be told.
        broken = Sink(name="broken", kind="log", min_severity=cast("Severity", "none"))
        sinks = [Sink(name="ops", kind="webhook", url=ours.url), broken]
        task = asyncio.ensure_future(deliver(topics, sinks, tell))
        try:
            await say(topics, not_utf_8, topic=Topic.REPORTS)
            await say(topics, not_utf_8, alert(1), alert(2))
            await ours.until(lambda: ours.taken == ["alert-1", "alert-2"])

            async def all_are_done() -> bool:
                return refused() == [2, 4] and [each.lag for each in told] == [0, 0]

            await eventually(all_are_done)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        async with delivering(topics, *sinks):
            await say(topics, alert(3))
            await ours.until(lambda: "alert-3" in ours.taken)
    assert set(ours.taken) == {"alert-1", "alert-2", "alert-3"}


class Failing(Deliverer):
    """Fails in a way that nobody has thought of, the first time."""

    has_failed = False

    async def _follow(self, consumer: Any) -> None:  # noqa: ANN401 - aiokafka has no types
        if not self.has_failed:
            self.has_failed = True
            raise LookupError("never thought of")
        await super()._follow(consumer)


async def test_one_that_fails_begins_again(topics: Settings) -> None:
    async with receiver() as ours, aiohttp.ClientSession() as http:
        sink = Sink(name="ops", kind="webhook", url=ours.url)
        failing = Failing(topics, Courier(sink, http))
        task = asyncio.ensure_future(failing.run())
        try:
            await say(topics, alert(0))
            await ours.until(lambda: ours.taken == ["alert-0"])
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert failing.has_failed


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


async def test_the_log_sink_writes_a_line_whatever_a_task_is_called(topics: Settings) -> None:
    listener = Listener("⚠️ queue depth firing: enforcer-1�FORGED | 31 tasks wait�FORGED")
    logger = logging.getLogger("stoploss.delivery")
    logger.addHandler(listener)
    try:
        async with delivering(topics, Sink(name="log", kind="log")):
            await say(
                topics,
                alert(0)
                .replace(b'"enforcer-1"', rb'"enforcer-1\nFORGED"')
                .replace(b"tasks wait", rb"tasks wait\nFORGED"),
            )
            async with asyncio.timeout(WITHIN_S):
                await listener.heard.wait()
    finally:
        logger.removeHandler(listener)


def report(revision: int) -> bytes:
    data = Report(
        task_id="TASK-1",
        revision=revision,
        final=True,
        status="ended",
        outcome="completed",
        verdict=Verdict.CONTINUE,
        complexity=Complexity.MEDIUM,
        importance=Importance.LOW,
        summary=["Within budget.", "Nothing stood out.", "Nothing to do."],
        metrics={},
        phases=[],
        link="https://budget.example/TASK-1",
    )
    record = Envelope(
        id=f"report-TASK-1-{revision}",
        source="stoploss-agents",
        type="stoploss.report",
        subject="TASK-1",
        time="2026-11-26T17:00:00.000Z",
        data=data,
    )
    return msgspec.json.encode(record)


async def test_the_end_of_a_task_is_told_once_with_three_lines_and_the_link(
    topics: Settings,
) -> None:
    async with receiver() as ours, delivering(topics, Sink(name="a", kind="slack", url=ours.url)):
        await say(topics, report(1), report(2), topic=Topic.REPORTS)
        await say(topics, alert(0))
        await ours.until(lambda: len(ours.bodies) == 2)
        texts = sorted(json.loads(body)["text"] for body in ours.bodies)
        assert texts[0] == (
            "*TASK-1 ended: completed*\n✅ Within budget.\n✅ Nothing stood out.\n💡 Nothing to do.\n"
            "<https://budget.example/TASK-1|Report>"
        )
        assert "queue depth" in texts[1]


async def test_how_much_waits_for_a_sink_that_is_away_is_seen_from_outside(
    topics: Settings,
) -> None:
    metrics = unseen()
    stop = asyncio.Event()
    async with receiver() as ours, asyncio.TaskGroup() as group:
        ours.answer = 503
        sinks = [Sink(name="ops", kind="webhook", url=ours.url)]
        group.create_task(supervise(topics, [], stop, metrics, sinks=sinks))
        await say(topics, *(alert(number) for number in range(5)))
        seen = metrics.sink("ops")

        async def waits() -> bool:
            return seen[LAG] == 5 and seen[FAILURES] >= 2

        await eventually(waits)
        ours.answer = 204

        async def all_are_taken() -> bool:
            return seen[LAG] == 0 and seen[SENT] == 5

        await eventually(all_are_taken)
        stop.set()
    assert ours.taken == [f"alert-{number}" for number in range(5)]


async def test_agents_deliver_beside_them_and_a_process_that_dies_is_followed_by_another(
    topics: Settings, tmp_path: Path
) -> None:
    async with receiver() as ours:
        file = tmp_path / "stoploss.toml"
        file.write_text(f'[sinks.ops]\nkind = "webhook"\nurl = "{ours.url}"\n')
        env = environ(topics, STOPLOSS_CONFIG=str(file))
        agents = await start("agents", "delivery", env=env, stdout=asyncio.subprocess.DEVNULL)
        try:
            await say(topics, alert(0))
            await ours.until(lambda: "alert-0" in ours.taken)
            children = psutil.Process(agents.pid).children()
            (child,) = [one for one in children if "spawn_main" in " ".join(one.cmdline())]
            child.kill()
            await say(topics, alert(1))
            await ours.until(lambda: "alert-1" in ours.taken)
            agents.terminate()
            async with asyncio.timeout(WITHIN_S):
                _, said = await agents.communicate()
            assert agents.returncode == 0
            assert b"agents: delivery: ended with -9; again in 1 s" in said
        finally:
            if agents.returncode is None:
                agents.kill()
                await agents.wait()


async def test_a_sink_that_is_wrong_is_named_by_agents_and_doctor(
    topics: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "stoploss.toml"
    file.write_text('[sinks.ops]\nkind = "mail"\n')
    env = environ(topics, STOPLOSS_CONFIG=str(file))
    field_of = f"{file}: sinks.ops.kind"
    ran = await stoploss("agents", env=env)
    said = f"{field_of}: 'mail' is not allowed; use webhook, slack or log\n"
    assert (ran.code, ran.out, ran.err) == (2, "", said)
    found = (await stoploss("doctor", "--json", env=env)).answer["findings"][0]
    assert found == {
        "about": field_of,
        "problem": "'mail' is not allowed",
        "remedy": "use webhook, slack or log",
    }
