"""The states of a batch are a table."""

from itertools import product

import pytest

from streams.kafka.session import MOVES, At, States


@pytest.mark.parametrize(("start", "to"), list(product(At, At)))
def test_a_batch_moves_only_as_the_table_says(start: At, to: At) -> None:
    states = States()
    states.at = start
    if to in MOVES[start]:
        states.move(to)
        assert states.at is to
    else:
        with pytest.raises(AssertionError, match=f"{start.value} cannot be {to.value}"):
            states.move(to)
        assert states.at is start


def test_every_state_but_the_open_ones_is_an_end() -> None:
    assert {at for at in At if not MOVES[at]} == {At.COMMITTED, At.ABORTED, At.DISCARDED}
