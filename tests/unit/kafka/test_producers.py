"""A producer is let go of within its bound, whatever of it does not end."""

import asyncio
from typing import Any

from aiokafka.errors import ProducerClosed

from streams.kafka.producers import CLOSE_WITHIN_S, discard
from tests.simulation.loop import run


class Stubborn:
    """What `discard` touches of aiokafka's producer; none of it ends by itself, or when cancelled."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.asked: list[str] = []
        self.sender_task = asyncio.get_running_loop().create_task(self._resist("sender"))
        self.client = self._sender = self._message_accumulator = self

    def fail_all(self, error: Exception) -> None:
        assert isinstance(error, ProducerClosed)
        self.asked.append("waiting")

    async def close(self) -> None:
        self.asked.append("connections")
        await self.let.wait()

    async def stop(self) -> None:
        self.asked.append("stop")
        await self.let.wait()

    async def _resist(self, name: str) -> None:
        while not self.let.is_set():
            try:
                await self.let.wait()
            except asyncio.CancelledError:
                self.asked.append(name)


def test_all_steps_of_letting_go_have_one_bound_together_and_each_has_its_turn() -> None:
    async def let_go() -> tuple[float, list[str]]:
        loop = asyncio.get_running_loop()
        producer: Any = Stubborn()
        await asyncio.sleep(0)  # the sender runs
        begun_s = loop.time()
        await discard(producer)
        took_s, asked = loop.time() - begun_s, list(producer.asked)
        producer.let.set()
        await producer.sender_task
        return took_s, asked

    took_s, asked = run(let_go())  # in simulated time
    assert took_s <= CLOSE_WITHIN_S
    assert asked == ["waiting", "connections", "sender", "sender", "sender", "stop"]
