"""What is drawn from a seed: the same again, and in eight decks as much as an hour has to show."""

import itertools
from collections import Counter

import pytest

from streams.kafka import failpoints
from tests.faults.faults import DECK, KINDS
from tests.faults.run import Step, drawn

DECK_STEPS = len(DECK) + len(failpoints.AGENT_POINTS) + -(-len(failpoints.COMMIT_POINTS) // 2)


def decks(seed: int, count: int) -> list[Step]:
    return list(itertools.islice(drawn(seed), count * DECK_STEPS))


def test_the_same_seed_draws_the_same_and_another_one_does_not() -> None:
    assert decks(1, 2) == decks(1, 2)
    assert decks(1, 2) != decks(2, 2)


@pytest.mark.parametrize(
    ("kind", "at_least"),
    [("kill", 200), ("zombie", 30), ("rebalance", 60), ("broker", 20), ("cut", 20), ("redis", 60)],
)
def test_eight_decks_have_enough_of_each(kind: str, at_least: int) -> None:
    names = Counter(name for step in decks(3, 8) for name in step)
    assert sum(count for name, count in names.items() if name.split()[0] == kind) >= at_least


def test_every_kind_of_fault_is_in_each_deck() -> None:
    assert {name for step in decks(4, 1) for name in step} == KINDS.keys()
