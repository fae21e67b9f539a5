"""What the judges read, and one partition of it up to what had been written at a moment."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from schemas.errors import UnavailableError
from schemas.topics import DAY_MS, OUTPUTS, SPECS, Topic
from streams.kafka.errors import OffsetGoneError
from streams.kafka.ports import RawRecord
from streams.kafka.reader import KafkaReader

# An open transaction holds back what comes after it; the broker ends it after at most this long,
# where its owner does not (60 s is Kafka's default for others' producers).
STANDSTILL_S = 90.0
# A new topic, and one whose leader moves, is away for a moment.
AWAY_MAX_S = 10.0
AGAIN_AFTER_S = 0.2

READ = (Topic.EVENTS, Topic.TASKS, *OUTPUTS)
COMPACTION_LAG_MS = int(SPECS[Topic.DECISIONS].config["min.compaction.lag.ms"])
assert COMPACTION_LAG_MS >= DAY_MS

OnProgress = Callable[[int, int], None]
Answer = TypeVar("Answer")


async def patiently(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask Kafka again for a while where it does not answer.

    Raises:
        UnavailableError: it did not for `AWAY_MAX_S`.
    """
    attempts = AsyncRetrying(
        retry=retry_if_exception_type(UnavailableError),
        stop=stop_after_delay(AWAY_MAX_S),
        wait=wait_fixed(AGAIN_AFTER_S),
        reraise=True,
    )
    return await attempts(ask)


class OutputReader:
    """Reads committed records from the first one that retention has left."""

    def __init__(self, client: Any, topic: str, partition: int) -> None:  # noqa: ANN401 - aiokafka has no types
        self._client, self.topic, self.partition = client, topic, partition
        self._reader = KafkaReader(client, topic, partition)
        self._until = 0
        self.trimmed = False  # by retention: what comes next is not what came next

    def __repr__(self) -> str:
        return f"<OutputReader {self.topic}-{self.partition} {self._reader.offset}/{self._until}>"

    async def begin(self) -> None:
        """Note what is written by now, open transactions included: all of it will be read."""
        first = await patiently(self._reader.first_offset)
        if first > self._reader.offset:
            self._reader.seek(first)
            self.trimmed = True
        self._until = await patiently(self._reader.written_offset)

    def has_ended(self) -> bool:
        """Whether everything is read that was written at `begin`."""
        return self._reader.offset >= self._until

    async def read(self) -> Sequence[RawRecord]:
        """Return the next committed records; none where a transaction is open, or all is read.

        Raises:
            UnavailableError: Kafka does not answer, or a transaction stays open.
        """
        if self.has_ended():
            return []
        try:
            async with asyncio.timeout(STANDSTILL_S):
                while not (chunks := await patiently(self._reader.read)):
                    pass
        except TimeoutError:
            raise UnavailableError(f"{self!r}: a transaction stays open") from None
        except OffsetGoneError as gone:
            self._reader.seek(gone.first)
            self.trimmed = True
            return []
        return [record for chunk in chunks for record in chunk.records]

    async def until_written(self) -> AsyncIterator[RawRecord]:
        """Yield what is committed, from where reading stands to the end of what is written now.

        The last transaction is read whole.
        """
        await self.begin()
        while not self.has_ended():
            for record in await self.read():
                yield record
        self._until = await patiently(self._reader.end_offset)
        while not self.has_ended():
            for record in await self.read():
                yield record

    async def at(self, offset: int) -> RawRecord | None:
        """Return the record at an offset, if it is still there."""
        reader = KafkaReader(self._client, self.topic, self.partition, offset)
        for chunk in await patiently(reader.read):
            for record in chunk.records:
                return record if record.offset == offset else None
        return None
