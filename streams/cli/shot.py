"""One-shot commands: connect, do one thing before a deadline, go."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from schemas.errors import UnavailableError
from streams.cli.place import Place, kafka_of
from streams.cli.reading import Log, opened
from streams.kafka.settings import Settings

Answer = TypeVar("Answer")
# What an operation says itself about a ledger that is late is better than what is said here.
GRACE_S = 2.0


def ask(folder: Path, timeout_s: float, question: Callable[[Log], Awaitable[Answer]]) -> Answer:
    """Return what `question` finds in the topics of the Kafka that is meant.

    Raises:
        UnavailableError: Kafka, a topic or the ledger cannot be reached in time.
        StoplossError: as the question itself.
    """

    async def with_log(settings: Settings) -> Answer:
        async with opened(settings) as log:
            return await question(log)

    return ask_place(folder, timeout_s, with_log)


def ask_place(
    folder: Path, timeout_s: float, question: Callable[[Settings], Awaitable[Answer]]
) -> Answer:
    """Return what `question` finds at the Kafka that is meant, whatever topics it has; as `ask`."""
    return ask_at(folder, timeout_s, lambda place: question(place.settings))


def ask_at(
    folder: Path, timeout_s: float, question: Callable[[Place], Awaitable[Answer]]
) -> Answer:
    """Return what `question` finds where Kafka is, and what else runs beside it; as `ask`."""
    return asyncio.run(_ask(folder, timeout_s, question))


async def _ask(
    folder: Path, timeout_s: float, question: Callable[[Place], Awaitable[Answer]]
) -> Answer:
    async with kafka_of(folder, timeout_s) as place:
        try:
            async with asyncio.timeout(timeout_s + GRACE_S):
                return await question(place)
        except TimeoutError:
            where = place.settings.bootstrap_servers
            raise UnavailableError(
                f"Kafka at {where} did not give everything within {timeout_s:g} s; "
                "use a longer --timeout"
            ) from None
