"""What the simulated cleaner removes, and what it must leave."""

import pytest

from tests.simulation.compaction import Cleaner
from tests.simulation.log import Fate, Partition, Transaction, newest
from tests.simulation.network import Sender

# A record is `key=value`, or `key=` for its deletion.
Written = str


def written(log: Partition, *records: Written, transaction: Transaction | None = None) -> None:
    for record in records:
        key, _, value = record.partition("=")
        log.append(0, key.encode(), value.encode() or None, transaction=transaction)


def ended(log: Partition, transaction: Transaction, fate: Fate) -> None:
    transaction.fate = fate
    log.mark(transaction)


def left(log: Partition) -> list[tuple[int, Written]]:
    """Return what stands in the log, with its offsets."""
    return [
        (one.offset, f"{(one.key or b'').decode()}={(one.value or b'').decode()}")
        for one in log.records
    ]


@pytest.fixture
def log() -> Partition:
    return Partition()


def test_what_is_superseded_goes_and_the_rest_keeps_its_offsets(log: Partition) -> None:
    written(log, "a=1", "b=1", "a=2", "c=1", "a=3")
    cleaned = Cleaner(log).clean()
    assert left(log) == [(1, "b=1"), (3, "c=1"), (4, "a=3")]
    assert cleaned.superseded == [0, 2]
    assert log.end == 5
    assert [one.offset for one in log.ever_committed()] == [0, 1, 2, 3, 4]
    assert newest(log.committed()) == newest(log.ever_committed())


def test_the_newest_segment_is_not_looked_at(log: Partition) -> None:
    written(log, "a=1", "a=2", "a=3")
    Cleaner(log).clean(newest_kept=1)
    assert left(log) == [(1, "a=2"), (2, "a=3")]


def test_nothing_goes_from_the_first_open_transaction_on(log: Partition) -> None:
    transaction = Transaction()
    written(log, "a=1", "a=2")
    written(log, "a=3", transaction=transaction)
    written(log, "a=4", "a=5")
    Cleaner(log).clean()
    assert left(log) == [(1, "a=2"), (2, "a=3"), (3, "a=4"), (4, "a=5")]


@pytest.mark.parametrize(
    ("fate", "stand"),
    [(Fate.ABORTED, [(0, "a=1")]), (Fate.COMMITTED, [(1, "a=2")])],
)
def test_only_what_was_committed_supersedes(
    log: Partition, fate: Fate, stand: list[tuple[int, Written]]
) -> None:
    transaction = Transaction()
    written(log, "a=1")
    written(log, "a=2", transaction=transaction)
    ended(log, transaction, fate)
    Cleaner(log).clean()
    assert left(log) == stand


def test_a_deletion_goes_at_a_later_time_than_what_it_deletes(log: Partition) -> None:
    cleaner = Cleaner(log)
    written(log, "a=1", "a=")
    assert cleaner.clean(may_forget=True).deletions == []
    assert left(log) == [(1, "a=")]
    assert cleaner.clean(may_forget=False).deletions == []
    assert cleaner.clean(may_forget=True).deletions == [1]
    assert left(log) == []


def test_a_deletion_stays_for_whoever_began_before_it_was_seen(log: Partition) -> None:
    cleaner = Cleaner(log)
    early, late, dead = Sender("early"), Sender("late"), Sender("dead")
    written(log, "a=1", "a=")
    for sender in (early, dead):
        cleaner.restore_begins(sender)
    dead.is_alive = False
    cleaner.clean(may_forget=True)
    cleaner.restore_begins(late)
    assert cleaner.clean(may_forget=True).deletions == []
    cleaner.restore_ends(early)
    assert cleaner.clean(may_forget=True).deletions == [1]
