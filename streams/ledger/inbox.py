"""Between reading a partition and folding it: what was read waits, so that reading need not.

Bounded by records: when little comes at a time, a bound of a few chunks made reading wait for every
commit, and each commit then held a few events.
"""

import asyncio
import contextlib
from collections import deque

from streams.kafka.ports import Chunk

RECORDS_MAX = 8_000
CHUNKS_MAX = 256  # of large records


class Inbox:
    """A bounded queue of chunks whose reader can be woken without one."""

    def __init__(self) -> None:
        self._chunks: deque[Chunk] = deque()
        self._records = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._wanted = asyncio.Event()

    @property
    def records(self) -> int:
        """How many records wait."""
        return self._records

    async def wanted(self) -> None:
        """Wait until somebody waits for a chunk."""
        await self._wanted.wait()

    async def put(self, chunk: Chunk) -> None:
        """Add a chunk; waits while the inbox is full."""
        while self._records >= RECORDS_MAX or len(self._chunks) >= CHUNKS_MAX:
            self._room.clear()
            await self._room.wait()
        self._chunks.append(chunk)
        self._records += len(chunk.records)
        self._arrived.set()

    async def get(self, wait_s: float | None) -> Chunk | None:
        """Return the next chunk; None when there is none after `wait_s`, or `wake` was called."""
        if not self._chunks:
            self._arrived.clear()
            self._wanted.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._arrived.wait()
            self._wanted.clear()
        if not self._chunks:
            return None
        chunk = self._chunks.popleft()
        self._records -= len(chunk.records)
        self._room.set()
        return chunk

    def wake(self) -> None:
        """Let `get` return at once."""
        self._arrived.set()
