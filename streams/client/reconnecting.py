"""Reads from Kafka for ever: after a failure it waits, ever longer, and connects again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiokafka.errors import KafkaError

from schemas.errors import StoplossError

BACKOFF_S_MIN, BACKOFF_S_MAX = 0.2, 5.0


class Reconnecting:
    """One connection after the other; says once that there is none, and once that there is again.

    Args:
        what: is read, as in "verdicts cannot be read yet".
        log: where that is said.
        sleep: seconds until the next attempt.
    """

    def __init__(
        self,
        what: str,
        log: logging.Logger,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._what, self._log, self._sleep = what, log, sleep
        self._is_down = False

    def __repr__(self) -> str:
        return f"<Reconnecting {self._what} {'down' if self._is_down else 'up'}>"

    async def run(self, connect_and_read: Callable[[], Awaitable[None]]) -> None:
        """Connect and read until cancelled.

        Args:
            connect_and_read: fails, or ends, when it has lost its connection; calls `is_up`.
        """
        backoff_s = BACKOFF_S_MIN
        while True:
            try:
                await connect_and_read()
            except Exception as error:  # noqa: BLE001 - whatever it is, an enforcer goes on
                if not self._is_down:
                    known = isinstance(error, (KafkaError, StoplossError, OSError))
                    self._log.warning(
                        "%s cannot be read yet: %r", self._what, error, exc_info=not known
                    )
                    backoff_s = BACKOFF_S_MIN
                self._is_down = True
            await self._sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)

    def is_up(self) -> None:
        """Say that what could not be read is read again."""
        if self._is_down:
            self._is_down = False
            self._log.warning("%s are read again", self._what)
