"""What is committed is never beyond a record that is not done, whatever gets lost on the way."""

from dataclasses import dataclass

import pytest
from faust.types import TP
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streams.agents.positions import Positions

A, B = TP("in", 0), TP("in", 1)


@dataclass(eq=False)
class Record:
    """One that was fetched: the same offset, fetched again, is another one."""

    tp: TP
    offset: int


def opened(*tps: TP, at: int = 0) -> Positions:
    positions = Positions()
    positions.open(tps)
    for tp in tps:
        positions.start(tp, at)
    return positions


def handed(positions: Positions, *offsets: int, tp: TP = A) -> list[Record]:
    records = [Record(tp, offset) for offset in offsets]
    for record in records:
        positions.hand(record)
    return records


def test_a_partition_is_done_up_to_its_first_record_that_is_not() -> None:
    positions = opened(A, B, at=10)
    first, second, third = handed(positions, 10, 11, 15)
    positions.reach(A, 20)
    assert positions.done() == {A: 10, B: 10}
    positions.finish(second)
    assert positions.done() == {A: 10, B: 10}
    positions.finish(first)
    assert positions.done() == {A: 15, B: 10}
    positions.finish(third)
    assert positions.done() == {A: 20, B: 10}
    assert positions.places() == {A: 20, B: 10}


def test_what_got_lost_on_the_way_is_never_passed() -> None:
    positions = opened(A)
    first, _lost, third = handed(positions, 0, 1, 2)
    positions.reach(A, 9)
    positions.finish(first)
    positions.finish(third)
    assert positions.done() == {A: 1}


def test_markers_alone_are_passed_at_once() -> None:
    positions = opened(A)
    positions.reach(A, 7)
    assert positions.uncommitted() == {A: 7}


def test_nothing_is_done_before_it_is_known_where_the_group_has_committed() -> None:
    positions = Positions()
    positions.open({A})
    assert positions.places() == {A: None}
    assert positions.uncommitted() == {}


def test_a_batch_that_is_open_when_the_group_moves_may_end_and_no_other_may_begin() -> None:
    positions = opened(A)
    first, second = handed(positions, 0, 1)
    assert positions.is_current(first)
    positions.close()
    assert not positions.is_current(second)
    assert positions.places() == {}
    positions.finish(first)
    assert positions.uncommitted() == {A: 1}


def test_a_record_of_an_earlier_term_is_not_the_one_that_was_read_again() -> None:
    positions = opened(A)
    (before,) = handed(positions, 0)
    positions.open({A})
    positions.start(A, 0)
    (again,) = handed(positions, 0)
    assert not positions.is_current(before)
    positions.finish(before)
    assert positions.done() == {A: 0}
    assert positions.is_current(again)
    positions.finish(again)
    assert positions.done() == {A: 1}
    assert not positions.is_current(again)


def test_what_is_committed_is_not_committed_again_in_the_same_term() -> None:
    positions = opened(A, at=3)
    term, offsets = positions.term, positions.uncommitted()
    positions.committed(offsets, term)
    assert positions.uncommitted() == {}
    positions.open({A})
    positions.start(A, 3)
    positions.committed(offsets, term)
    assert positions.uncommitted() == {A: 3}, "an answer from before the group moved says nothing"


def test_a_log_that_was_made_anew_is_read_from_where_it_begins() -> None:
    positions = opened(A, at=50)
    handed(positions, 50)
    positions.start(A, 0)
    assert positions.done() == {A: 0}
    assert positions.places() == {A: 0}


@pytest.mark.parametrize(
    "offset",
    [pytest.param(4, id="handed on before"), pytest.param(0, id="before the start")],
)
def test_going_back_unasked_is_a_defect(offset: int) -> None:
    positions = opened(A, at=4)
    handed(positions, 4)
    with pytest.raises(AssertionError):
        positions.hand(Record(A, offset))
    with pytest.raises(AssertionError):
        positions.reach(A, offset)


class Worker(RuleBasedStateMachine):
    """One worker after the other on one log, where every step may be the last of its term.

    An offset is a record or a marker. A fetch waits while others go on, records are dropped between
    being handed on and the queue, batches end after the group has moved, and a commit arrives late.
    """

    def __init__(self) -> None:
        super().__init__()
        self.positions = Positions()
        self.log: list[bool] = []  # whether there is a record
        self.done: set[int] = set()  # the truth, of all terms
        self.committed = 0
        self.fetched: tuple[int, list[Record], int] | None = None  # term, records, reached
        self.queue: list[Record] = []
        self.batch: list[Record] = []
        self.late: tuple[dict[TP, int], int] | None = None

    @initialize(log=st.lists(st.booleans(), min_size=1, max_size=12))
    def log_begins(self, log: list[bool]) -> None:
        self.log = log

    @rule(more=st.lists(st.booleans(), min_size=1, max_size=4))
    def log_grows(self, more: list[bool]) -> None:
        self.log += more

    @precondition(lambda self: not self.positions.is_open)
    @rule()
    def group_gives(self) -> None:
        self.queue.clear()
        self.positions.open({A})

    @precondition(lambda self: self.positions.is_open)
    @rule()
    def group_takes(self) -> None:
        self.positions.close()
        if not self.batch:
            self.group_is_left()

    @precondition(lambda self: not self.positions.is_open)
    @rule()
    def group_is_left(self) -> None:
        """Also while a batch is open, which took too long."""
        self.positions.forget()

    @precondition(lambda self: self.positions.is_open and self.fetched is None)
    @rule(count=st.integers(1, 5))
    def fetch(self, count: int) -> None:
        place = self.positions.places()[A]
        if place is None:
            place = self.committed
            self.positions.start(A, place)
        reached = min(place + count, len(self.log))
        records = [Record(A, at) for at in range(place, reached) if self.log[at]]
        self.fetched = self.positions.term, records, reached

    @precondition(lambda self: self.fetched is not None)
    @rule(lost=st.sets(st.integers(0, 4), max_size=1), stops_after=st.integers(0, 8))
    def hand_on(self, lost: set[int], stops_after: int) -> None:
        assert self.fetched is not None
        (term, records, reached), self.fetched = self.fetched, None
        if term != self.positions.term or not self.positions.is_open:
            return
        for index, record in enumerate(records):
            if index == stops_after:
                self.positions.close()
                return
            self.positions.hand(record)
            if index not in lost:
                self.queue.append(record)
        self.positions.reach(A, reached)

    @precondition(lambda self: self.positions.is_open and self.fetched is None)
    @rule(count=st.integers(1, 5), lost=st.sets(st.integers(0, 4), max_size=1))
    def read(self, count: int, lost: set[int]) -> None:
        self.fetch(count)
        self.hand_on(lost, 9)

    @precondition(lambda self: self.queue and not self.batch)
    @rule(count=st.integers(1, 5))
    def batch_begins(self, count: int) -> None:
        taken, self.queue = self.queue[:count], self.queue[count:]
        self.batch = [record for record in taken if self.positions.is_current(record)]

    @precondition(lambda self: self.batch)
    @rule()
    def batch_ends(self) -> None:
        for record in self.batch:
            self.done.add(record.offset)
            self.positions.finish(record)
        self.batch = []

    @rule()
    def commit(self) -> None:
        self.commit_begins()
        self.commit_arrives()

    @rule()
    def commit_begins(self) -> None:
        self.late = self.positions.uncommitted(), self.positions.term

    @precondition(lambda self: self.late is not None)
    @rule()
    def commit_arrives(self) -> None:
        assert self.late is not None
        (offsets, term), self.late = self.late, None
        self.committed = offsets.get(A, self.committed)
        self.positions.committed(offsets, term)

    @invariant()
    def nothing_is_committed_beyond_a_record_that_is_not_done(self) -> None:
        passed = {at for at in range(self.committed) if self.log[at]}
        assert passed <= self.done

    def teardown(self) -> None:
        """Undisturbed, it comes to the end."""
        self.positions.forget()
        self.fetched, self.batch, self.queue = None, [], []
        if not self.log:
            return
        self.group_gives()
        while self.committed < len(self.log):
            self.read(3, set())
            if self.queue:
                self.batch_begins(5)
                self.batch_ends()
            self.commit()
        assert self.done == {at for at, is_record in enumerate(self.log) if is_record}


TestAnyOrder = Worker.TestCase
TestAnyOrder.settings = settings(
    max_examples=200, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)
