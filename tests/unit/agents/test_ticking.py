"""A tick says a time before which nothing is left to read."""

from streams.agents.ticking import Overtaken
from streams.agents.watchdog import Place, Standing

A: Place = ("a", 0)
B: Place = ("b", 0)


def ticks(*looks: dict[Place, tuple[int, int]]) -> list[int | None]:
    """What is said at each look, asked at 100, 200, …; a place: next offset, end."""
    overtaken = Overtaken()
    return [
        overtaken.look(
            100 * number, {place: Standing(*standing) for place, standing in look.items()}
        )
        for number, look in enumerate(looks, 1)
    ]


def test_the_time_is_that_at_which_the_ends_were_noted() -> None:
    assert ticks({A: (5, 5)}, {A: (5, 5)}, {A: (5, 5)}) == [None, 100, 200]


def test_time_stands_still_while_anything_waits_that_was_there_then() -> None:
    assert ticks(
        {A: (0, 900), B: (0, 10)},
        {A: (400, 950), B: (10, 10)},
        {A: (899, 990), B: (10, 20)},
        {A: (900, 1_000), B: (10, 20)},
        {A: (999, 1_100), B: (20, 20)},
        {A: (1_000, 1_200), B: (20, 20)},
    ) == [None, None, None, 100, None, 400]


def test_under_a_steady_load_time_goes_on_although_something_always_waits() -> None:
    steady = [{A: (100 * second, 100 * second + 50)} for second in range(1, 6)]
    assert ticks(*steady) == [None, 100, 200, 300, 400]


def test_where_there_is_nothing_to_read_time_passes() -> None:
    assert ticks({}, {}, {}) == [None, 100, 200]


def test_a_partition_that_is_new_holds_nothing_up() -> None:
    assert ticks({A: (1, 1)}, {A: (1, 1), B: (0, 7)}, {A: (1, 1), B: (0, 7)}) == [None, 100, None]
