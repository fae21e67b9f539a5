"""The example enforcer obeys: it wraps up, explains, and stops."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiokafka
import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.fields import Verdict
from schemas.topics import Topic
from streams.kafka.settings import Settings
from tests.integration.decisions import Ledger
from tests.integration.example import start_example
from tests.integration.test_client_completions import report, say

pytestmark = pytest.mark.integration

PATIENCE_S = 60.0
TOPICS = (Topic.EVENTS, Topic.HEALTH, Topic.DECISIONS, Topic.HEARTBEATS, Topic.REPORTS)


@pytest.fixture
async def settings(bootstrap_servers: str, topic_prefix: str) -> Settings:
    settings = Settings(bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    admin = AIOKafkaAdminClient(**settings.admin_kwargs())
    await admin.start()
    try:
        await admin.create_topics([NewTopic(settings.topic(topic), 1, 1) for topic in TOPICS])
    finally:
        await admin.close()
    return settings


async def next_of(consumer: Any, kind: str, **fields: object) -> dict[str, Any]:  # noqa: ANN401 - aiokafka has no types
    """The next event of this type whose data has these fields."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            event: dict[str, Any] = msgspec.json.decode((await consumer.getone()).value)
            if event["type"] == f"stoploss.{kind}" and fields.items() <= event["data"].items():
                return event


async def test_it_wraps_up_at_notice_explains_at_review_and_stops_at_block(
    settings: Settings, tmp_path: Path
) -> None:
    options = ["--phases", "THINK", "PLAN", "--calls", "100000", "--seconds", "0.02"]
    consumer = aiokafka.AIOKafkaConsumer(settings.topic(Topic.EVENTS), **settings.consumer_kwargs())
    async with Ledger(settings) as ledger, consumer:
        process = await start_example(settings, tmp_path, *options)
        await next_of(consumer, "phase.usage", phase="THINK")
        await ledger.decide(("TASK-1", Verdict.NOTICE))
        await next_of(consumer, "phase.ended", phase="THINK", outcome="completed")
        await ledger.decide(("TASK-1", Verdict.REVIEW))
        explained = await next_of(consumer, "task.explained", phase="PLAN")
        await next_of(consumer, "phase.usage", phase="PLAN")
        await ledger.decide(("TASK-1", Verdict.BLOCK))
        await next_of(consumer, "phase.ended", phase="PLAN", outcome="abandoned")
        await next_of(consumer, "task.ended", outcome="blocked")
        async with asyncio.timeout(PATIENCE_S):
            assert await process.wait() == 1
    assert "review: THINK" in explained["data"]["text"]


async def test_it_ends_by_itself_where_nothing_is_decided(
    settings: Settings, tmp_path: Path
) -> None:
    process = await start_example(settings, tmp_path, "--calls", "1", "--seconds", "0")
    async with asyncio.timeout(PATIENCE_S):
        assert await process.wait() == 0
    consumer = aiokafka.AIOKafkaConsumer(settings.topic(Topic.EVENTS), **settings.consumer_kwargs())
    async with consumer:
        await next_of(consumer, "task.ended", outcome="completed")


async def test_it_prints_the_three_lines_of_the_report_when_it_is_asked_to(
    settings: Settings, tmp_path: Path
) -> None:
    process = await start_example(
        settings, tmp_path, "--calls", "1", "--seconds", "0", "--report", "60"
    )
    while process.returncode is None:
        await say(settings, report("OTHER"), report("TASK-1"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await process.wait()
    assert process.returncode == 0
