"""How hard record batches are compressed: as Kafka's own clients do it, fast.

Kafka calls its default level 9, and takes lz4's fast compressor for it (KIP-390). aiokafka gives the 9
to lz4, where it takes ten times as long for a fifth to a third less: of a task's state 30 µs, as much
as all else that is done for it. Its builder cannot be told otherwise.
"""

import sys

import aiokafka.codec
from aiokafka.record.default_records import DefaultRecordBatchBuilder

# Several records of one topic in one request; a larger batch is a single record, alone.
BUILDER_BYTES = 1024 * 1024
LEVEL = 1
# Of the largest, dead letters, as much as possible passes the broker: `fits` counts on it.
LEVEL_ALONE = 9


def lz4_encode(payload: bytes) -> bytes:
    """Return the records of a batch, or a value, as our producers compress them."""
    level = LEVEL if len(payload) <= BUILDER_BYTES else LEVEL_ALONE
    compressed: bytes = aiokafka.codec.lz4_encode(payload, level)
    return compressed


def compress_fast() -> None:
    """Have aiokafka's builder of batches, the compiled one or the other, compress by our function."""
    sys.modules[DefaultRecordBatchBuilder.__module__].__dict__["lz4_encode"] = lz4_encode
