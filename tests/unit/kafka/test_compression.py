"""Batches are compressed fast, single large records as small as can be; both read as ever."""

from random import Random

import aiokafka.codec
import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from streams.kafka.compression import BUILDER_BYTES, LEVEL, LEVEL_ALONE
from streams.kafka.producers import RECORD_BYTES_MAX, fits


def words(size_bytes: int) -> bytes:
    """Text of which both levels make something, and not the same."""
    random = Random(1)
    return b" ".join(b"%d" % random.randrange(1_000) for _ in range(size_bytes // 3))[:size_bytes]


def built(value: bytes) -> bytes:
    """The bytes of a record batch with one record, as a producer sends it."""
    builder = DefaultRecordBatchBuilder(2, 3, 1, 7, 0, 0, 2 * BUILDER_BYTES)
    assert builder.append(0, 0, b"TASK-1", value, []) is not None
    return bytes(builder.build())


@pytest.mark.parametrize(
    ("size_bytes", "level"),
    [
        pytest.param(10_000, LEVEL, id="a batch"),
        pytest.param(BUILDER_BYTES + 1, LEVEL_ALONE, id="larger than any batch: one record"),
    ],
)
def test_a_builder_compresses_at_the_level_of_its_size(size_bytes: int, level: int) -> None:
    value = words(size_bytes)
    (plain,) = list(DefaultRecordBatch(bytearray(built(value))))
    assert (plain.key, plain.value) == (b"TASK-1", value)
    sizes = {one: len(aiokafka.codec.lz4_encode(value, one)) for one in (LEVEL, LEVEL_ALONE)}
    assert sizes[LEVEL] > sizes[LEVEL_ALONE] * 1.02
    around_bytes = len(built(b"")) + 16
    assert abs(len(built(value)) - sizes[level]) < around_bytes


def test_what_fits_is_what_a_record_of_its_own_takes() -> None:
    value = words(6 * BUILDER_BYTES)
    assert len(aiokafka.codec.lz4_encode(value, LEVEL)) > RECORD_BYTES_MAX
    assert fits(value)
