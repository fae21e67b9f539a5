"""How far a view is, and how old what it shows."""

from streams.kafka.several import Fetched
from streams.view.meta import State
from streams.view.progress import Advance, Progress, Reach
from tests.unit.view.records import Kept

AT_MS = 1_795_000_000_000


def progress(state: State = State.FOLLOWING, **reaches: Reach) -> Progress:
    return Progress(reaches, state=state, began_ms=AT_MS - 500, at_ms=AT_MS)


def fetched(next_offset: int, end_offset: int, *written_ms: int) -> tuple[str, Fetched]:
    records = [Kept(b"key", b"value", timestamp=at_ms) for at_ms in written_ms]
    return "a", Fetched("t.a", 0, records, next_offset, end_offset)


def test_a_read_moves_from_the_position_in_redis_to_where_it_ended() -> None:
    now = progress(a=Reach(5, 5, 5, stored=5))
    advance = now.advance([fetched(8, 9, AT_MS)], AT_MS + 1)
    assert advance == Advance({"a": 8}, {"at_ms": str(AT_MS + 1)}, {"a": f"9 {AT_MS}"})
    now.confirm(advance)
    assert now.lag == 1
    assert now.advance([fetched(8, 9)], AT_MS + 2) == Advance({}, {"at_ms": str(AT_MS + 2)}, {})


def test_where_retention_has_deleted_what_comes_next_the_position_skips_it() -> None:
    now = progress(a=Reach(30, 40, 40, stored=20))
    assert now.advance([fetched(30, 40)], AT_MS).positions == {"a": 30}


def test_what_is_shown_is_as_old_as_the_last_answer_where_nothing_is_missing() -> None:
    now = progress(a=Reach(5, 5, 5, stored=5, newest_ms=AT_MS - 99_000))
    assert now.shown_ms == AT_MS


def test_what_is_shown_is_as_old_as_the_newest_record_of_whoever_is_behind() -> None:
    behind = Reach(5, 6, 5, stored=5, newest_ms=AT_MS - 99_000)
    now = progress(a=behind, b=Reach(7, 7, 7, stored=7, newest_ms=AT_MS - 500_000))
    assert now.shown_ms == AT_MS - 99_000


def test_a_rebuild_has_ended_when_all_is_there_that_was_written_before_it() -> None:
    now = progress(State.REBUILDING, a=Reach(0, 5, 5, stored=None), b=Reach(3, 3, 3, stored=3))
    first = now.advance([fetched(4, 9, AT_MS)], AT_MS)
    now.confirm(first)
    assert (now.state, now.shown_ms) == (State.REBUILDING, None)
    last = now.advance([fetched(5, 9, AT_MS)], AT_MS + 1_000)
    assert last.meta == {
        "at_ms": str(AT_MS + 1_000), "state": "following", "rebuilt_ms": str(AT_MS + 1_000)
    }  # fmt: skip
    now.confirm(last)
    assert (now.state, now.rebuilt_in_ms) == (State.FOLLOWING, 1_500)


def test_a_piece_of_an_answer_does_not_say_that_the_rest_is_there() -> None:
    now = progress(a=Reach(5, 5, 5, stored=5), b=Reach(7, 7, 7, stored=7))
    first = now.advance([fetched(8, 8, AT_MS + 900)], None)
    assert first.meta == {"at_ms": str(AT_MS)}
    now.confirm(first)
    assert now.shown_ms == AT_MS
