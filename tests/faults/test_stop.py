"""A ledger, and each part of it, lets go of a Kafka that does not answer, within its bounds."""

import asyncio
import contextlib
import gc
import signal
import time
from collections.abc import AsyncIterator
from typing import get_args

import pytest
from confluent_kafka import KafkaException, Producer

from schemas.topics import Topic
from streams.kafka.drivers import connect_by
from streams.kafka.errors import UnconfirmedBatchError
from streams.kafka.librdkafka import config
from streams.kafka.librdkafka.session import Client
from streams.kafka.ports import Record
from streams.kafka.session import ABORT_WITHIN_S
from streams.kafka.settings import Driver, Settings, load_settings
from streams.ledger.run import LET_GO_WITHIN_S
from tests.faults.broker import ProxiedBroker
from tests.faults.conftest import CALM, TROUBLED
from tests.faults.proxy import Fault
from tests.integration.kafka_world import World, eventually, make_world
from tests.integration.shell import environ, start

pytestmark = [pytest.mark.integration, pytest.mark.faults]
PARTITION = 0
WITHIN_S = 15.0


class Process:
    """`stoploss ledger`, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process, settings: Settings) -> None:
        self._process, self._settings = process, settings
        self._said: list[str] = []

    async def follow(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._said.append(line.decode())

    async def said(self, words: str) -> bool:
        return any(words in line for line in self._said)

    async def told_to_end(self) -> int:
        """Send SIGTERM; return the exit code, which has to be there within what is documented."""
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(self._settings.stop_deadline_ms / 1000 + LET_GO_WITHIN_S):
            return await self._process.wait()

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@contextlib.asynccontextmanager
async def ledger_through(proxied: ProxiedBroker, world: World) -> AsyncIterator[Process]:
    """Run a ledger whose Kafka is behind the troubled proxy."""
    servers, driver = proxied.servers(TROUBLED), world.settings.driver
    env = environ(world.settings, STOPLOSS_BOOTSTRAP_SERVERS=servers, STOPLOSS_DRIVER=driver)
    process = Process(await start("ledger", env=env), world.settings)
    async with asyncio.TaskGroup() as group:
        group.create_task(process.follow())
        try:
            yield process
        finally:
            await process.kill()


@pytest.fixture(params=get_args(Driver))
def driver(request: pytest.FixtureRequest) -> Driver:
    found: Driver = request.param
    return found


@pytest.fixture
async def world(proxied: ProxiedBroker, topic_prefix: str, driver: Driver) -> World:
    return await make_world(proxied.servers(CALM), topic_prefix, partitions=2, driver=driver)


async def send_some(world: World) -> None:
    await world.send([world.usage(f"TASK-{number % 7}", 100) for number in range(500)])


async def test_a_ledger_ends_in_order_while_a_batch_waits_for_a_kafka_that_says_nothing(
    proxied: ProxiedBroker, world: World
) -> None:
    async with ledger_through(proxied, world) as ledger:
        await send_some(world)
        await world.until_folded()
        async with proxied.proxies[TROUBLED].faulty(Fault.SILENCE) as met:
            await send_some(world)
            await eventually(lambda: _is(met.happened()))
            assert await ledger.told_to_end() == 0
    async with ledger_through(proxied, world):
        await world.until_folded()
    await world.assert_verified()


async def test_a_ledger_ends_in_order_after_its_broker_was_killed(
    proxied: ProxiedBroker, world: World
) -> None:
    async with ledger_through(proxied, world) as ledger:
        await send_some(world)
        await world.until_folded()
        await proxied.kill()
        await eventually(lambda: ledger.said("→ waiting_for_kafka"))
        assert await ledger.told_to_end() == 0


async def test_a_ledger_that_has_never_heard_of_kafka_ends_at_once(
    proxied: ProxiedBroker, world: World
) -> None:
    silence = proxied.proxies[TROUBLED].faulty(Fault.SILENCE)
    async with silence as met, ledger_through(proxied, world) as ledger:
        await eventually(lambda: _is(met.happened()))
        assert world.settings.request_timeout_ms > world.settings.stop_deadline_ms
        async with asyncio.timeout(world.settings.stop_deadline_ms / 1000):
            assert await ledger.told_to_end() == 0


@pytest.fixture
def through_trouble(proxied: ProxiedBroker, world: World) -> Settings:
    return load_settings(
        {},
        bootstrap_servers=proxied.servers(TROUBLED),
        topic_prefix=world.settings.topic_prefix,
        driver=world.settings.driver,
        batch_deadline_ms=1_000,
    )


@pytest.mark.parametrize("driver", ["librdkafka"])
async def test_a_producer_is_gone_at_once_that_could_not_abort_its_transaction(
    proxied: ProxiedBroker, through_trouble: Settings
) -> None:
    client = Client(through_trouble, PARTITION)
    record = Record(through_trouble.topic(Topic.TASKS), PARTITION, b"a", b"1")
    await asyncio.to_thread(_open_transaction, client, record)
    async with proxied.proxies[TROUBLED].faulty(Fault.SILENCE), asyncio.timeout(WITHIN_S):
        client.let_go()
        with pytest.raises(KafkaException, match="_TIMED_OUT"):
            await asyncio.to_thread(client.abort, time.monotonic() + ABORT_WITHIN_S)
        await asyncio.to_thread(client.close)
        assert _producers() == []


@pytest.mark.parametrize("driver", ["librdkafka"])
async def test_a_batch_that_finds_no_place_in_the_queue_fails_at_its_deadline(
    proxied: ProxiedBroker,
    world: World,
    through_trouble: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(config, "QUEUE_BYTES_MAX", 64 * 1024)
    topic = through_trouble.topic(Topic.TASKS)
    connection = await connect_by(through_trouble)(PARTITION)
    writer = connection.writer()
    await writer.fence()
    batch = writer.batch()
    for number in range(40):
        batch.produce(Record(topic, PARTITION, b"a", f"{number:010000d}".encode()))
    async with proxied.proxies[TROUBLED].faulty(Fault.STALL) as met:
        async with asyncio.timeout(WITHIN_S):
            with pytest.raises(UnconfirmedBatchError, match="TimeoutError"):
                await batch.commit()
            await writer.close()
        assert met.happened()
        assert _producers() == []  # though the error is kept, with the functions it came through
    await writer.fence()
    await writer.close()
    await connection.close()
    assert await world.read(Topic.TASKS) == []


def _open_transaction(client: Client, record: Record) -> None:
    until_s = time.monotonic() + WITHIN_S
    client.begin(until_s)
    client.begin_transaction()
    client.queue([record], until_s)
    client.flush(until_s)
    client.queue([record], until_s)


def _producers() -> list[Producer]:
    return [each for each in gc.get_objects() if isinstance(each, Producer)]


async def _is(condition: bool) -> bool:  # noqa: FBT001
    return condition
