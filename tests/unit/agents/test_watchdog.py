"""A worker is replaced where something waits for it and it does not move, and for no other reason."""

from collections.abc import Mapping

import pytest

from streams.agents.watchdog import Place, Signs, Standing, Watchdog, next_stall_s

STALL_S = 30.0
IN: Place = ("in", 0)
OTHER: Place = ("in", 1)
Seen = tuple[int, int, set[Place], Mapping[Place, tuple[int, int]] | None]


def looked(*seen: Seen, every_s: float = 10.0) -> list[str | None]:
    """What the watchdog says at each look."""
    watchdog = Watchdog(0.0, STALL_S)
    answers = []
    for index, (beat, restored, owned, places) in enumerate(seen):
        standings = None
        if places is not None:
            standings = {place: Standing(*at) for place, at in places.items()}
        signs = Signs(beat, restored, frozenset(owned))
        answers.append(watchdog.look((index + 1) * every_s, signs, standings))
    return answers


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(lambda n: (n, 0, {IN}, {IN: (5, 5)}), id="nothing waits"),
        pytest.param(lambda n: (n, 0, {IN}, {IN: (n, 1_000)}), id="behind, but it moves"),
        pytest.param(lambda n: (n, n, {IN}, {IN: (5, 9)}), id="it restores"),
        pytest.param(lambda n: (n, 0, {OTHER}, {IN: (5, 9)}), id="what waits is another's"),
        pytest.param(lambda n: (n, 0, {IN}, None), id="Kafka does not answer"),
        pytest.param(
            lambda n: (n, 0, {IN}, {IN: (5, 9)} if n % 3 else {IN: (9, 9)}), id="it catches up"
        ),
        pytest.param(
            lambda n: (n, 0, {IN}, {IN: (5, 9)} if n % 3 else None), id="Kafka comes and goes"
        ),
    ],
)
def test_who_moves_is_left_alone(seen: object) -> None:
    assert callable(seen)
    assert set(looked(*(seen(n) for n in range(1, 30)))) == {None}


def test_who_does_not_answer_is_replaced() -> None:
    answers = looked(*((1, 0, set[Place](), None) for _ in range(6)))
    assert answers[:4] == [None] * 4
    assert answers[4] == "does not answer for 30 s"


def test_who_stands_still_while_something_waits_is_replaced() -> None:
    answers = looked(*((n, 0, {IN, OTHER}, {IN: (5, 9), OTHER: (n, 99)}) for n in range(7)))
    assert answers[:4] == [None] * 4
    assert answers[4] == "does not move: in partition 0 stands at 5, 4 behind, for 30 s"


def test_who_was_given_nothing_while_something_waits_is_replaced() -> None:
    answers = looked(*((n, 0, set[Place](), {IN: (5, 9)}) for n in range(7)))
    assert answers[4] == "does not move: in partition 0 stands at 5, 4 behind, for 30 s"


def test_the_end_of_a_restore_begins_the_time_anew() -> None:
    restoring = [(n, n, {IN}, {IN: (5, 9)}) for n in range(10)]
    still = [(n, 9, {IN}, {IN: (5, 9)}) for n in range(10, 20)]
    answers = looked(*restoring, *still)
    assert answers.index("does not move: in partition 0 stands at 5, 4 behind, for 30 s") == 13


def test_what_waits_is_never_less_than_nothing() -> None:
    assert (Standing(5, 9).lag, Standing(9, 5).lag) == (4, 0)


@pytest.mark.parametrize(
    ("stall_s", "got_going", "next_s"),
    [
        pytest.param(30, False, 60, id="it never got going: the next one has twice as long"),
        pytest.param(60, False, 120, id="nor did the next one"),
        pytest.param(240, False, 240, id="not longer than four minutes"),
        pytest.param(60, True, 30, id="it had got going, and then stood still"),
    ],
)
def test_who_never_got_going_is_followed_by_one_that_has_longer(
    stall_s: float, next_s: float, *, got_going: bool
) -> None:
    assert next_stall_s(stall_s, got_going=got_going) == next_s


@pytest.mark.parametrize(
    ("seen", "has"),
    [
        pytest.param([{IN: (5, 9)}, None, {IN: (6, 9)}], True, id="what waits for it is less"),
        pytest.param([{IN: (9, 9)}, {IN: (12, 12)}], True, id="what came is done by the next look"),
        pytest.param([{IN: (5, 9)}, {IN: (5, 99)}], False, id="what waits is only more"),
        pytest.param([{IN: (5, 9)}, {OTHER: (7, 9)}], False, id="another source is seen"),
        pytest.param([{OTHER: (5, 9)}, {OTHER: (7, 9)}], False, id="another's source moves"),
        pytest.param([None, {IN: (6, 9)}], False, id="nothing was seen to move"),
    ],
)
def test_who_has_moved_a_source_of_its_own_has_got_going(
    seen: list[dict[Place, tuple[int, int]] | None], *, has: bool
) -> None:
    watchdog = Watchdog(0.0, STALL_S)
    for beat, places in enumerate(seen):
        standings = None
        if places is not None:
            standings = {place: Standing(*at) for place, at in places.items()}
        # That it restores is no sign that it will ever begin.
        watchdog.look(float(beat), Signs(beat, beat, frozenset({IN})), standings)
    assert watchdog.got_going is has


def lived_s(stall_s: float, *, restores_s: int, begins_s: int) -> tuple[int, bool]:
    """How long a worker lives that needs so long to restore, and then to begin; whether it began."""
    watchdog = Watchdog(0.0, stall_s)
    for now_s in range(2, 1_000, 2):
        done = max(now_s - restores_s - begins_s, 0)
        signs = Signs(now_s, min(now_s, restores_s), frozenset({IN}))
        if watchdog.look(float(now_s), signs, {IN: Standing(done, 10_000)}) is not None:
            return now_s, watchdog.got_going
    return 1_000, watchdog.got_going


def test_a_restore_before_a_slow_beginning_is_not_taken_for_a_beginning() -> None:
    stall_s = STALL_S
    lives: list[tuple[int, bool]] = []
    while not lives or not lives[-1][1]:
        lives.append(lived_s(stall_s, restores_s=35, begins_s=40))
        stall_s = next_stall_s(stall_s, got_going=lives[-1][1])
        assert len(lives) < 8, "each is killed at the same place"
    assert lives == [(68, False), (1_000, True)]
