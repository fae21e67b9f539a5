"""Between reading a partition and folding it: a few chunks wait, so that neither waits for long."""

import asyncio
import contextlib
from collections import deque

from streams.kafka.ports import Chunk

CHUNKS_MAX = 4  # of 2,000 records at most


class Inbox:
    """A bounded queue of chunks whose reader can be woken without one."""

    def __init__(self) -> None:
        self._chunks: deque[Chunk] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    def __len__(self) -> int:
        return len(self._chunks)

    async def put(self, chunk: Chunk) -> None:
        """Add a chunk; waits while the inbox is full."""
        while len(self._chunks) >= CHUNKS_MAX:
            self._room.clear()
            await self._room.wait()
        self._chunks.append(chunk)
        self._arrived.set()

    async def get(self, wait_s: float | None) -> Chunk | None:
        """Return the next chunk; None when there is none after `wait_s`, or `wake` was called."""
        if not self._chunks:
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._arrived.wait()
        if not self._chunks:
            return None
        chunk = self._chunks.popleft()
        self._room.set()
        return chunk

    def wake(self) -> None:
        """Let `get` return at once."""
        self._arrived.set()
