"""How far the ledger has come, as a reader of committed records sees it, and how old that was."""

import asyncio
import contextlib
import time
from collections import deque
from typing import Any

import msgspec

from schemas.errors import UnavailableError
from schemas.topics import Topic
from streams.kafka.errors import OffsetGoneError
from streams.kafka.reader import KafkaReader, start_client
from streams.kafka.settings import Settings

WAITING_MAX = 100_000  # batches of one partition; the oldest ones are what counts
AGAIN_AFTER_S = 0.1


class _Standing(msgspec.Struct):
    next_offset: int


class _Record(msgspec.Struct):
    data: _Standing


_STANDING = msgspec.json.Decoder(_Record)


class Progress:
    """One partition: what waits, and the longest that something had waited when it was committed."""

    def __init__(self) -> None:
        self.next_offset = 0
        self.appended_offset = -1  # of the last batch that was sent
        self.longest_ms = 0
        self._waiting: deque[tuple[int, int]] = deque()

    def appended(self, offset: int, append_ms: int) -> None:
        """Note a batch of input by its first record."""
        self.appended_offset = max(self.appended_offset, offset)
        if offset >= self.next_offset and len(self._waiting) < WAITING_MAX:
            self._waiting.append((offset, append_ms))

    def committed(self, next_offset: int, wall_ms: int) -> None:
        """Note that inputs before an offset have been decided on, visibly."""
        self.next_offset = max(self.next_offset, next_offset)
        while self._waiting and self._waiting[0][0] < next_offset:
            self.longest_ms = max(self.longest_ms, wall_ms - self._waiting.popleft()[1])


class Watch:
    """Reads the partitions' own records in `tasks`. What is sent has to be told to it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.partitions = [Progress() for _ in range(settings.partitions)]

    def appended(self, partition: int, offset: int, append_ms: int) -> None:
        """See `Progress.appended`."""
        self.partitions[partition].appended(offset, append_ms)

    def longest_ms(self) -> int:
        """Return how long input waited at most, of what was decided on since the last call."""
        longest = max(partition.longest_ms for partition in self.partitions)
        for partition in self.partitions:
            partition.longest_ms = 0
        return longest

    def sent(self) -> list[int]:
        """Return, by partition, what has to be passed for everything sent by now to be decided."""
        return [partition.appended_offset + 1 for partition in self.partitions]

    def has_passed(self, offsets: list[int]) -> bool:
        """Whether every partition has come so far."""
        return all(
            partition.next_offset >= offset
            for partition, offset in zip(self.partitions, offsets, strict=True)
        )

    async def run(self) -> None:
        """Watch until cancelled; a broker that is away comes back."""
        topics = [self._settings.topic(Topic.TASKS)]
        while True:
            with contextlib.suppress(UnavailableError):
                client = await start_client(self._settings, topics, "watch")
                break
            await asyncio.sleep(AGAIN_AFTER_S)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._settings.partitions):
                    group.create_task(self._follow(client, number))
        finally:
            await client.close()

    async def _follow(self, client: Any, number: int) -> None:  # noqa: ANN401 - aiokafka has no types
        reader = KafkaReader(client, self._settings.topic(Topic.TASKS), number)
        key = f"partition/{number}".encode()
        while True:
            try:
                chunks = await reader.read()
            except UnavailableError:
                await asyncio.sleep(AGAIN_AFTER_S)
                continue
            except OffsetGoneError as gone:
                reader.seek(gone.first)
                continue
            newest = [
                record.value
                for chunk in chunks
                for record in chunk.records
                if record.key == key and record.value is not None
            ]
            if newest:
                standing = _STANDING.decode(newest[-1])
                wall_ms = time.time_ns() // 1_000_000
                self.partitions[number].committed(standing.data.next_offset, wall_ms)
