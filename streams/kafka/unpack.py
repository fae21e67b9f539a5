"""A record batch that aiokafka's C code gives up on, unpacked here: slowly, and for a few records.

The format takes any bytes as the name of a header, and so does the broker; aiokafka decodes names
as UTF-8 while it unpacks. One record with another name would hold up its partition for ever, and
with it all that came in the same batch. Source: KIP-82, and `DefaultRecord` of Apache Kafka.
"""

from collections.abc import Callable, Sequence

import aiokafka.codec
from aiokafka.record.default_records import DefaultRecordBase
from msgspec import Struct

_HEADER = DefaultRecordBase.HEADER_STRUCT
_BEFORE_LENGTH_ENDS = 12  # the base offset and the length itself do not count in a batch's length
_DECODERS: dict[int, Callable[[bytes], bytes]] = {
    DefaultRecordBase.CODEC_NONE: bytes,
    DefaultRecordBase.CODEC_GZIP: aiokafka.codec.gzip_decode,
    DefaultRecordBase.CODEC_SNAPPY: aiokafka.codec.snappy_decode,
    DefaultRecordBase.CODEC_LZ4: aiokafka.codec.lz4_decode,
    DefaultRecordBase.CODEC_ZSTD: aiokafka.codec.zstd_decode,
}


class UnpackedRecord(Struct, frozen=True, gc=False):
    """A `RawRecord`."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


def unpack(data: bytes, base_offset: int) -> list[UnpackedRecord]:
    """Return the records of one batch in fetched `data`.

    A header's name that is not UTF-8 has its bytes as lone surrogates ("surrogateescape").

    Raises:
        ValueError: it is no batch, whatever its checksum says.
    """
    fields, packed = _batch_at(data, base_offset)
    attributes, first_ms, max_ms, count = fields[5], fields[7], fields[8], fields[-1]
    is_append_time = bool(attributes & DefaultRecordBase.TIMESTAMP_TYPE_MASK)
    cursor = _Cursor(_DECODERS[attributes & DefaultRecordBase.CODEC_MASK](packed))
    records = []
    for _ in range(count):
        cursor.number()  # the record's length
        cursor.take(1)  # attributes, of which none is in use
        timestamp_ms = first_ms + cursor.number()
        records.append(
            UnpackedRecord(
                timestamp=max_ms if is_append_time else timestamp_ms,
                offset=base_offset + cursor.number(),
                key=cursor.text(),
                value=cursor.text(),
                headers=[(cursor.name(), cursor.text()) for _ in range(max(0, cursor.number()))],
            )
        )
    return records


def _batch_at(data: bytes, base_offset: int) -> tuple[tuple[int, ...], bytes]:
    """Return the header of the batch and what follows it."""
    at = 0
    while at + _HEADER.size <= len(data):
        fields = _HEADER.unpack_from(data, at)
        end = at + _BEFORE_LENGTH_ENDS + fields[1]
        if fields[0] == base_offset:
            return fields, data[at + _HEADER.size : end]
        at = end
    raise ValueError(f"no batch begins at {base_offset}")


class _Cursor:
    """Reads on from where it stands."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self) -> int:
        """Read an integer of variable length, its sign in the lowest bit."""
        number = shift = 0
        while True:
            (byte,) = self.take(1)
            number |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return (number >> 1) ^ -(number & 1)
            shift += 7

    def take(self, size_bytes: int) -> bytes:
        taken = self._data[self._at : self._at + size_bytes]
        if len(taken) < size_bytes:
            raise ValueError(f"{len(taken)} bytes at {self._at} instead of {size_bytes}")
        self._at += size_bytes
        return taken

    def text(self) -> bytes | None:
        size_bytes = self.number()
        return None if size_bytes < 0 else self.take(size_bytes)

    def name(self) -> str:
        return self.take(max(0, self.number())).decode(errors="surrogateescape")
