"""One partition, read by librdkafka on its own threads, and fetched from there a chunk at a time.

What librdkafka does not tell, aiokafka's reader is asked for: where committed records end (the end
that librdkafka remembers has open transactions before it, and to ask it anew would wait behind the
fetch on the same connection), and records of which it cannot give the header names.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from operator import methodcaller

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from msgspec import Struct

from schemas.errors import UnavailableError
from streams.kafka.errors import OffsetGoneError
from streams.kafka.librdkafka.calls import Caller
from streams.kafka.librdkafka.config import consumer_config
from streams.kafka.ports import END_AGE_MAX_S, Chunk, RawRecord
from streams.kafka.reader import CHUNK_RECORDS, FETCH_WAIT_MS, KafkaReader
from streams.kafka.settings import Settings
from streams.kafka.unpack import UnpackedRecord

# A name of a header that is not UTF-8 leaves an error set behind an answer that has a hole; this way
# of calling always looks for one, while the interpreter's quick way goes on and fails anywhere.
_headers = methodcaller("headers")
# How long it may say nothing while something is there: it connects, or the leader has moved.
PATIENCE_S = 10.0
NOT_THERE = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})  # noqa: SLF001 - its public constants


class Place(Struct, frozen=True, eq=False, gc=False):
    """Where reading was told to go on; each is another one, also at the same offset."""

    topic: str
    partition: int
    offset: int


class Taken(Struct):
    """What librdkafka had read. `next_offset` is past markers, and nothing where below 0.

    `high` is the end with open transactions, `end` the one without, where it has said so last.
    """

    records: list[RawRecord]
    unnamed: list[int]  # indices of records whose header names are not UTF-8
    next_offset: int | None = None
    high: int | None = None
    end: int | None = None
    is_gone: bool = False
    trouble: str | None = None


class PlacedConsumer:
    """One consumer, which reads ahead for whoever took from it last; its calls block.

    Each place has a new one: the old one's fetch is waiting at the broker, and the next on the same
    connection would wait behind it for `FETCH_WAIT_MS`.
    """

    def __init__(self, settings: Settings, partition: int) -> None:
        self._config = consumer_config(settings, f"reader-{partition}")
        self._consumer: Consumer | None = None
        self._place: Place | None = None

    def take(self, place: Place, offset: int) -> Taken:
        """Return what comes next; nothing, after `FETCH_WAIT_MS`, where there is nothing new.

        Args:
            place: where the reader was told to go on; another one than the last time begins anew.
            offset: where it is now.
        """
        taken = Taken([], [])
        try:
            consumer = self._placed(place, offset)
            # `consume` alone waits until it has as many as were asked for, or for the whole time.
            first = consumer.poll(FETCH_WAIT_MS / 1000)
            if first is not None:
                _sort_out([first, *consumer.consume(CHUNK_RECORDS - 1, 0)], taken)
            _locate(consumer, place, taken)
        except KafkaException as error:
            taken.trouble = repr(error.args[0])
        if taken.trouble is not None or taken.is_gone:
            self.close()  # it says so once, and then says nothing any more
        return taken

    def close(self) -> None:
        """Let go of it; a consumer without a group has nothing to say to anybody."""
        consumer, self._consumer, self._place = self._consumer, None, None
        if consumer is not None:
            with contextlib.suppress(KafkaException):
                consumer.close()

    def _placed(self, place: Place, offset: int) -> Consumer:
        if self._consumer is None or place is not self._place:
            self.close()
            self._consumer = Consumer(self._config)
            self._consumer.assign([TopicPartition(place.topic, place.partition, offset)])
            self._place = place
        return self._consumer


def _sort_out(messages: Sequence[Message], taken: Taken) -> None:
    for message in messages:
        error = message.error()
        if error is None:
            taken.records.append(_record(message, taken))
            taken.end = None  # it was reached before this one came
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public constant
            taken.end = message.offset()
        elif error.code() in NOT_THERE:
            taken.is_gone = True
        else:
            taken.trouble = repr(error)
    if len(messages) == CHUNK_RECORDS:
        taken.end = None  # more may be waiting behind it
    if taken.records:
        taken.next_offset = taken.records[-1].offset + 1


def _locate(consumer: Consumer, place: Place, taken: Taken) -> None:
    at = TopicPartition(place.topic, place.partition)
    position = consumer.position([at])[0].offset  # below 0 where it has none yet
    known = [taken.next_offset, taken.end, position]
    taken.next_offset = max(offset for offset in known if offset is not None)
    _, taken.high = consumer.get_watermark_offsets(at, cached=True)


def _record(message: Message, taken: Taken) -> UnpackedRecord:
    headers: Sequence[tuple[str, bytes | None]] = ()
    try:
        headers = _headers(message) or ()
    except SystemError:
        # Not to be asked again: it has kept the answer.
        taken.unnamed.append(len(taken.records))
    offset = message.offset()
    assert offset is not None
    return UnpackedRecord(offset, message.timestamp()[1], message.key(), message.value(), headers)


class RdReader:
    """Reads `topic`/`partition` from `offset`; see `PartitionReader` for what it promises."""

    def __init__(
        self,
        consumer: PlacedConsumer,
        caller: Caller,
        inquirer: KafkaReader,
        place: Place,
        *,
        is_compacted: bool,
    ) -> None:
        self._consumer, self._caller, self._inquirer = consumer, caller, inquirer
        self._is_compacted = is_compacted
        self._place = place
        self.offset = place.offset
        self._end, self._asked_s = place.offset, 0.0  # committed records ended here then, or later
        self._taking: asyncio.Future[Taken] | None = None

    def __repr__(self) -> str:
        return f"<RdReader {self._place.topic}-{self._place.partition} offset={self.offset}>"

    def seek(self, offset: int) -> None:
        """See `PartitionReader.seek`."""
        self._place = Place(self._place.topic, self._place.partition, offset)
        self.offset = self._end = offset
        self._taking = None

    async def read(self) -> Sequence[Chunk]:
        """See `PartitionReader.read`."""
        try:
            return await self._read()
        except Exception:
            # What was taken is not given to anybody: it has to come again, to a consumer of its own.
            self.seek(self.offset)
            raise

    async def _read(self) -> Sequence[Chunk]:
        clock = asyncio.get_running_loop().time
        until_s = clock() + PATIENCE_S
        while True:
            taken = await self._take()
            next_offset = max(self.offset, taken.next_offset or 0)
            if next_offset > self.offset:
                passed, gone = await self._between(next_offset, len(taken.records))
                end_offset = await self._end_at(next_offset, taken)
                chunk = Chunk(taken.records, self.offset, next_offset, end_offset, passed, gone)
                self.offset, self._taking = next_offset, None
                return [chunk]
            self._taking = None
            if taken.is_gone:
                first, end = await self.first_offset(), await self.end_offset()
                topic, partition = self._place.topic, self._place.partition
                raise OffsetGoneError(topic, partition, self.offset, first, end)
            if taken.trouble is not None:
                raise UnavailableError(f"{self!r}: {taken.trouble}")
            # librdkafka says nothing also where no broker answers, and while it connects.
            end = await self.end_offset() if taken.end is None else taken.end
            if end <= self.offset:
                return []
            if clock() > until_s:
                raise UnavailableError(f"{self!r}: nothing comes of what is there to {end}")

    async def _take(self) -> Taken:
        # What was taken for a read that is cancelled is for the next one.
        if self._taking is None:
            self._taking = self._caller(self._consumer.take, self._place, self.offset)
        taken = await asyncio.shield(self._taking)
        await self._name(taken)
        return taken

    async def end_offset(self) -> int:
        """See `PartitionReader.end_offset`."""
        return await self._inquirer.end_offset()

    async def first_offset(self) -> int:
        """See `PartitionReader.first_offset`."""
        return await self._inquirer.first_offset()

    async def _between(self, next_offset: int, count: int) -> tuple[int, int]:
        """Return what stands between the records that were taken, see `Chunk`.

        librdkafka passes over markers, aborted records and gaps alike, without a word. So where it has
        given fewer records than there are offsets, which on `events` an operator's transaction
        causes, aiokafka is asked; on a topic that is compacted that would be to read all of it twice.
        """
        unread = next_offset - self.offset - count
        if self._is_compacted or not unread:
            return unread, 0
        try:
            passed, gone = await self._inquirer.between(self.offset, next_offset)
        except OffsetGoneError as deleted:  # meanwhile, by retention
            raise UnavailableError(f"{self!r}: {deleted}") from deleted
        if passed + gone != unread:
            raise UnavailableError(
                f"{self!r}: {count} records came before offset {next_offset}, and "
                f"{unread - passed - gone} more are there"
            )
        return passed, gone

    async def _end_at(self, next_offset: int, taken: Taken) -> int:
        """Return where committed records end, asking where that was not said in `END_AGE_MAX_S`."""
        if taken.end is not None or taken.high == next_offset:
            return next_offset
        now_s = asyncio.get_running_loop().time()
        if self._end <= next_offset or now_s - self._asked_s >= END_AGE_MAX_S:
            self._end, self._asked_s = max(next_offset, await self.end_offset()), now_s
        return self._end

    async def _name(self, taken: Taken) -> None:
        """Replace the records without header names by themselves, with names of whatever bytes."""
        left = {taken.records[index].offset: index for index in taken.unnamed}
        if left:
            self._inquirer.seek(min(left))
        while left:
            try:
                chunks = await self._inquirer.read()
            except OffsetGoneError as gone:  # of another offset than ours: who reads on will hear
                raise UnavailableError(f"{self!r}: {gone}") from gone
            for chunk in chunks:
                for record in chunk.records:
                    index = left.pop(record.offset, None)
                    if index is not None:
                        taken.records[index] = record
            if left and self._inquirer.offset > max(left):
                raise UnavailableError(f"{self!r}: the record at {min(left)} is not there any more")
