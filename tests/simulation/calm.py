"""A broker without a fault, for a story of one partition that is told step by step, in simulated time."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from schemas.events import LEDGER_SOURCE
from schemas.topics import Topic
from streams.budget.sleep import Patience
from streams.kafka.ports import Record
from streams.kafka.settings import Settings
from streams.ledger.health import LedgerHealth
from streams.ledger.metrics import unseen
from streams.ledger.partition import Shared
from streams.ledger.shares import Held
from tests.simulation.broker import Broker
from tests.simulation.faults import Met, Weather
from tests.simulation.group import Group, Member
from tests.simulation.links import Link, SimulatedAppender, SimulatedWriter
from tests.simulation.loop import run
from tests.simulation.network import Network, Sender
from tests.simulation.traffic import POLICY

LONG_S = 60.0  # of simulated time, in which whatever is going to happen has happened
CAUSED = f'{{"id": "0-0-0", "source": "{LEDGER_SOURCE}"}}'.encode()


class CalmWorld:
    """A broker without a fault, and one partition."""

    def __init__(self) -> None:
        self._chance = random.Random(1)
        loop = asyncio.get_running_loop()
        weather = Weather(faults=frozenset(), rate=0, latency_s=0.001, crashes=[])
        self._broker = Broker(loop, self._chance, clock_ms=lambda: 0, tell=lambda _: None)
        self._network = Network(self._chance, weather, Met(), at=lambda _sender, _place: None)
        self.settings = Settings(partitions=1)

    def link(self, name: str, kind: type[Link] = Link) -> Link:
        return kind(Sender(name), self._broker, self._network, self.settings, self._chance)

    async def owner(self) -> SimulatedWriter:
        """Return who the group has decided for, and who has fenced everybody else."""
        writer = SimulatedWriter(self.link("owner"), 0)
        await writer.fence()
        return writer

    async def write(self, writer: SimulatedWriter, topic: Topic = Topic.HEARTBEATS) -> None:
        """Commit a record.

        Raises:
            FencedError: another owner has begun.
        """
        batch = writer.batch()
        batch.produce(Record(self.settings.topic(topic), 0, b"TASK-1", CAUSED))
        await batch.commit()

    def shared(self, link: Link) -> Shared:
        """Return what the partitions of a process are given."""
        return Shared(
            settings=self.settings,
            default_policy=POLICY,
            connect=link,
            appender=SimulatedAppender(link),
            wall_ms=lambda: 0,
            metrics=unseen(),
            health=LedgerHealth(),
            patience=Patience(),
            freeze=False,
        )

    def member(self, link: Link, held: Callable[[], Held]) -> Member:
        """Return a member of the group who hears of nothing: it is told by hand."""
        topic = self.settings.topic(Topic.EVENTS)
        group = Group(self.settings, topic, self._chance, tell=lambda _: None)
        return Member(group, link.sender, held)


def in_simulated_time(story: Callable[[CalmWorld], Coroutine[Any, Any, None]]) -> None:
    async def told() -> None:
        await story(CalmWorld())

    run(told())
