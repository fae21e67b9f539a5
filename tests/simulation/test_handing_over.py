"""A partition comes back to the process that is still letting go of it."""

import asyncio
from typing import Any

from aiokafka.structs import TopicPartition

from schemas.topics import Topic
from streams.ledger.assignment import Assignment
from tests.simulation.calm import LONG_S, CalmWorld, in_simulated_time
from tests.simulation.links import Link, SimulatedWriter


class _Stubborn(Link):
    """The first writer does not close, whoever asks it to, until it is let."""

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 - handed on
        super().__init__(*arguments)
        self.is_first, self.may_close = True, asyncio.Event()


class _StubbornWriter(SimulatedWriter):
    async def close(self) -> None:
        assert isinstance(self.link, _Stubborn)
        is_first, self.link.is_first = self.link.is_first, False
        while is_first and not self.link.may_close.is_set():
            try:
                await self.link.may_close.wait()
            except asyncio.CancelledError:
                continue
        await super().close()


_Stubborn.writers = _StubbornWriter


def test_who_is_let_go_of_late_takes_no_figures_of_its_successor_with_it() -> None:
    async def story(world: CalmWorld) -> None:
        link = world.link("ledger", _Stubborn)
        assert isinstance(link, _Stubborn)
        shared = world.shared(link)
        owned = [TopicPartition(world.settings.topic(Topic.EVENTS), 0)]
        async with asyncio.TaskGroup() as tasks:
            assignment = Assignment(shared, tasks, lambda held: world.member(link, held))
            await assignment.on_partitions_assigned(owned)
            await asyncio.sleep(LONG_S)
            assert shared.metrics.partitions == [0]
            await assignment.on_partitions_assigned([])
            await assignment.on_partitions_assigned(owned)
            await asyncio.sleep(LONG_S)
            assert not link.is_first, "else nobody is late"
            link.may_close.set()
            await asyncio.sleep(LONG_S)
            assert shared.metrics.partitions == [0]
            await assignment.close(LONG_S)
            assert shared.metrics.partitions == []

    in_simulated_time(story)
