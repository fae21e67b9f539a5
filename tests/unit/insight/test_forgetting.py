"""What is listed is forgotten in its minute, whatever a crash has kept of a batch."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.insight import forgetting
from streams.insight.forgetting import Kept, Listed, forget, forget_early, list_at


def look_of(kept: Kept) -> forgetting.Look:
    """Each entry is the minute in which it is to be forgotten."""

    def look(task_id: str, _minute: int) -> int | None:
        found: int | None = kept.get(f"task/{task_id}")
        return found

    return look


def forget_to(kept: Kept, first: int, before: int) -> int:
    def forget_one(task_id: str) -> None:
        del kept[f"task/{task_id}"]

    return forget(kept, first, before, look_of(kept), forget_one)


def two_lists() -> Kept:
    kept: Kept = {"task/A": 5, "task/B": 5, "task/C": 7}
    for task_id, minute in (("A", 5), ("B", 5), ("B", 5), ("C", 6)):
        list_at(kept, task_id, minute)
    return kept


def test_each_is_forgotten_in_its_minute_and_its_list_a_batch_later() -> None:
    kept = two_lists()
    assert forget_to(kept, 4, 5) == 5
    assert "task/A" in kept
    assert forget_to(kept, 5, 6) == 5
    assert [key for key in kept if key.startswith("task/")] == ["task/C"]
    assert forget_to(kept, 5, 6) == 6
    assert forget_to(kept, 6, 7) == 6, "it has moved to a later list"
    assert forget_to(kept, 6, 7) == 7
    assert "task/C" in kept
    forget_to(kept, 7, 9)
    assert forget_to(kept, 7, 9) == 9
    assert kept == {}


def test_a_batch_does_a_bounded_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "FORGOTTEN_MAX", 2)
    monkeypatch.setattr(forgetting, "MINUTES_MAX", 50)
    kept: Kept = {}
    for number in range(5):
        kept[f"task/{number}"] = number
        list_at(kept, f"{number}", number)
    assert forget_to(kept, 0, 1_000) == 0
    assert sum(key.startswith("task/") for key in kept) == 3
    first = 0
    for _ in range(60):
        first = forget_to(kept, first, 1_000)
    assert (first, kept) == (1_000, {})


def test_where_room_is_needed_the_first_on_the_lists_go() -> None:
    kept: Kept = {"task/A": 5, "task/B": 5, "task/C": 7}
    for task_id, minute in (("A", 5), ("B", 5), ("C", 6)):
        list_at(kept, task_id, minute)
    gone: list[str] = []

    def may(task_id: str) -> bool:
        gone.append(task_id)
        return task_id != "A"

    assert forget_early(kept, 5, may, 1) == 1
    assert gone == ["A", "B"]
    assert forget_early(kept, 5, may, 9) == 2


def prefixes(before: Kept, after: Kept) -> Iterator[Kept]:
    """What a crash may leave of a batch: its first changes in the order of the keys."""
    changed = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    for count in range(len(changed) + 1):
        left = dict(before)
        for key in changed[:count]:
            if key in after:
                left[key] = after[key]
            else:
                del left[key]
        yield left


@given(st.data())
def test_nothing_stays_for_ever_however_often_a_batch_is_cut_off(data: st.DataObject) -> None:
    kept: Kept = {}
    for number in range(6):
        minute = data.draw(st.integers(0, 4))
        kept[f"task/{number}"] = data.draw(st.integers(0, 9))
        list_at(kept, f"{number}", minute)
    first = 0
    for _ in range(40):
        after = dict(kept)
        next_minute = forget_to(after, first, 12)
        left = list(prefixes(kept, after))
        cut = data.draw(st.integers(0, len(left) - 1)) if data.draw(st.booleans()) else -1
        kept = left[cut]
        if cut == -1:
            first = next_minute
    for _ in range(30):
        first = forget_to(kept, first, 12)
    assert (first, kept) == (12, {})


def test_a_later_list_is_written_first() -> None:
    kept: Kept = {}
    list_at(kept, "A", 5)
    list_at(kept, "A", 6)
    assert [key for key, listed in kept.items() if listed == Listed(["A"])] == sorted(
        kept, reverse=True
    )
