"""Over memory and disk there is one order, and what is taken first is what came first."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from streams.client import spool as spool_module
from streams.client.backlog import Backlog
from streams.client.spool import SPOOL_BYTES_MAX, About, Item, Spool

TOPIC = "stoploss.events"


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def item(number: int) -> Item:
    return Item(b"TASK-1", msgspec.json.encode({"subject": "TASK-1", "data": number}))


def numbers(found: list[Item]) -> list[int]:
    return [msgspec.json.decode(one.value)["data"] for one in found]


def make(tmp_path: Path, clock: Clock, *, spool_bytes_max: int = SPOOL_BYTES_MAX) -> Backlog:
    about = About(source="enforcer/2", topic=TOPIC)
    return Backlog(tmp_path, "0002-mine", about, monotonic_s=clock, spool_bytes_max=spool_bytes_max)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def backlog(tmp_path: Path, clock: Clock) -> Iterator[Backlog]:
    backlog = make(tmp_path, clock)
    yield backlog
    backlog.abandon()


def fill(backlog: Backlog, first: int, last: int) -> None:
    for number in range(first, last + 1):
        backlog.append(item(number))


def drain(backlog: Backlog, at_once: int = 3) -> list[int]:
    found: list[int] = []
    while taken := backlog.peek(at_once, 1_000_000):
        backlog.drop(len(taken))
        found += numbers(taken)
    return found


def test_memory_stays_in_memory_while_kafka_is_quick(backlog: Backlog, clock: Clock) -> None:
    fill(backlog, 1, 5)
    clock.now_s += 0.9
    backlog.spill(older_than_s=1.0)
    assert (backlog.memory_count, backlog.spooled_count) == (5, 0)
    assert drain(backlog) == [1, 2, 3, 4, 5]
    assert (backlog.memory_count, backlog.memory_bytes) == (0, 0)


def test_what_waits_too_long_goes_to_disk_and_all_later_ones_behind_it(
    backlog: Backlog, clock: Clock
) -> None:
    fill(backlog, 1, 3)
    clock.now_s += 1.1
    backlog.spill(older_than_s=1.0)
    fill(backlog, 4, 5)
    backlog.spill(older_than_s=1.0)
    assert (backlog.memory_count, backlog.spooled_count) == (0, 5)
    fill(backlog, 6, 7)
    assert drain(backlog) == [1, 2, 3, 4, 5, 6, 7]


def test_a_round_that_is_under_way_may_move_to_disk(backlog: Backlog, clock: Clock) -> None:
    fill(backlog, 1, 4)
    taken = backlog.peek(2, 1_000_000)
    clock.now_s += 1.1
    backlog.spill(older_than_s=1.0)
    backlog.drop(len(taken))
    assert (numbers(taken), drain(backlog)) == ([1, 2], [3, 4])
    assert backlog.done_count == backlog.appended_count == 4


def test_a_round_that_is_under_way_may_move_into_several_segments(
    backlog: Backlog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES_MAX", 60)
    fill(backlog, 1, 6)
    taken = backlog.peek(4, 1_000_000)
    clock.now_s += 1.1
    backlog.spill(older_than_s=1.0)
    backlog.drop(len(taken))
    assert (numbers(taken), drain(backlog)) == ([1, 2, 3, 4], [5, 6])


def test_what_the_disk_has_no_room_for_stays_in_memory_in_order(
    tmp_path: Path, clock: Clock
) -> None:
    backlog = make(tmp_path, clock, spool_bytes_max=item(1).size_bytes * 2)
    fill(backlog, 1, 5)
    clock.now_s += 1.1
    backlog.spill(older_than_s=1.0)
    assert (backlog.spooled_count, backlog.memory_count) == (2, 3)
    assert drain(backlog) == [1, 2, 3, 4, 5]
    backlog.close()


def test_the_predecessors_come_first_the_oldest_before(tmp_path: Path, clock: Clock) -> None:
    for name, number in (("0001-b", 2), ("0000-a", 1)):
        left = Spool.create(tmp_path, name, About(source=name, topic=TOPIC))
        left.append([item(number)], 1_000_000)
        left.abandon()
    backlog = make(tmp_path, clock)
    fill(backlog, 3, 4)
    assert backlog.adopt() == 2
    assert drain(backlog) == [1, 2, 3, 4]
    assert [path.name for path in tmp_path.glob("[!.]*")] == []
    backlog.close()


def test_closing_leaves_everything_on_disk_for_the_next(tmp_path: Path, clock: Clock) -> None:
    backlog = make(tmp_path, clock)
    fill(backlog, 1, 3)
    backlog.close()
    following = make(tmp_path, clock)
    assert (following.adopt(), drain(following)) == (3, [1, 2, 3])
    following.close()


def test_damaged_lines_are_waited_for_by_nobody(tmp_path: Path, clock: Clock) -> None:
    left = Spool.create(tmp_path, "0001-a", About(source="a", topic=TOPIC))
    left.append([item(1), item(2)], 1_000_000)
    left.abandon()
    (segment,) = left.folder.glob("*.spool")
    segment.write_bytes(segment.read_bytes().replace(b":1}", b":9}"))
    backlog = make(tmp_path, clock)
    backlog.adopt()
    assert drain(backlog) == [2]
    assert (backlog.damaged_count, backlog.done_count) == (1, backlog.appended_count)
    backlog.close()


def test_without_a_spool_it_is_a_queue_in_memory(clock: Clock) -> None:
    about = About(source="enforcer/2", topic=TOPIC)
    backlog = Backlog(None, "0002-mine", about, monotonic_s=clock)
    fill(backlog, 1, 3)
    clock.now_s += 100
    backlog.spill(older_than_s=1.0)
    assert (backlog.adopt(), backlog.spooled_count, drain(backlog)) == (0, 0, [1, 2, 3])
