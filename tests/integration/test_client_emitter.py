"""Real events on a real broker: all of them, in order, whatever happens to the broker or to us."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiokafka
import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.topics import Topic, topic_config
from streams.client import Emitter
from streams.kafka.settings import Settings
from streams.kafka.topics import partition_for
from streams.local.broker import KafkaBroker

pytestmark = pytest.mark.integration

PARTITIONS = 4
PATIENCE_S = 60.0


async def create_topics(settings: Settings, **config: str) -> None:
    admin = AIOKafkaAdminClient(**settings.admin_kwargs())
    await admin.start()
    try:
        await admin.create_topics(
            [
                NewTopic(
                    settings.topic(topic), PARTITIONS, 1, topic_configs=topic_config(topic) | config
                )
                for topic in (Topic.EVENTS, Topic.HEALTH)
            ]
        )
    finally:
        await admin.close()


async def published(settings: Settings) -> list[dict[str, Any]]:
    """All events on the topic, by partition, in the order in which they stand there."""
    events = []
    topic = settings.topic(Topic.EVENTS)
    tps = [aiokafka.TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    consumer = aiokafka.AIOKafkaConsumer(**settings.consumer_kwargs())
    consumer.assign(tps)
    async with consumer:
        for tp, end in (await consumer.end_offsets(tps)).items():
            consumer.pause(*[other for other in tps if other != tp])
            consumer.resume(tp)
            while await consumer.position(tp) < end:
                for record in (await consumer.getmany(tp, timeout_ms=1_000)).get(tp, []):
                    event = msgspec.json.decode(record.value)
                    root = event.get("partitionkey", event["subject"])
                    assert record.key == root.encode()
                    assert tp.partition == partition_for(record.key, PARTITIONS)
                    events.append(event)
    return events


def tokens_by_task(events: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for event in events:
        found.setdefault(event["subject"], []).append(event["data"]["input_tokens"])
    return found


def assert_sequences_grow(events: Sequence[dict[str, Any]]) -> None:
    """As the ledger judges it: per task and source."""
    last: dict[tuple[str, str], str] = {}
    for event in events:
        of = event["subject"], event["source"]
        assert event["sequence"] > last.get(of, ""), event
        last[of] = event["sequence"]


def say(emitter: Emitter, first: int, last: int, *, tasks: int = 7) -> None:
    for number in range(first, last + 1):
        emitter.usage(f"TASK-{number % tasks}", "THINK", input_tokens=number)


def expected(first: int, last: int, *, tasks: int = 7) -> dict[str, list[int]]:
    numbers = range(first, last + 1)
    return {f"TASK-{i}": [n for n in numbers if n % tasks == i] for i in range(tasks)}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - other threads' state
            await asyncio.sleep(0.02)


async def flushed(emitter: Emitter, timeout_s: float = PATIENCE_S) -> bool:
    return await asyncio.to_thread(emitter.flush, timeout_s)


@pytest.fixture
async def settings(bootstrap_servers: str, topic_prefix: str) -> Settings:
    settings = Settings(bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    await create_topics(settings)
    return settings


@pytest.fixture
async def own_broker(tmp_path: Path) -> AsyncIterator[KafkaBroker]:
    """A broker that the test may kill."""
    async with KafkaBroker(tmp_path / "kafka") as broker:
        yield broker


async def test_a_family_goes_to_one_partition_in_order(settings: Settings) -> None:
    with Emitter(settings, "enforcer-1") as emitter:
        with emitter.task("TASK-1") as task, task.child("TASK-2") as child:
            for number in range(100):
                task.usage("THINK", input_tokens=number)
                child.usage("THINK", input_tokens=number)
        assert await flushed(emitter)
    events = await published(settings)
    assert len(events) == 204
    assert_sequences_grow(events)
    assert [event["sequence"] for event in events] == [f"{i:020d}" for i in range(1, 205)]
    assert emitter.stats.sent == 204


async def test_threads_and_a_loop_say_things_at_once(settings: Settings) -> None:
    emitter = Emitter(settings, "enforcer-1")

    def work(task: str) -> None:
        for number in range(1_000):
            emitter.usage(task, "THINK", input_tokens=number)

    async def work_in_loop(task: str) -> None:
        for number in range(300):
            emitter.usage(task, "THINK", input_tokens=number)
            await asyncio.sleep(0)

    threads = [threading.Thread(target=work, args=(f"TASK-{i}",)) for i in range(2)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(work_in_loop(f"TASK-{i}") for i in range(2, 5)))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert await flushed(emitter)
    await asyncio.to_thread(emitter.close)
    events = await published(settings)
    assert_sequences_grow(events)
    assert tokens_by_task(events) == {
        f"TASK-{i}": list(range(1_000 if i < 2 else 300)) for i in range(5)
    }


async def test_a_broker_killed_and_restarted_loses_repeats_and_reorders_nothing(
    own_broker: KafkaBroker, tmp_path: Path
) -> None:
    settings = Settings(bootstrap_servers=own_broker.bootstrap_servers)
    await create_topics(settings)
    emitter = Emitter(settings, "enforcer-1", tmp_path / "spool")
    say(emitter, 1, 500)
    assert await flushed(emitter)
    say(emitter, 501, 1_500)
    await own_broker.kill()
    say(emitter, 1_501, 4_000)
    await until(lambda: emitter.stats.spooled >= 2_500)
    await own_broker.start()
    say(emitter, 4_001, 5_000)
    assert await flushed(emitter)
    assert await asyncio.to_thread(emitter.close)
    events = await published(settings)
    assert_sequences_grow(events)
    assert tokens_by_task(events) == expected(1, 5_000)
    assert [path.name for path in (tmp_path / "spool").iterdir()] == [".gitignore"]
    assert (emitter.stats.dropped, emitter.stats.invalid) == (0, 0)


async def test_events_wait_for_a_broker_and_topics_that_come_later(tmp_path: Path) -> None:
    broker = KafkaBroker(tmp_path / "kafka")
    async with broker:
        settings = Settings(bootstrap_servers=broker.bootstrap_servers)
    emitter = Emitter(settings, "enforcer-1", tmp_path / "spool")
    say(emitter, 1, 100)
    async with broker:
        assert broker.bootstrap_servers == settings.bootstrap_servers
        await create_topics(settings)
        assert await flushed(emitter)
        assert tokens_by_task(await published(settings)) == expected(1, 100)
        await asyncio.to_thread(emitter.close)


async def test_what_a_predecessor_left_is_sent_first_byte_for_byte(
    settings: Settings, tmp_path: Path
) -> None:
    away = Settings(bootstrap_servers="127.0.0.1:1", topic_prefix=settings.topic_prefix)
    dead = Emitter(away, "enforcer-1", tmp_path)
    say(dead, 1, 300, tasks=1)
    assert not await asyncio.to_thread(dead.close, 0)
    assert dead.stats.spooled == 300
    with Emitter(settings, "enforcer-1", tmp_path) as emitter:
        say(emitter, 301, 400, tasks=1)
        assert await flushed(emitter)
    events = await published(settings)
    assert tokens_by_task(events) == expected(1, 400, tasks=1)
    assert [event["source"] for event in events] == [dead.source] * 300 + [emitter.source] * 100
    assert_sequences_grow(events)


async def test_what_another_leaves_while_we_run_is_found(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.client.worker.ADOPT_INTERVAL_S", 0.1)
    away = Settings(bootstrap_servers="127.0.0.1:1", topic_prefix=settings.topic_prefix)
    other = Emitter(away, "enforcer-1", tmp_path)
    with Emitter(settings, "enforcer-1", tmp_path) as emitter:
        say(other, 1, 50)
        await asyncio.to_thread(other.close, 0)
        await until(lambda: emitter.stats.sent == 50)
    assert tokens_by_task(await published(settings)) == expected(1, 50)


KILLED_ENFORCER = """
import sys, time
from pathlib import Path
from streams.client import Emitter
from streams.kafka.settings import Settings

emitter = Emitter(Settings(bootstrap_servers="127.0.0.1:1", topic_prefix=sys.argv[2]),
                  "enforcer-1", Path(sys.argv[1]))
for number in range(1, 501):
    emitter.usage("TASK-0", "THINK", input_tokens=number)
while emitter.stats.spooled < 500:
    time.sleep(0.02)
print("spooled", flush=True)
time.sleep(60)
"""


async def test_what_a_killed_process_had_on_disk_is_not_lost(
    settings: Settings, tmp_path: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        KILLED_ENFORCER,
        str(tmp_path / "spool"),
        settings.topic_prefix,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        assert await process.stdout.readline() == b"spooled\n"
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    with Emitter(settings, "enforcer-1", tmp_path / "spool") as emitter:
        say(emitter, 501, 600, tasks=1)
        assert await flushed(emitter)
    assert tokens_by_task(await published(settings)) == expected(1, 600, tasks=1)


TALKING_ENFORCER = """
import itertools, sys, time
from pathlib import Path
from streams.client import Emitter
from streams.kafka.settings import Settings

emitter = Emitter(Settings(bootstrap_servers=sys.argv[1]), "enforcer-1", Path(sys.argv[2]))
for number in itertools.count(1):
    emitter.usage(f"TASK-{number % 7}", "THINK", input_tokens=number)
    if number % 20 == 0:
        time.sleep(0.005)
    if emitter.stats.spooled > 3_000:
        print("spooled", flush=True)
"""


async def test_a_process_killed_while_its_spool_drains_loses_nothing_and_reorders_nothing(
    own_broker: KafkaBroker, tmp_path: Path
) -> None:
    settings = Settings(bootstrap_servers=own_broker.bootstrap_servers)
    await create_topics(settings)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        TALKING_ENFORCER,
        settings.bootstrap_servers,
        str(tmp_path / "spool"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await own_broker.kill()
    async with asyncio.timeout(PATIENCE_S):
        assert await process.stdout.readline() == b"spooled\n"
    await own_broker.start()
    async with asyncio.timeout(PATIENCE_S):
        while not await published(settings):
            pass
    process.kill()
    await process.communicate()
    with Emitter(settings, "enforcer-1", tmp_path / "spool") as emitter:
        assert await flushed(emitter)
    events = await published(settings)
    by_source = dict.fromkeys(event["source"] for event in events)
    assert len(by_source) == 1  # the second emitter said nothing itself
    # As the ledger judges: what is not above the last sequence of its task was there before.
    last: dict[str, str] = {}
    first_times = []
    for event in events:
        if event["sequence"] > last.get(event["subject"], ""):
            last[event["subject"]] = event["sequence"]
            first_times.append(event)
    assert len(first_times) > 3_000
    assert tokens_by_task(first_times) == expected(1, len(first_times))


async def test_an_event_that_the_topic_refuses_holds_back_no_other(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    settings = Settings(bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    await create_topics(settings, **{"max.message.bytes": "2000"})
    with Emitter(settings, "enforcer-1") as emitter:
        emitter.usage("TASK-1", "THINK", input_tokens=1)
        emitter.explained("TASK-1", "x" * 3_000)
        emitter.usage("TASK-1", "THINK", input_tokens=2)
        assert await flushed(emitter)
    events = await published(settings)
    assert tokens_by_task(events) == {"TASK-1": [1, 2]}
    assert (emitter.stats.sent, emitter.stats.dropped) == (2, 1)


async def test_flush_and_close_keep_their_deadline_while_the_broker_is_dead(
    own_broker: KafkaBroker, tmp_path: Path
) -> None:
    settings = Settings(bootstrap_servers=own_broker.bootstrap_servers)
    await create_topics(settings)
    emitter = Emitter(settings, "enforcer-1", tmp_path / "spool")
    say(emitter, 1, 10)
    assert await flushed(emitter)
    await own_broker.kill()
    say(emitter, 11, 20)
    async with asyncio.timeout(PATIENCE_S):
        assert not await flushed(emitter, 0.2)
        assert not await asyncio.to_thread(emitter.close, 0.2)
    assert (emitter.stats.queued, emitter.stats.spooled) == (0, 10)


async def test_health_says_how_the_emitter_is(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.client.worker.HEALTH_INTERVAL_S", 0.1)
    with Emitter(settings, "enforcer-1") as emitter:
        consumer = aiokafka.AIOKafkaConsumer(
            settings.topic(Topic.HEALTH), **settings.consumer_kwargs()
        )
        async with consumer, asyncio.timeout(PATIENCE_S):
            record = await consumer.getone()
    health = msgspec.json.decode(record.value)
    assert record.key == emitter.source.encode()
    assert health["type"] == "stoploss.health"
    assert health["data"] == {
        "source": emitter.source,
        "emitter": {"queued": 0, "spooled": 0, "dropped": 0},
    }


async def test_an_interpreter_that_exits_sends_what_was_said(settings: Settings) -> None:
    program = (
        "import sys; from streams.client import Emitter; from streams.kafka.settings import Settings\n"
        "emitter = Emitter(Settings(bootstrap_servers=sys.argv[1], topic_prefix=sys.argv[2]))\n"
        "emitter.usage('TASK-0', 'THINK', input_tokens=1)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, settings.bootstrap_servers, settings.topic_prefix
    )
    with contextlib.suppress(ProcessLookupError):
        async with asyncio.timeout(PATIENCE_S):
            assert await process.wait() == 0
    assert tokens_by_task(await published(settings)) == {"TASK-0": [1]}
