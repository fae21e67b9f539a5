"""A producer is let go of within its bound, whatever of it does not end."""

import asyncio
from typing import Any

import pytest
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


class Obedient(Stubborn):
    """Its sender ends when it is cancelled, and `stop` waits for it, as aiokafka's does."""

    async def close(self) -> None:
        self.asked.append("connections")

    async def stop(self) -> None:
        self.asked.append("stop")
        await self.sender_task

    async def _resist(self, name: str) -> None:
        assert name == "sender"
        await self.let.wait()


@pytest.mark.parametrize(
    "at_s",
    [
        pytest.param(CLOSE_WITHIN_S * 0.25, id="while the connections are closed"),
        pytest.param(CLOSE_WITHIN_S * 0.6, id="while its sender ends"),
        pytest.param(CLOSE_WITHIN_S * 0.9, id="while it stops"),
    ],
)
def test_who_is_cancelled_while_letting_go_hears_of_it_and_has_let_go(at_s: float) -> None:
    """`hold` cancels a fence that closes the producer of an earlier one: it must not go on to fence."""

    async def let_go() -> tuple[float, bool, list[str]]:
        loop = asyncio.get_running_loop()
        producer: Any = Stubborn()
        await asyncio.sleep(0)  # the sender runs
        begun_s = loop.time()
        letting_go = loop.create_task(discard(producer))
        loop.call_later(at_s, letting_go.cancel)
        await asyncio.wait([letting_go])
        took_s, asked = loop.time() - begun_s, list(producer.asked)
        producer.let.set()
        await producer.sender_task
        return took_s, letting_go.cancelled(), asked

    took_s, cancelled, asked = run(let_go())  # in simulated time
    assert cancelled
    assert took_s <= CLOSE_WITHIN_S
    assert list(dict.fromkeys(asked)) == ["waiting", "connections", "sender", "stop"]


def test_that_the_sender_was_cancelled_is_no_cancellation_of_who_lets_go() -> None:
    """Nor is the one because of which it lets go, which has been heard of."""

    async def let_go() -> list[str]:
        producer: Any = Obedient()
        await asyncio.sleep(0)  # the sender runs
        await discard(producer)
        return list(producer.asked)

    async def because_cancelled() -> list[str]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return await let_go()
        return []

    async def both() -> tuple[list[str], list[str]]:
        loop = asyncio.get_running_loop()
        cancelled = loop.create_task(because_cancelled())
        loop.call_later(1, cancelled.cancel)
        return await let_go(), await cancelled

    assert run(both()) == (["waiting", "connections", "stop"],) * 2
