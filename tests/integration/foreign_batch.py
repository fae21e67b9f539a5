"""A record batch as no client of ours would write it, sent as it is."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiokafka.codec
import aiokafka.errors
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBase, DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from schemas.errors import UnavailableError
from streams.kafka.reader import start_client
from streams.kafka.settings import Settings
from streams.verify.reading import patiently

HEADER_BYTES = DefaultRecordBase.HEADER_STRUCT.size
PLACEHOLDER = "\x15"  # which no event has
PACKED: dict[str | None, tuple[int, Callable[[bytes], bytes]]] = {
    None: (DefaultRecordBase.CODEC_NONE, bytes),
    "gzip": (DefaultRecordBase.CODEC_GZIP, aiokafka.codec.gzip_encode),
    "snappy": (DefaultRecordBase.CODEC_SNAPPY, aiokafka.codec.snappy_encode),
    "lz4": (DefaultRecordBase.CODEC_LZ4, aiokafka.codec.lz4_encode),
    "zstd": (DefaultRecordBase.CODEC_ZSTD, aiokafka.codec.zstd_encode),
}


@dataclass(frozen=True)
class Foreign:
    """A record; the names of its headers are any bytes."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[bytes, bytes | None]] = field(default=())


def record_batch(records: Sequence[Foreign], compression: str | None = None) -> bytes:
    """Return one batch; the broker gives it its offset."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 2**31 - 1)
    for offset, record in enumerate(records):
        # The builder takes text only; the names come into its bytes below.
        headers = [(PLACEHOLDER * len(name), value) for name, value in record.headers]
        assert builder.append(offset, 0, record.key, record.value, headers) is not None
    batch = bytearray(builder.build())
    at = HEADER_BYTES
    for record in records:
        for name, _ in record.headers:
            at = batch.index(PLACEHOLDER.encode() * len(name), at)
            batch[at : at + len(name)] = name
            at += len(name)
    codec, pack = PACKED[compression]
    batch[HEADER_BYTES:] = pack(bytes(batch[HEADER_BYTES:]))
    struct.pack_into(">i", batch, 8, len(batch) - DefaultRecordBase.AFTER_LEN_OFFSET)
    struct.pack_into(">h", batch, DefaultRecordBase.ATTRIBUTES_OFFSET, codec)
    checksum = calc_crc32c(bytes(batch[DefaultRecordBase.ATTRIBUTES_OFFSET :]))
    struct.pack_into(">I", batch, DefaultRecordBase.CRC_OFFSET, checksum)
    return bytes(batch)


async def send_batch(settings: Settings, topic: str, partition: int, batch: bytes) -> int:
    """Append a batch; return the offset of its first record."""
    request = ProduceRequest(None, -1, 10_000, [(topic, [(partition, batch)])])
    client: Any = await start_client(settings, [topic], "foreign")

    async def send_once() -> int:
        leader = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        response = await client.send(leader, request)
        (_, code, offset, *_) = response.topics[0][1][0]
        error = aiokafka.errors.for_code(code)
        if error is aiokafka.errors.NotLeaderForPartitionError:  # the topic is new
            await client.force_metadata_update()
            raise UnavailableError(topic)
        assert error is aiokafka.errors.NoError, error
        return int(offset)

    try:
        return await patiently(send_once)
    finally:
        await client.close()
