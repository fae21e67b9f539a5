"""What we unpack ourselves is what aiokafka would have unpacked."""

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.unpack import UnpackedRecord, unpack

OPTIONAL_BYTES = st.none() | st.binary(max_size=300)
RECORDS = st.lists(
    st.tuples(
        st.integers(0, 2**41),
        OPTIONAL_BYTES,
        OPTIONAL_BYTES,
        st.lists(st.tuples(st.text(max_size=70), OPTIONAL_BYTES), max_size=3),
    ),
    min_size=1,
    max_size=5,
)
Written = list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]]


def batch_of(records: Written, compression: int, base_offset: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 2**20)
    for offset, (timestamp_ms, key, value, headers) in enumerate(records):
        assert builder.append(offset, timestamp_ms, key, value, headers) is not None
    return base_offset.to_bytes(8) + bytes(builder.build())[8:]


@given(RECORDS, st.sampled_from(range(5)), st.integers(0, 2**40))
def test_it_gives_the_records_that_aiokafka_gives(
    records: Written, compression: int, base_offset: int
) -> None:
    other = batch_of([(0, None, b"other", [])], 0, base_offset=2**41)
    data = other + batch_of(records, compression, base_offset)
    log = MemoryRecords(data)
    log.next_batch()
    batch = log.next_batch()
    assert batch is not None
    assert unpack(data, base_offset) == [
        UnpackedRecord(
            offset=record.offset,
            timestamp=record.timestamp,
            key=record.key,
            value=record.value,
            headers=record.headers,
        )
        for record in batch
    ]


@pytest.mark.parametrize("lost_bytes", range(1, 20))
def test_a_batch_that_is_cut_is_none(lost_bytes: int) -> None:
    whole = batch_of([(1, b"key", b"value", [("name", b"1")])], 0)
    with pytest.raises(ValueError, match="bytes at"):
        unpack(whole[:-lost_bytes], 0)


def test_a_batch_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no batch begins at 17"):
        unpack(batch_of([(1, None, b"value", [])], 0), 17)
