"""Ends an aiokafka client together with every task that it made.

A producer's `stop` delivers what is pending first, with a dead broker for ever; and one that is
merely forgotten goes on sending what its successor sends again. A thread's loop has no tasks but ours
and its clients', so what was not there before the client is the client's.
"""

import asyncio
import contextlib
from typing import Any, Protocol

import aiokafka.errors

STOP_TIMEOUT_S = 2.0


class Client(Protocol):
    """A producer or consumer."""

    async def stop(self) -> None:
        """Finish and disconnect."""


async def end(client: Client, tasks_before: set[asyncio.Task[Any]], *, at_once: bool) -> None:
    """Stop `client`, within a few seconds; never raises an error of its own.

    Args:
        tasks_before: all tasks that there were before the client was made.
        at_once: without finishing what is pending.
    """
    with contextlib.suppress(TimeoutError, aiokafka.errors.KafkaError, OSError):
        async with asyncio.timeout(STOP_TIMEOUT_S):
            if at_once:
                await _cancel(asyncio.all_tasks() - tasks_before)
            await client.stop()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await _cancel(asyncio.all_tasks() - tasks_before)


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
