"""One partition, read raw: record batches from the broker, unpacked by aiokafka's own C code.

A `ConsumerRecord` costs 0.7 µs, of which we use four fields; a raw record costs 0.07. So fetching
is done here, with aiokafka's client and requests (the version is pinned exactly for it). One client
per partition: a broker answers a connection's requests in order, so that one partition with nothing
new would hold back all the others for `FETCH_WAIT_MS`.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import aiokafka.errors
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from schemas.errors import UnavailableError
from streams.kafka.errors import OffsetGoneError
from streams.kafka.leftovers import pass_over_leftovers
from streams.kafka.ports import Chunk, RawRecord
from streams.kafka.settings import Settings
from streams.kafka.unpack import unpack

FETCH_WAIT_MS = 500
FETCH_BYTES_MAX = 4 * 1024 * 1024
# A chunk is folded in one go: longer ones would hold back commits and heartbeats of others.
CHUNK_RECORDS = 2_000
# Nobody knows how large a compressed batch is before it is unpacked: not too many at once.
CHUNK_COMPRESSED_BATCHES = 8
CLOSE_WITHIN_S = 2.0
READ_UNCOMMITTED, READ_COMMITTED = 0, 1
EARLIEST, LATEST = -2, -1
NO_END = 2**63


class KafkaReader:
    """Reads `topic`/`partition` from `offset`; see `PartitionReader` for what it promises."""

    def __init__(self, client: Any, topic: str, partition: int, offset: int = 0) -> None:  # noqa: ANN401 - aiokafka has no types
        self._client = client
        self._tp = TopicPartition(topic, partition)
        self.offset = offset

    def __repr__(self) -> str:
        return f"<KafkaReader {self._tp.topic}-{self._tp.partition} offset={self.offset}>"

    def seek(self, offset: int) -> None:
        """See `PartitionReader.seek`."""
        self.offset = offset

    async def read(self) -> Sequence[Chunk]:
        """See `PartitionReader.read`."""
        data, aborted, end_offset = await self._fetch(self.offset)
        chunks = list(chunks_in(data, aborted, self.offset, end_offset))
        if chunks:
            self.offset = chunks[-1].next_offset
        return chunks

    async def between(self, offset: int, until: int) -> tuple[int, int]:
        """Return how many offsets from `offset` to before `until` have been `passed`, and are `gone`.

        Where reading stands does not change.

        Raises:
            UnavailableError: Kafka does not answer, or not with all of it.
            OffsetGoneError: retention has deleted some of it.
        """
        passed = gone = 0
        while offset < until:
            data, aborted, _ = await self._fetch(offset)
            if not data:
                raise UnavailableError(f"{self!r}: nothing came of {offset} to {until - 1}")
            for piece in _pieces(data, aborted, offset, until):
                passed, gone, offset = passed + piece.passed, gone + piece.gone, piece.next_offset
                if offset >= until:
                    break
        return passed, gone

    async def _fetch(self, offset: int) -> tuple[bytes, Sequence[tuple[int, int]], int]:
        """Return record batches from `offset` on, what of them was aborted, and where they end."""
        topic, partition = self._tp
        response = await self._send(
            FetchRequest(
                FETCH_WAIT_MS,
                1,
                FETCH_BYTES_MAX,
                READ_COMMITTED,
                [(topic, [(partition, offset, FETCH_BYTES_MAX)])],
            )
        )
        if not response.topics:
            raise UnavailableError(f"{topic} partition {partition}: an answer without it")
        (_, code, _, last_stable_offset, *rest) = response.topics[0][1][0]
        error = aiokafka.errors.for_code(code)
        if error is aiokafka.errors.OffsetOutOfRangeError:
            first, end = await self.first_offset(), await self.end_offset()
            raise OffsetGoneError(topic, partition, offset, first, end)
        if error is not aiokafka.errors.NoError:
            await self._refresh(error.__name__)
        aborted = rest[1] if response.API_VERSION >= WITH_LOG_START else rest[0]
        return rest[-1] or b"", aborted or [], last_stable_offset

    async def end_offset(self) -> int:
        """See `PartitionReader.end_offset`."""
        return await self._offset(LATEST)

    async def first_offset(self) -> int:
        """See `PartitionReader.first_offset`."""
        return await self._offset(EARLIEST)

    async def written_offset(self) -> int:
        """Return the offset after the last record, those of open transactions included."""
        return await self._offset(LATEST, READ_UNCOMMITTED)

    async def offset_since(self, timestamp_ms: int) -> int:
        """Return the offset of the first record of that time or later; the end where none is."""
        offset = await self._offset(timestamp_ms)
        return offset if offset >= 0 else await self.end_offset()

    async def _offset(self, which: int, isolation: int = READ_COMMITTED) -> int:
        topic, partition = self._tp
        response = await self._send(OffsetRequest(-1, isolation, [(topic, [(partition, which)])]))
        (_, code, *rest) = response.topics[0][1][0]
        error = aiokafka.errors.for_code(code)
        if error is not aiokafka.errors.NoError:
            await self._refresh(error.__name__)
        offset: int = rest[-1]
        return offset

    async def _send(self, request: Any) -> Any:  # noqa: ANN401 - aiokafka has no types
        leader = self._client.cluster.leader_for_partition(self._tp)
        if leader is None or leader == -1:
            await self._refresh("no leader known")
        try:
            return await self._client.send(leader, request)
        except (aiokafka.errors.KafkaError, OSError, TimeoutError) as error:
            self._client.force_metadata_update()
            raise UnavailableError(f"{self!r}: {error!r}") from error

    async def _refresh(self, why: str) -> None:
        """Ask for the metadata anew, and have the caller come again.

        Raises:
            UnavailableError: always.
        """
        await self._client.force_metadata_update()
        raise UnavailableError(f"{self._tp.topic} partition {self._tp.partition}: {why}")


WITH_LOG_START = 5  # the version of the fetch response that names the start of the log


async def start_client(settings: Settings, topics: Sequence[str], role: str) -> Any:  # noqa: ANN401 - aiokafka has no types
    """Return a client that knows the leaders of `topics`.

    Raises:
        UnavailableError: no broker answers, or a topic does not exist.
    """
    pass_over_leftovers()
    client = AIOKafkaClient(**settings.client_kwargs(role))
    try:
        await client.bootstrap()
        await client.set_topics(topics)
        _require(client, topics)
    except (aiokafka.errors.KafkaError, OSError, TimeoutError) as error:
        await client.close()
        raise UnavailableError(f"Kafka at {settings.bootstrap_servers}: {error!r}") from error
    except BaseException:
        await client.close()
        raise
    return client


async def close_client(client: Any) -> None:  # noqa: ANN401 - aiokafka has no types
    """Close what `start_client` has returned, not waiting beyond `CLOSE_WITHIN_S` for what it sends."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await client.close()


def _require(client: Any, topics: Sequence[str]) -> None:  # noqa: ANN401 - aiokafka has no types
    for topic in topics:
        if not client.cluster.partitions_for_topic(topic):
            raise UnavailableError(f"{topic}: no such topic; `stoploss topics create` makes it")


class _Piece(NamedTuple):
    """One record batch, as a part of a `Chunk`."""

    records: Sequence[RawRecord]
    next_offset: int
    passed: int
    gone: int
    is_compressed: bool


def chunks_in(
    data: bytes, aborted: Sequence[tuple[int, int]], offset: int, end_offset: int
) -> Iterator[Chunk]:
    """Yield what a fetch from `offset` on has brought; `aborted`: producer and first offset of each.

    Raises:
        UnavailableError: there is no reading it.
    """
    records: list[RawRecord] = []
    begin, passed, gone, compressed_count = offset, 0, 0, 0
    for piece in _pieces(data, aborted, offset, NO_END):
        records += piece.records
        passed, gone, offset = passed + piece.passed, gone + piece.gone, piece.next_offset
        compressed_count += piece.is_compressed
        if len(records) >= CHUNK_RECORDS or compressed_count >= CHUNK_COMPRESSED_BATCHES:
            yield Chunk(records, begin, offset, end_offset, passed, gone)
            records, begin, passed, gone, compressed_count = [], offset, 0, 0, 0
    if data:
        yield Chunk(records, begin, offset, end_offset, passed, gone)


def _pieces(
    data: bytes, aborted: Sequence[tuple[int, int]], offset: int, until: int
) -> Iterator[_Piece]:
    """Yield each record batch, cut to what lies from `offset` to before `until`."""
    for batch, is_visible in _batches(data, aborted):
        # 1. A batch may begin before the offset that was asked for; or after it, where compaction
        # has removed one before it.
        first = min(max(batch.base_offset, offset), until)
        # 2. Its end counts also where compaction has removed its last records.
        end = max(first, min(batch.next_offset, until))
        records: Sequence[RawRecord] = ()
        if is_visible:
            records = _unpacked(batch, data)
            if first > batch.base_offset or end < batch.next_offset:
                records = [record for record in records if first <= record.offset < end]
        passed = 0 if is_visible else end - first
        gone = end - offset - passed - len(records)
        yield _Piece(records, end, passed, gone, is_visible and bool(batch.compression_type))
        offset = end


def _unpacked(batch: Any, data: bytes) -> Sequence[RawRecord]:  # noqa: ANN401 - aiokafka has no types
    """Return the records of a batch.

    Raises:
        UnavailableError: there is no reading it.
    """
    try:
        return list(batch)
    except (UnicodeDecodeError, aiokafka.errors.CorruptRecordException) as error:
        try:
            return unpack(data, batch.base_offset)
        except ValueError:
            raise UnavailableError(f"the record batch at {batch.base_offset}: {error}") from error


def _batches(data: bytes, aborted: Sequence[tuple[int, int]]) -> Iterator[tuple[Any, bool]]:
    """Yield each record batch, and whether its records may be seen."""
    waiting = sorted(aborted, key=lambda producer_and_first: producer_and_first[1])
    hidden: set[int] = set()
    log = MemoryRecords(data)
    while log.has_next():
        batch = log.next_batch()
        if not batch.validate_crc():
            raise UnavailableError(f"a record batch at {batch.base_offset} has a wrong checksum")
        while waiting and waiting[0][1] <= batch.base_offset:
            hidden.add(waiting.pop(0)[0])
        if batch.is_control_batch:
            if ControlRecord.parse(next(batch).key) == ABORT_MARKER:
                hidden.discard(batch.producer_id)
            yield batch, False
        else:
            yield batch, not (batch.is_transactional and batch.producer_id in hidden)
