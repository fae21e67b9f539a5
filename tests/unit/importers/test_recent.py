"""Bounded memory of what was seen."""

from streams.importers.recent import RecentKeys


def test_a_key_is_new_once() -> None:
    keys = RecentKeys()
    assert [keys.add("a"), keys.add("a"), keys.add("b")] == [True, False, True]
    assert "a" in keys
    assert "c" not in keys


def test_at_least_the_last_ones_are_remembered_and_at_most_twice_as_many() -> None:
    keys = RecentKeys(10)
    for index in range(100):
        assert keys.add(index)
    assert all(index in keys for index in range(90, 100))
    assert sum(index in keys for index in range(100)) <= 20
