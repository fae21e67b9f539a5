"""The states of a batch are a table, and the port in memory fails where it is told to."""

from itertools import product

import pytest

from streams.kafka.errors import FencedError, UnconfirmedBatchError
from streams.kafka.memory import MemoryLog, MemoryRecord, MemoryWriter
from streams.kafka.ports import Record
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


class LostError(Exception):
    pass


@pytest.mark.parametrize(
    ("step", "visible"),
    [
        pytest.param("commit", 0, id="before it is written"),
        pytest.param("committed", 1, id="written, and the answer is lost"),
    ],
)
async def test_a_failed_commit_is_reported_whatever_became_of_it(step: str, visible: int) -> None:
    log = MemoryLog()

    def trouble(at: str) -> None:
        if at == step:
            raise LostError

    writer = MemoryWriter(log, 0, trouble)
    await writer.fence()
    batch = writer.batch()
    batch.produce(Record("tasks", 0, b"a", b"1"))
    with pytest.raises(UnconfirmedBatchError):
        await batch.commit()
    assert batch.at is At.DISCARDED
    assert len(log.records("tasks", 0)) == visible
    with pytest.raises(AssertionError):
        writer.batch()  # not before it has fenced again


async def test_the_append_time_is_the_logs_and_a_commit_leaves_a_gap_behind_it() -> None:
    log = MemoryLog()
    writer = MemoryWriter(log, 0)
    await writer.fence()
    for log.now_ms in (10, 20):
        batch = writer.batch()
        batch.produce(Record("tasks", 0, b"a", b"1"))
        await batch.commit()
    assert log.records("tasks", 0) == [
        MemoryRecord(0, 10, b"a", b"1"),
        MemoryRecord(2, 20, b"a", b"1"),
    ]
    assert log.end_offset("tasks", 0) == 4


async def test_a_zombie_is_told_so() -> None:
    log = MemoryLog()
    zombie, owner = MemoryWriter(log, 0), MemoryWriter(log, 0)
    await zombie.fence()
    await owner.fence()
    with pytest.raises(FencedError):
        await zombie.batch().commit()
