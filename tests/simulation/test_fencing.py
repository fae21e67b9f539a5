"""Nobody is fenced before the group has decided: it may be who the group has decided for."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from schemas.topics import Topic
from streams.kafka.errors import FencedError
from streams.kafka.ports import Chunk
from streams.ledger.partition import PartitionWorker
from tests.simulation.calm import LONG_S, CalmWorld, in_simulated_time
from tests.simulation.links import Link, SimulatedReader, SimulatedWriter

SLOW_S = 10.0  # of simulated time
LET_GO_S = 2.0


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


def worker_on(world: CalmWorld, link: Link) -> PartitionWorker:
    return PartitionWorker(world.shared(link), 0)


def test_a_fence_that_is_under_way_is_called_off_until_the_group_has_decided() -> None:
    async def story(world: CalmWorld) -> None:
        worker = worker_on(world, world.link("undecided", _Slow))
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
    async def story(world: CalmWorld) -> None:
        await world.write(await world.owner(), Topic.DECISIONS)  # else one fence is enough
        link = world.link("undecided", _Looking)
        assert isinstance(link, _Looking)
        worker = worker_on(world, link)
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
    async def story(world: CalmWorld) -> None:
        link = world.link("undecided", _Slow)
        assert isinstance(link, _Slow)
        worker = worker_on(world, link)
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


def test_a_group_that_begins_anew_in_the_moment_of_its_decision_has_not_decided() -> None:
    async def story(world: CalmWorld) -> None:
        worker = worker_on(world, world.link("undecided"))
        worker.hold()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(worker.run())
            await asyncio.sleep(LONG_S)
            owner = await world.owner()
            worker.keep()
            worker.hold()  # before anybody else had a turn
            await asyncio.sleep(LONG_S)
            await world.write(owner)
            worker.keep()
            await asyncio.sleep(LONG_S)
            with pytest.raises(FencedError):
                await world.write(owner)
            worker.release()

    in_simulated_time(story)
