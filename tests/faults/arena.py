"""Where a run of faults takes place: a broker, ledgers, a load, and somebody who watches."""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import UnavailableError
from schemas.topics import Topic
from streams.budget.policy import policy_from_toml
from streams.client.emitter import Emitter
from streams.kafka.reader import KafkaReader, start_client
from streams.kafka.settings import Driver, Settings, load_settings
from streams.kafka.topics import create_or_check_topics
from streams.local.redis import RedisServer
from tests.faults.broker import ProxiedBroker, proxied_broker
from tests.faults.enforcers import Enforcers
from tests.faults.feed import Feed
from tests.faults.ledgers import Ledger, Ledgers
from tests.faults.load import Load
from tests.faults.onlookers import Onlookers
from tests.faults.watch import Watch
from tests.integration.shell import environ

log = logging.getLogger("faults")

# A kill is noticed only after a session: as short as the machine allows. One whose cores are all
# taken by others needs longer ones, or every batch runs out of time.
SESSION_MS = 6_000
# Ledgers go through either of the first two, so that some can be cut off and others not.
LEFT, RIGHT, CLIENTS, EMITTER, CALM = "left", "right", "clients", "emitter", "calm"
ENFORCERS, ONLOOKERS = "enforcers", "onlookers"
SIDES = (LEFT, RIGHT)
# Tasks are forgotten within the run: it must be longer than any outage, or what comes again after
# one would open its task anew.
RETENTION_MS = 120_000
POLICIES = tuple(
    policy_from_toml(
        f'version = "faults-{name}"\n[clock]\nretention_ms = {RETENTION_MS}\n{more}', "faults"
    )
    for name, more in (
        ("a", ""),
        ("b", "[ladders.phase.tokens]\nnotice = 0.5\nwarn = 1\nreview = 2\nblock = 4\n"),
    )
)
SPOOL_BYTES_MAX = 128 * 1024
QUEUE_COUNT_MAX = 1_000
EMITTED_TASKS = 16
RECOVERED_WITHIN_S = 90.0
POLL_S = 0.05


def environ_of(
    bootstrap_servers: str, session_ms: int, driver: Driver = "aiokafka"
) -> dict[str, str]:
    """Return the environment of a process of ours; time-outs in the proportions of the defaults."""
    short: dict[str, object] = {
        "bootstrap_servers": bootstrap_servers,
        "topic_prefix": "faults.",
        "partitions": 4,
        "driver": driver,
        "session_timeout_ms": session_ms,
        "heartbeat_interval_ms": session_ms // 10,
        "transaction_timeout_ms": session_ms * 8 // 10,
        "batch_deadline_ms": session_ms * 6 // 10,
        "rebalance_timeout_ms": session_ms * 15 // 10,
        "stop_deadline_ms": session_ms * 15 // 10,
        "request_timeout_ms": session_ms * 2,
    }
    return environ(None, **{f"STOPLOSS_{name.upper()}": str(each) for name, each in short.items()})


@dataclass
class Arena:
    """Everything that a fault can reach. `random` is the faults' own."""

    broker: ProxiedBroker
    ledgers: Ledgers
    load: Load
    feed: Feed
    watch: Watch
    emitter: Emitter
    enforcers: Enforcers
    onlookers: Onlookers
    random: random.Random
    folder: Path
    session_ms: int
    driver: Driver
    emitted: int = 0

    @property
    def session_s(self) -> float:
        return self.session_ms / 1000

    def settings(self, proxy: str) -> Settings:
        return settings_of(self.broker, proxy, self.session_ms)

    def environ(self, proxy: str) -> dict[str, str]:
        """Return the environment of a process of ours that goes through a proxy."""
        return environ_of(self.broker.servers(proxy), self.session_ms, self.driver)

    def emit(self, count: int) -> None:
        """Say usage through the emitter; each is one model call."""
        for _ in range(count):
            self.emitted += 1
            self.emitter.usage(f"EMITTED-{self.emitted % EMITTED_TASKS}", "THINK", input_tokens=1)

    async def start_ledger(self, failpoint: str | None = None) -> Ledger:
        """Start a ledger on the side that has fewer."""
        alive = self.ledgers.alive
        counts = {side: sum(ledger.proxy == side for ledger in alive) for side in SIDES}
        return await self.ledgers.start(min(SIDES, key=counts.__getitem__), failpoint)

    async def keep(self, count: int) -> None:
        """Have at least so many ledgers."""
        while len(self.ledgers.alive) < count:
            await self.start_ledger()

    async def recovered(self) -> bool:
        """Wait until everything sent before is decided on; whether that came about in time."""
        sent = self.watch.sent()
        return await self.until(lambda: self.watch.has_passed(sent), RECOVERED_WITHIN_S)

    async def until(self, holds: Callable[[], bool], within_s: float) -> bool:
        """Wait for a condition; whether it came about in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not holds():  # noqa: ASYNC110 - of other processes
                    await asyncio.sleep(POLL_S)
                return True
        return holds()

    async def consumed(self) -> bool:
        """Whether no record of `events` stands behind what the ledgers have committed.

        An open transaction hides what comes after it: it has to be over.
        """
        settings = self.settings(CALM)
        topic = settings.topic(Topic.EVENTS)
        client = await start_client(settings, [topic], "consumed")
        try:
            for number, progress in enumerate(self.watch.partitions):
                reader = KafkaReader(client, topic, number, progress.next_offset)
                end = await reader.end_offset()
                if end < await reader.written_offset():
                    return False
                while reader.offset < end:
                    if any(chunk.records for chunk in await reader.read()):
                        return False
        finally:
            await client.close()
        return True

    async def quiesce(self, within_s: float) -> bool:
        """Wait until everything that was sent is decided on; whether that came about in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while True:
                    with contextlib.suppress(UnavailableError):
                        if await self.consumed():
                            return True
                    await asyncio.sleep(POLL_S)
        return False


def settings_of(broker: ProxiedBroker, proxy: str, session_ms: int) -> Settings:
    return load_settings(environ_of(broker.servers(proxy), session_ms))


@contextlib.asynccontextmanager
async def arena(
    folder: Path,
    seed: int,
    *,
    families: int,
    usages: int,
    session_ms: int = SESSION_MS,
    driver: Driver = "aiokafka",
    with_onlookers: bool = True,
) -> AsyncIterator[Arena]:
    """Set everything up; at the end nothing of it is left but the files in `folder`."""
    logs = folder / "logs"
    logs.mkdir(parents=True)
    async with contextlib.AsyncExitStack() as stack:
        proxies = (*SIDES, CLIENTS, EMITTER, ENFORCERS, ONLOOKERS, CALM)
        broker = await stack.enter_async_context(proxied_broker(folder / "kafka", *proxies))
        await create_or_check_topics(settings_of(broker, CALM, session_ms))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        watch = Watch(settings_of(broker, CALM, session_ms))
        watching = group.create_task(watch.run())
        stack.callback(watching.cancel)
        ledgers = Ledgers(
            lambda proxy: environ_of(broker.servers(proxy), session_ms, driver), logs, group
        )
        stack.push_async_callback(ledgers.kill)
        feed = Feed(settings_of(broker, CLIENTS, session_ms), watch.appended)
        stack.push_async_callback(feed.close)
        emitter = Emitter(
            settings_of(broker, EMITTER, session_ms),
            "faults",
            folder / "spool",
            queue_count_max=QUEUE_COUNT_MAX,
            spool_bytes_max=SPOOL_BYTES_MAX,
        )
        stack.push_async_callback(asyncio.to_thread, emitter.close)
        enforcers = Enforcers(
            lambda: environ_of(broker.servers(ENFORCERS), session_ms), folder / "enforcers", group
        )
        stack.push_async_callback(enforcers.close)
        await enforcers.start()
        onlookers = Onlookers(
            lambda: environ_of(broker.servers(ONLOOKERS), session_ms),
            RedisServer(folder / "redis"),
            logs,
            group,
        )
        stack.push_async_callback(onlookers.close)
        if with_onlookers:
            await onlookers.start()
        yield Arena(
            broker=broker,
            ledgers=ledgers,
            load=Load(seed, families=families, usages=usages),
            feed=feed,
            watch=watch,
            emitter=emitter,
            enforcers=enforcers,
            onlookers=onlookers,
            random=random.Random(f"{seed}-faults"),
            folder=folder,
            session_ms=session_ms,
            driver=driver,
        )
