"""A process stays a member of the group, whatever the group does to it, until it is told to end."""

import asyncio
import random

import aiokafka.errors
import pytest

from schemas.topics import Topic
from streams.budget.sleep import Patience
from streams.kafka.settings import Settings
from streams.ledger.health import Health, LedgerHealth
from streams.ledger.partition import Shared
from streams.ledger.run import serve
from tests.simulation.broker import Broker
from tests.simulation.faults import Met, Weather
from tests.simulation.group import Group, Member
from tests.simulation.links import Link, SimulatedAppender, SimulatedConnection
from tests.simulation.network import Network, Sender
from tests.simulation.process import METRICS
from tests.simulation.traffic import POLICY


@pytest.fixture
async def link() -> Link:
    chance, loop = random.Random(1), asyncio.get_running_loop()
    weather = Weather(faults=frozenset(), rate=0, latency_s=0.001, crashes=[])
    broker = Broker(loop, chance, clock_ms=lambda: 0, tell=lambda _: None)
    network = Network(chance, weather, Met(), at=lambda _sender, _place: None)
    return Link(Sender("test"), broker, network, Settings(partitions=1), chance)


@pytest.fixture
async def group(link: Link) -> Group:
    topic = link.settings.topic(Topic.EVENTS)
    return Group(link.settings, topic, random.Random(1), tell=lambda _: None)


class Unreachable(Member):
    """Kafka was there a moment ago."""

    async def start(self) -> None:
        raise aiokafka.errors.KafkaConnectionError("gone since")


class Joining(Member):
    """Says that it does."""

    def __init__(self, group: Group, sender: Sender, joins: asyncio.Event) -> None:
        super().__init__(group, sender, dict)
        self._joins = joins

    async def start(self) -> None:
        await super().start()
        self._joins.set()


class Silent(Link):
    """Nobody answers, for as long as one waits."""

    async def __call__(self, partition: int) -> SimulatedConnection:
        await asyncio.Event().wait()
        raise AssertionError(partition)


def shared_of(link: Link) -> Shared:
    return Shared(
        settings=link.settings,
        default_policy=POLICY,
        connect=link,
        appender=SimulatedAppender(link),
        wall_ms=lambda: 0,
        metrics=METRICS,
        health=LedgerHealth(),
        patience=Patience(),
        freeze=False,
    )


async def test_a_group_that_cannot_be_joined_is_joined_later(link: Link, group: Group) -> None:
    shared, stop, again = shared_of(link), asyncio.Event(), asyncio.Event()
    members = iter([Unreachable(group, link.sender, dict), Joining(group, link.sender, again)])
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
        tasks.create_task(serve(shared, stop, lambda _held: next(members)))
        await again.wait()
        stop.set()
    assert shared.health.state is Health.STOPPING


async def test_who_is_told_to_end_waits_for_no_answer(link: Link, group: Group) -> None:
    link.__class__ = Silent
    shared, stop = shared_of(link), asyncio.Event()
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
        tasks.create_task(serve(shared, stop, lambda held: Member(group, link.sender, held)))
        await asyncio.sleep(0)
        stop.set()
    assert shared.health.state is Health.STOPPING
