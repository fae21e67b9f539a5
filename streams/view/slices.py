"""What was fetched, cut into pieces that Redis takes quickly. Pure.

While a piece is written Redis answers nobody; after five seconds it would say that it is busy.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from streams.kafka.ports import RawRecord
from streams.kafka.several import Fetched

SLICE_RECORDS = 2_000
SLICE_BYTES = 4 * 1024 * 1024


def last_of_each_key(records: Iterable[RawRecord]) -> list[RawRecord]:
    """Return the last record of each key, in the order of their offsets.

    A task's state comes with each batch that touches it: mostly one in ten is left.
    """
    last: dict[bytes | None, RawRecord] = {}
    for record in records:
        last.pop(record.key, None)
        last[record.key] = record
    return list(last.values())


def sliced(fetched: Iterable[Fetched]) -> Iterator[list[Fetched]]:
    """Yield what was fetched in pieces; there is one at least, if only to say where the ends are."""
    piece: list[Fetched] = []
    count = size_bytes = 0
    for each in fetched:
        start = 0
        for index, record in enumerate(each.records):
            if count >= SLICE_RECORDS or size_bytes >= SLICE_BYTES:
                if index > start:
                    piece.append(_part(each, each.records[start:index]))
                yield piece
                piece, count, size_bytes, start = [], 0, 0, index
            count += 1
            size_bytes += len(record.value or b"")
        piece.append(msgspec.structs.replace(each, records=each.records[start:]))
    yield piece


def _part(fetched: Fetched, records: Sequence[RawRecord]) -> Fetched:
    """Return a part that is not the last: what follows it is read after it."""
    return msgspec.structs.replace(fetched, records=records, next_offset=records[-1].offset + 1)
