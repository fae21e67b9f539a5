"""Nobody is fenced before the group has decided: it may be who the group has decided for."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from schemas.events import LEDGER_SOURCE
from schemas.topics import Topic
from streams.budget.sleep import Patience
from streams.kafka.errors import FencedError
from streams.kafka.ports import Chunk, Record
from streams.kafka.settings import Settings
from streams.ledger.health import LedgerHealth
from streams.ledger.metrics import unseen
from streams.ledger.partition import PartitionWorker, Shared
from tests.simulation.broker import Broker
from tests.simulation.faults import Met, Weather
from tests.simulation.links import Link, SimulatedAppender, SimulatedReader, SimulatedWriter
from tests.simulation.loop import run
from tests.simulation.network import Network, Sender
from tests.simulation.traffic import POLICY

SLOW_S = 10.0  # of simulated time
LONG_S = 60.0  # in which whatever is going to happen has happened
LET_GO_S = 2.0
CAUSED = f'{{"id": "0-0-0", "source": "{LEDGER_SOURCE}"}}'.encode()


class _Slow(Link):
    """Looks for the broker for a while before it sends a fence, and takes a moment to let go of it."""

    let_go = 0


class _SlowWriter(SimulatedWriter):
    async def fence(self) -> None:
        try:
            await asyncio.sleep(SLOW_S)
        except asyncio.CancelledError:
            await asyncio.sleep(LET_GO_S)
            assert isinstance(self.link, _Slow)
            self.link.let_go += 1
            raise
        await super().fence()


_Slow.writers = _SlowWriter


class _Looking(Link):
    """Waits before it looks for what the partition has caused."""

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 - handed on
        super().__init__(*arguments)
        self.looks, self.goes_on = asyncio.Event(), asyncio.Event()


class _LookingReader(SimulatedReader):
    async def read(self) -> Sequence[Chunk]:
        if self.topic == self.link.settings.topic(Topic.DECISIONS):
            assert isinstance(self.link, _Looking)
            self.link.looks.set()
            await self.link.goes_on.wait()
        return await super().read()


_Looking.readers = _LookingReader


class World:
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

    def worker(self, link: Link) -> PartitionWorker:
        return PartitionWorker(
            Shared(
                settings=self.settings,
                default_policy=POLICY,
                connect=link,
                appender=SimulatedAppender(link),
                wall_ms=lambda: 0,
                metrics=unseen(),
                health=LedgerHealth(),
                patience=Patience(),
                freeze=False,
            ),
            0,
        )


def in_simulated_time(story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def told() -> None:
        await story(World())

    run(told())


def test_a_fence_that_is_under_way_is_called_off_until_the_group_has_decided() -> None:
    async def story(world: World) -> None:
        worker = world.worker(world.link("undecided", _Slow))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(worker.run())
            await asyncio.sleep(SLOW_S / 2)
            worker.hold()
            owner = await world.owner()
            await asyncio.sleep(LONG_S)
            await world.write(owner)
            worker.keep()
            await asyncio.sleep(LONG_S)
            assert worker.next_offset is not None
            with pytest.raises(FencedError):
                await world.write(owner)
            worker.release()

    in_simulated_time(story)


def test_the_second_fence_of_a_restore_waits_for_the_group_as_the_first_does() -> None:
    async def story(world: World) -> None:
        await world.write(await world.owner(), Topic.DECISIONS)  # else one fence is enough
        link = world.link("undecided", _Looking)
        assert isinstance(link, _Looking)
        worker = world.worker(link)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(worker.run())
            await link.looks.wait()
            worker.hold()
            owner = await world.owner()
            link.goes_on.set()
            await asyncio.sleep(LONG_S)
            await world.write(owner)
            worker.keep()
            await asyncio.sleep(LONG_S)
            with pytest.raises(FencedError):
                await world.write(owner)
            worker.release()

    in_simulated_time(story)


def test_a_group_that_decides_again_and_again_disturbs_nobody_who_lets_go_of_a_fence() -> None:
    async def story(world: World) -> None:
        link = world.link("undecided", _Slow)
        assert isinstance(link, _Slow)
        worker = world.worker(link)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(worker.run())
            await asyncio.sleep(SLOW_S / 2)
            for _ in range(3):
                worker.hold()
                await asyncio.sleep(LET_GO_S / 4)
                worker.keep()
            await asyncio.sleep(LONG_S)
            assert link.let_go == 1
            assert worker.next_offset is not None
            worker.release()

    in_simulated_time(story)
