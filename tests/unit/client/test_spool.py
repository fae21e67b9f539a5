"""A spool is a queue in files: nothing lost, nothing out of order, whatever cut it short."""

import resource
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from streams.client import spool as spool_module
from streams.client.spool import About, Item, Spool, decode_line, encode_line, left_over

TOPIC = "stoploss.events"
ABOUT = About(source="enforcer/1", topic=TOPIC)
ROOM = 10_000_000


def item(number: int, *, size_bytes: int = 0) -> Item:
    root = f"TASK-{number % 3}"
    value = {"subject": root, "data": number, "filling": "x" * size_bytes}
    return Item(root.encode(), msgspec.json.encode(value))


def items(first: int, last: int) -> list[Item]:
    return [item(number) for number in range(first, last + 1)]


def drained(spool: Spool) -> list[Item]:
    found = []
    while taken := spool.peek(7, ROOM):
        spool.drop(len(taken))
        found += taken
    return found


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool.create(tmp_path / "spool", "0001-mine", ABOUT)
    yield spool
    spool.abandon()


def adopted(spool: Spool) -> Spool:
    """As after the death of its emitter: the lock is gone, the files are there."""
    spool.abandon()
    taken = Spool.adopt(spool.folder, TOPIC)
    assert taken is not None
    return taken


def test_what_goes_in_comes_out_in_order(spool: Spool) -> None:
    spool.append(items(1, 50), ROOM)
    first = spool.peek(20, ROOM)
    spool.drop(20)
    spool.append(items(51, 60), ROOM)
    assert first + drained(spool) == items(1, 60)
    assert (spool.count, spool.size_bytes) == (0, 0)


def test_peeking_removes_nothing(spool: Spool) -> None:
    spool.append(items(1, 5), ROOM)
    assert spool.peek(3, ROOM) == spool.peek(3, ROOM) == items(1, 3)


def test_at_least_one_event_is_given_however_large(spool: Spool) -> None:
    spool.append([item(1, size_bytes=5_000), item(2)], ROOM)
    assert spool.peek(10, 100) == [item(1, size_bytes=5_000)]


def test_a_read_part_of_the_segment_that_is_written_is_no_end(spool: Spool) -> None:
    spool.append(items(1, 2), ROOM)
    assert drained(spool) == items(1, 2)
    spool.append(items(3, 4), ROOM)
    assert drained(spool) == items(3, 4)


def test_order_holds_over_segments_and_done_ones_disappear(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES_MAX", 300)
    spool.append(items(1, 40), ROOM)
    segments = len(list(spool.folder.glob("*.spool")))
    assert segments > 5
    assert drained(spool) == items(1, 40)
    assert list(spool.folder.glob("*.spool")) == []


def test_the_next_emitter_finds_all_of_it(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES_MAX", 300)
    spool.append(items(1, 40), ROOM)
    left = adopted(spool)
    assert (left.count, drained(left)) == (40, items(1, 40))
    left.close()
    assert not spool.folder.exists()


def test_an_orderly_end_repeats_nothing(spool: Spool) -> None:
    spool.append(items(1, 5), ROOM)
    spool.peek(4, ROOM)
    spool.drop(2)
    spool.close()
    left = Spool.adopt(spool.folder, TOPIC)
    assert left is not None
    assert (left.count, drained(left)) == (3, items(3, 5))
    left.close()
    assert not spool.folder.exists()


@pytest.mark.parametrize("cut_bytes", [1, 5, 40], ids="{} bytes are missing".format)
def test_a_torn_last_line_costs_that_event_only(spool: Spool, cut_bytes: int) -> None:
    spool.append(items(1, 3), ROOM)
    (segment,) = spool.folder.glob("*.spool")
    segment.write_bytes(segment.read_bytes()[:-cut_bytes])
    left = adopted(spool)
    assert (left.count, drained(left), left.count) == (2, items(1, 2), 0)
    assert left.damaged_count == 1
    left.close()
    assert not spool.folder.exists()


def test_a_damaged_line_costs_that_event_only(spool: Spool) -> None:
    spool.append(items(1, 3), ROOM)
    (segment,) = spool.folder.glob("*.spool")
    segment.write_bytes(segment.read_bytes().replace(b'"data":2', b'"data":7'))
    left = adopted(spool)
    assert (drained(left), left.damaged_count, left.count) == ([item(1), item(3)], 1, 0)


def test_a_spool_of_nothing_but_damage_disappears(spool: Spool) -> None:
    spool.append(items(1, 1), ROOM)
    (segment,) = spool.folder.glob("*.spool")
    segment.write_bytes(b"no line of ours\r\nnor this\n")
    left = adopted(spool)
    assert (drained(left), left.damaged_count, left.count) == ([], 2, 0)
    left.close()
    assert not spool.folder.exists()


def test_what_finds_no_room_is_not_written_and_what_does_is(spool: Spool) -> None:
    room_bytes = sum(len(encode_line(one)) for one in items(1, 4))
    assert spool.append(items(1, 9), room_bytes) == 4
    assert drained(spool) == items(1, 4)


def test_a_full_disk_leaves_no_half_a_line(spool: Spool) -> None:
    spool.append(items(1, 2), ROOM)
    (segment,) = spool.folder.glob("*.spool")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (segment.stat().st_size + 20, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            spool.append(items(3, 4), ROOM)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    spool.append(items(3, 4), ROOM)
    assert drained(spool) == items(1, 4)


def test_it_is_for_our_eyes_only(spool: Spool) -> None:
    spool.append(items(1, 1), ROOM)
    root = spool.folder.parent
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in root.rglob("*")}
    assert modes == {
        ".gitignore": "0o600",
        "0001-mine": "0o700",
        "0000000001.spool": "0o600",
        "about.json": "0o600",
        "lock": "0o600",
    }
    assert oct(root.stat().st_mode & 0o777) == "0o700"
    assert "*" in (root / ".gitignore").read_text().splitlines()


def test_a_living_emitters_spool_is_left_alone(spool: Spool) -> None:
    spool.append(items(1, 3), ROOM)
    assert list(left_over(spool.folder.parent, TOPIC)) == []
    assert drained(spool) == items(1, 3)


def test_a_spool_for_another_topic_is_left_alone(spool: Spool) -> None:
    spool.append(items(1, 3), ROOM)
    spool.abandon()
    assert list(left_over(spool.folder.parent, "other.events")) == []
    assert [left.count for left in left_over(spool.folder.parent, TOPIC)] == [3]


def test_the_oldest_spool_is_first(tmp_path: Path) -> None:
    for name in ("0003-c", "0001-a", "0002-b"):
        left = Spool.create(tmp_path, name, ABOUT)
        left.append(items(1, 1), ROOM)
        left.abandon()
    assert [left.folder.name for left in left_over(tmp_path, TOPIC)] == [
        "0001-a",
        "0002-b",
        "0003-c",
    ]


@pytest.mark.parametrize(
    "line", [b"", b"zzzzzzzz {}", b"00000000 {}", encode_line(item(1))[:-3], b"0" * 8 + b" 17"]
)
def test_a_line_that_is_none_of_ours_is_no_event(line: bytes) -> None:
    assert decode_line(line) is None


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b'{"subject":"TASK-1","partitionkey":"TASK-0"}', b"TASK-0"),
        (b'{"subject":"TASK-1"}', b"TASK-1"),
    ],
    ids=["of the family's root", "of the task itself"],
)
def test_the_kafka_key_is_in_the_value(value: bytes, key: bytes) -> None:
    assert decode_line(encode_line(Item(key, value))[:-1]) == Item(key, value)
