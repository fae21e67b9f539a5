"""Between an enforcer and Kafka: what had to be sent again counts once."""

import asyncio
import functools
import shutil
from collections import Counter
from pathlib import Path

import aiokafka
import pytest

from schemas.topics import Topic
from streams.client import delivery
from streams.client.emitter import Emitter
from streams.kafka.settings import Settings, load_settings
from tests.faults.broker import ProxiedBroker
from tests.faults.conftest import CALM, TROUBLED
from tests.faults.proxy import Fault
from tests.integration.kafka_world import World, eventually, make_world

pytestmark = [
    pytest.mark.integration,
    pytest.mark.faults,
    pytest.mark.asyncio(loop_scope="module"),
]

TASKS = [f"TASK-{number}" for number in range(8)]
ROUNDS = 20


def troubled(broker: ProxiedBroker, world: World) -> Settings:
    """Return the settings of who goes through the proxy that has faults."""
    return load_settings(
        {},
        bootstrap_servers=broker.servers(TROUBLED),
        topic_prefix=world.settings.topic_prefix,
        partitions=world.settings.partitions,
        request_timeout_ms=5_000,
    )


async def events_by_id(world: World) -> Counter[str]:
    """Return how often each event of ours stands in `events`."""
    seen = await world.read(Topic.EVENTS)
    return Counter(one.id for one in seen if one.key.startswith("TASK-"))


async def test_a_producer_that_hears_no_answer_repeats_itself_and_it_stands_there_once(
    proxied_for_all: ProxiedBroker, topic_prefix: str
) -> None:
    world = await make_world(proxied_for_all.servers(CALM), topic_prefix)
    proxy = proxied_for_all.proxies[TROUBLED]
    topic = world.settings.topic(Topic.EVENTS)
    async with aiokafka.AIOKafkaProducer(
        **troubled(proxied_for_all, world).producer_kwargs()
    ) as producer:
        # A partition that has no leader yet refuses, and of that nobody would hear.
        for key, value in [world.usage(task, 100) for task in TASKS]:
            await producer.send_and_wait(topic, value, key.encode())
        for number in range(1, ROUNDS):
            expected = (number + 1) * len(TASKS)
            async with proxy.faulty(Fault.SILENCE) as met:
                events = [world.usage(task, 100) for task in TASKS]
                deliveries = [
                    await producer.send(topic, value, key.encode()) for key, value in events
                ]
                await eventually(functools.partial(_has, world, expected))
                assert not any(delivery.done() for delivery in deliveries)
                # Half of the times the answer is lost for ever, else it only comes late.
                if number % 2:
                    assert proxy.reset() > 0
            await asyncio.gather(*deliveries)
            assert met.stalled_bytes > 0
    sent = await events_by_id(world)
    assert set(sent.values()) == {1}
    assert sent.total() == ROUNDS * len(TASKS)
    async with world.ledger():
        await world.until_folded()
    await world.assert_verified()


async def test_what_was_sent_and_comes_again_from_the_spool_counts_once(
    proxied_for_all: ProxiedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    world = await make_world(proxied_for_all.servers(CALM), topic_prefix)
    settings = troubled(proxied_for_all, world)
    spool, kept = tmp_path / "spool", tmp_path / "kept"
    first = Emitter(settings, "enforcer", spool)
    async with proxied_for_all.proxies[TROUBLED].faulty(Fault.CUT):
        for number in range(ROUNDS * len(TASKS)):
            first.usage(TASKS[number % len(TASKS)], "THINK", input_tokens=100)
        await eventually(lambda: _holds(first.stats.spooled == ROUNDS * len(TASKS)))
        # As a machine leaves it that dies after Kafka had the events and before the file was gone.
        shutil.copytree(spool, kept)
    assert await asyncio.to_thread(first.close, 60)
    shutil.copytree(kept, spool, dirs_exist_ok=True)
    second = Emitter(settings, "enforcer", spool)
    second.usage("TASK-LAST", "THINK", input_tokens=1)
    await eventually(lambda: _holds(second.stats.sent == ROUNDS * len(TASKS) + 1))
    assert await asyncio.to_thread(second.close, 60)
    sent = await events_by_id(world)
    assert Counter(sent.values()) == {2: ROUNDS * len(TASKS), 1: 1}
    expected = dict.fromkeys(TASKS, ROUNDS * 100) | {"TASK-LAST": 1}
    async with world.ledger():
        await eventually(lambda: _is_used(world, expected))
    await world.assert_verified()


async def test_what_was_sent_live_and_again_from_the_spool_counts_once(
    proxied_for_all: ProxiedBroker,
    topic_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The answer is lost: its producer is thrown away, and the next one has the spool to send."""
    monkeypatch.setattr(delivery, "ROUND_TIMEOUT_S", 2.0)
    world = await make_world(proxied_for_all.servers(CALM), topic_prefix)
    emitter = Emitter(troubled(proxied_for_all, world), "enforcer", tmp_path / "spool")
    emitter.usage(TASKS[0], "THINK", input_tokens=100)
    await eventually(lambda: _holds(emitter.stats.sent == 1))
    count = ROUNDS * len(TASKS)
    async with proxied_for_all.proxies[TROUBLED].faulty(Fault.SILENCE) as met:
        for number in range(1, count):
            emitter.usage(TASKS[number % len(TASKS)], "THINK", input_tokens=100)
        await eventually(lambda: _holds("events cannot be sent" in caplog.text))
        live = await events_by_id(world)
        assert live.total() > 1
        assert met.stalled_bytes > 0
        assert emitter.stats.sent == 1
        assert emitter.stats.spooled == count - 1
    assert await asyncio.to_thread(emitter.close, 60)
    sent = await events_by_id(world)
    assert len(sent) == count
    assert Counter(sent.values()) == {2: len(live) - 1, 1: count - len(live) + 1}
    expected = dict.fromkeys(TASKS, ROUNDS * 100)
    async with world.ledger():
        await eventually(lambda: _is_used(world, expected))
    await world.assert_verified()


async def _has(world: World, count: int) -> bool:
    return len(await events_by_id(world)) == count


async def _holds(condition: bool) -> bool:  # noqa: FBT001
    return condition


async def _is_used(world: World, expected: dict[str, int]) -> bool:
    return await world.used_tokens() == expected
