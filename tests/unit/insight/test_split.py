"""A part of a history is held out by its groups: the same part, whatever else the history holds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InvalidFieldError
from streams.insight.split import HoldOut, checked_hold_out, parted

GROUPS = st.text(max_size=40)
SHARES = st.floats(0, 1)
SEEDS = st.integers(0, 2**40)


@given(st.lists(GROUPS), st.lists(GROUPS), SHARES, SEEDS)
def test_a_history_that_has_grown_holds_out_what_it_held_out_before(
    groups: list[str], more: list[str], share: float, seed: int
) -> None:
    hold_out = HoldOut(share, seed)
    kept, held_out = parted(groups, hold_out, str)
    kept_then, held_out_then = parted([*groups, *more], hold_out, str)
    assert kept_then[: len(kept)] == kept
    assert held_out_then[: len(held_out)] == held_out


@given(st.lists(GROUPS), SHARES, SEEDS)
def test_every_item_is_on_one_side_with_the_rest_of_its_group(
    groups: list[str], share: float, seed: int
) -> None:
    items = [(group, number) for number, group in enumerate(groups)]
    kept, held_out = parted(items, HoldOut(share, seed), lambda item: item[0])
    assert sorted([*kept, *held_out]) == sorted(items)
    assert {group for group, _ in kept}.isdisjoint(group for group, _ in held_out)


@given(GROUPS, SHARES, SHARES, SEEDS)
def test_a_larger_share_holds_out_what_a_smaller_one_does(
    group: str, one: float, other: float, seed: int
) -> None:
    smaller, larger = sorted((one, other))
    assert HoldOut(larger, seed).has(group) or not HoldOut(smaller, seed).has(group)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("seed", [1, 2, 1_000])
@pytest.mark.parametrize("name", ["session-{}", "agent/{:08x}", "{}"])
def test_a_share_is_met_as_well_as_a_fair_draw_would_meet_it(
    share: float, seed: int, name: str
) -> None:
    groups = [name.format(number) for number in range(4_000)]
    _, held_out = parted(groups, HoldOut(share, seed), str)
    tolerance = 3 * math.sqrt(share * (1 - share) / len(groups))
    assert abs(len(held_out) / len(groups) - share) < tolerance


def test_another_seed_holds_out_others_and_as_many_of_both() -> None:
    groups = [f"session-{number}" for number in range(4_000)]
    one = set(parted(groups, HoldOut(0.5, 1), str)[1])
    other = set(parted(groups, HoldOut(0.5, 2), str)[1])
    assert abs(len(one & other) - 1_000) < 100


def test_all_or_nothing_is_held_out_at_the_ends() -> None:
    assert not HoldOut(0.0).has("session-1")
    assert HoldOut(1.0).has("session-1")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0, math.nan])
def test_a_share_that_leaves_one_side_empty_is_refused(share: float) -> None:
    with pytest.raises(InvalidFieldError, match=r"--hold-out: .* such as 0\.3"):
        checked_hold_out("--hold-out", share)


def test_a_share_in_between_is_taken() -> None:
    assert checked_hold_out("--hold-out", 0.3, 7) == HoldOut(0.3, 7)
