"""What was fetched is cut into pieces, and nothing of it is lost."""

import hypothesis
import hypothesis.strategies as st

from streams.kafka.several import Fetched
from streams.view.slices import SLICE_BYTES, SLICE_RECORDS, last_of_each_key, sliced
from tests.unit.view.records import Kept


def fetched(partition: int, count: int, size_bytes: int = 1) -> Fetched:
    records = [Kept(b"key", b"x" * size_bytes, offset=2 * number) for number in range(count)]
    return Fetched("t", partition, records, 2 * count + 7, 10_000)


def test_of_each_key_the_last_record_is_left_in_the_order_of_offsets() -> None:
    records = [Kept(key, b"", number) for number, key in enumerate([b"a", b"b", b"a", b"c", b"b"])]
    assert [record.offset for record in last_of_each_key(records)] == [2, 3, 4]


def test_an_answer_without_records_says_where_the_ends_are() -> None:
    answer = [fetched(0, 0), fetched(1, 0)]
    assert list(sliced(answer)) == [answer]


@hypothesis.given(counts=st.lists(st.integers(0, 3 * SLICE_RECORDS), min_size=1, max_size=3))
@hypothesis.settings(max_examples=25)
def test_pieces_are_small_and_together_they_are_all_there_was(counts: list[int]) -> None:
    answer = [fetched(partition, count) for partition, count in enumerate(counts)]
    pieces = list(sliced(answer))
    assert max(sum(len(each.records) for each in piece) for piece in pieces) <= SLICE_RECORDS
    for partition, whole in enumerate(answer):
        parts = [each for piece in pieces for each in piece if each.partition == partition]
        assert [record for part in parts for record in part.records] == whole.records
        assert parts[-1].next_offset == whole.next_offset
        for part in parts[:-1]:  # goes on after its last record, and not before
            assert part.next_offset == part.records[-1].offset + 1


def test_few_large_records_are_many_pieces() -> None:
    pieces = list(sliced([fetched(0, 6, SLICE_BYTES // 2)]))
    assert [len(piece[0].records) for piece in pieces] == [2, 2, 2]
