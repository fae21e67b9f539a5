"""That a task has ended is told to the enforcer, whatever is away or wrong meanwhile."""

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import aiokafka
import msgspec
import pytest

from schemas.envelope import Envelope
from schemas.fields import Complexity, Importance, Verdict
from schemas.reports import Report
from schemas.topics import Topic
from streams.client import Verdicts
from streams.kafka.settings import Settings
from streams.kafka.topics import create_or_check_topics
from streams.local.broker import KafkaBroker

pytestmark = pytest.mark.integration

PATIENCE_S = 60.0
SUMMARY = ["Within budget.", "Nothing stood out.", "Nothing to do."]
LINK = "https://budget.example/"
Told = tuple[str, list[str], str | None]


def report(task: str, revision: int = 1, *, final: bool = True) -> bytes:
    data = Report(
        task_id=task,
        revision=revision,
        final=final,
        status="ended",
        verdict=Verdict.CONTINUE,
        complexity=Complexity.MEDIUM,
        importance=Importance.LOW,
        summary=SUMMARY,
        metrics={},
        phases=[],
        link=f"{LINK}{task}",
    )
    record = Envelope(
        id=f"report-{task}-{revision}",
        source="stoploss-agents",
        type="stoploss.report",
        subject=task,
        time="2026-11-26T17:00:00.000Z",
        data=data,
    )
    return msgspec.json.encode(record)


async def say(settings: Settings, *values: bytes | None) -> None:
    async with aiokafka.AIOKafkaProducer(**settings.producer_kwargs("test")) as producer:
        for value in values:
            await producer.send_and_wait(settings.topic(Topic.REPORTS), value, b"key")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - another thread's state
            await asyncio.sleep(0.01)


async def until_it_reads(settings: Settings, told: list[Told]) -> None:
    """Wait until it is at the end: what was there before is not told, what comes from now on is."""
    number = 0
    async with asyncio.timeout(PATIENCE_S):
        while not told:
            number += 1
            await say(settings, report(f"BEFORE-{number}"))
    told.clear()
    await say(settings, report("MARK"))
    await until(lambda: bool(told) and told[-1][0] == "MARK")
    told.clear()


@pytest.fixture
async def topics(bootstrap_servers: str, topic_prefix: str) -> Settings:
    settings = Settings(
        bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix, partitions=1
    )
    await create_or_check_topics(settings)
    return settings


async def test_each_end_is_told_once_with_its_three_lines_and_the_link(topics: Settings) -> None:
    await say(topics, report("OLD"))
    told: list[Told] = []
    with Verdicts(topics) as verdicts:
        verdicts.on_completed(lambda *each: told.append(each))
        await until_it_reads(topics, told)
        first, last = report("TASK-1"), report("TASK-2")
        await say(topics, first, first, report("TASK-1", 2), report("OPEN", final=False))
        await say(topics, None, b"{", last)
        await until(lambda: len(told) == 2)
        assert told == [
            ("TASK-1", SUMMARY, f"{LINK}TASK-1"),
            ("TASK-2", SUMMARY, f"{LINK}TASK-2"),
        ]
        assert verdicts.stats.unreadable == 1
        assert verdicts.stats.completed >= 2


async def test_a_callback_that_fails_or_takes_long_holds_up_nothing_else(topics: Settings) -> None:
    held, told = threading.Event(), list[Told]()

    def blocking(task_id: str, _summary: list[str], _link: str | None) -> None:
        if task_id == "SLOW":
            held.wait(PATIENCE_S)
        if task_id == "BAD":
            raise ValueError(task_id)

    with Verdicts(topics) as verdicts:
        assert await asyncio.to_thread(verdicts.wait_ready, PATIENCE_S)
        verdicts.on_completed(blocking)
        verdicts.on_completed(lambda *each: told.append(each))
        await until_it_reads(topics, told)
        await say(topics, report("BAD"), report("SLOW"), report("LAST"))
        await until(lambda: bool(told))
        assert not verdicts.must_stop("SLOW")
        held.set()
        await until(lambda: len(told) == 3)
        assert [each[0] for each in told] == ["BAD", "SLOW", "LAST"]
        assert verdicts.stats.callback_errors == 1


async def test_who_does_not_ask_reads_no_reports(topics: Settings) -> None:
    with Verdicts(topics) as verdicts:
        assert await asyncio.to_thread(verdicts.wait_ready, PATIENCE_S)
        names = [thread.name for thread in threading.enumerate()]
    assert any("verdicts" in name for name in names)
    assert not any("completions" in name for name in names)


async def test_without_kafka_nothing_waits_and_nothing_raises(topic_prefix: str) -> None:
    settings = Settings(bootstrap_servers="127.0.0.1:9", topic_prefix=topic_prefix)
    told: list[Told] = []
    verdicts = Verdicts(settings)
    verdicts.on_completed(lambda *each: told.append(each))
    await asyncio.to_thread(verdicts.close)
    verdicts.on_completed(lambda *each: told.append(each))
    assert (told, verdicts.stats.completed) == ([], 0)


async def test_what_ends_after_a_broker_has_died_and_returned_is_told(
    tmp_path: Path, topic_prefix: str
) -> None:
    async with KafkaBroker(tmp_path / "kafka") as broker:
        settings = Settings(
            bootstrap_servers=broker.bootstrap_servers, topic_prefix=topic_prefix, partitions=1
        )
        await create_or_check_topics(settings)
        told: list[Told] = []
        verdicts = Verdicts(settings)
        verdicts.on_completed(lambda *each: told.append(each))
        await until_it_reads(settings, told)
        await broker.kill()
        await broker.start()
        await say(settings, report("TASK-1"))
        await until(lambda: bool(told))
        await asyncio.to_thread(verdicts.close)
    assert [each[0] for each in told] == ["TASK-1"]


def _wait_in_child(verdicts: Verdicts, told: list[Told]) -> None:
    told.clear()
    verdicts.verdict("TASK-1")  # the first question begins the reading
    deadline_s = time.monotonic() + PATIENCE_S
    while not told and time.monotonic() < deadline_s:
        threading.Event().wait(0.05)
    os._exit(0 if told else 1)  # without what the parent would do at its end


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_a_forked_child_is_told_by_itself(topics: Settings) -> None:
    told: list[Told] = []
    verdicts = Verdicts(topics)
    verdicts.on_completed(lambda *each: told.append(each))
    await until_it_reads(topics, told)
    await asyncio.to_thread(verdicts.close)  # so that only the child can hear of the next one
    arguments = (verdicts, told)
    child = multiprocessing.get_context("fork").Process(target=_wait_in_child, args=arguments)
    child.start()
    number = 0
    while child.exitcode is None:
        number += 1
        await say(topics, report(f"TASK-{number}"))
        await asyncio.to_thread(child.join, 0.1)
    assert child.exitcode == 0
    assert told == []
