"""Requests of a process on their way to the broker and back.

A request that has left goes its way whatever becomes of who sent it: cancelled or dead, it may still
arrive. That is how a commit is decided that nobody knows of.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tests.simulation.broker import BrokerError
from tests.simulation.faults import Fault, Met, Weather

Answer = TypeVar("Answer")
# A connection that breaks is noticed soon, one that is silent when the time is up.
BROKEN_WITHIN_S = 0.2
SLOW_MAX_S = 4.0


class NoAnswerError(Exception):
    """Nobody knows whether the request has arrived."""


class Network:
    """Of one history. `at` is called at each place where a process can die."""

    def __init__(
        self,
        chance: random.Random,
        weather: Weather,
        met: Met,
        at: Callable[["Sender", str], None],
    ) -> None:
        self._chance, self._weather, self._met, self._at = chance, weather, met, at
        self.is_calm = False  # no more faults: the history comes to its end
        self.is_out = False
        self._on_the_way: dict[asyncio.Task[None], None] = {}  # a set's order would be chance

    def has(self, fault: Fault) -> bool:
        """Whether a fault may happen now."""
        return not self.is_calm and self._weather.has(fault)

    def note(self, fault: Fault) -> None:
        """Count a fault that has happened."""
        self._met.faults[fault] += 1

    def close(self) -> None:
        """Let what is on its way arrive nowhere."""
        for task in self._on_the_way:
            task.cancel()

    def meets(self, fault: Fault) -> bool:
        """Roll the dice for one fault of one request."""
        if not self.has(fault) or self._chance.random() >= self._weather.rate:
            return False
        self.note(fault)
        return True

    async def ask(
        self, sender: "Sender", kind: str, serve: Callable[[], Awaitable[Answer]], within_s: float
    ) -> Answer:
        """Have the broker do `serve`, and return its answer.

        Raises:
            NoAnswerError: none within `within_s`, or the connection broke.
            BrokerError: refused.
        """
        sender.must_live()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._at(sender, f"{kind} sent")
        sender.must_live()
        task = loop.create_task(self._carry(sender, kind, serve, answer))
        self._on_the_way[task] = None
        task.add_done_callback(self._arrived)
        try:
            async with asyncio.timeout(within_s):
                return await answer
        except TimeoutError:
            raise NoAnswerError(kind) from None

    async def _carry(
        self,
        sender: "Sender",
        kind: str,
        serve: Callable[[], Awaitable[Answer]],
        answer: "asyncio.Future[Answer]",
    ) -> None:
        slow_s = self._chance.uniform(0, SLOW_MAX_S) if self.meets(Fault.SLOW) else 0.0
        await asyncio.sleep(slow_s + self._latency_s())
        is_lost = self.is_out or self.meets(Fault.UNAVAILABLE)
        if is_lost or (not sender.is_alive and self._chance.random() < 0.5):
            await self._break(answer)
            return
        try:
            found = await serve()
        except BrokerError as error:
            await asyncio.sleep(self._latency_s())
            if not answer.done():
                answer.set_exception(error)
            return
        self._at(sender, f"{kind} arrived")
        if self.meets(Fault.LOST_ANSWER):
            await self._break(answer)
            return
        await asyncio.sleep(self._latency_s())
        self._at(sender, f"{kind} answered")
        if not answer.done():
            answer.set_result(found)

    def _arrived(self, task: "asyncio.Task[None]") -> None:
        del self._on_the_way[task]
        if not task.cancelled():
            task.result()  # a mistake of the simulation's own is heard of through the loop

    async def _break(self, answer: "asyncio.Future[Answer]") -> None:
        if self._chance.random() < 0.5:
            return  # silence
        await asyncio.sleep(self._chance.uniform(0, BROKEN_WITHIN_S))
        if not answer.done():
            answer.set_exception(NoAnswerError("the connection broke"))

    def _latency_s(self) -> float:
        return self._chance.uniform(0.0001, self._weather.latency_s)


class Sender:
    """Who sends requests: a process, until it dies."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True

    def must_live(self) -> None:
        """Let what is left of a dead process do nothing more."""
        if not self.is_alive:
            raise asyncio.CancelledError
