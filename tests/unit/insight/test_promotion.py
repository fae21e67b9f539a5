"""A mode that holds more is entered where every condition holds, and each is told with its value."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.fields import Mode
from schemas.topics import DAY_MS
from streams.insight.gate import TASKS_MIN, gate
from streams.insight.intervals import wilson
from streams.insight.promotion import (
    Condition,
    Promotion,
    Runaways,
    Situation,
    next_mode,
    promotion,
)
from tests.unit.insight.gated import tasks


def runaways(count: int, of: int = 100) -> Runaways:
    return Runaways(of, count, count / of if of else 0.0, wilson(count, of))


# In which every condition holds, of partial and, in mode partial, of enforce.
GOOD = Situation(
    modes=(Mode.OBSERVE, Mode.OBSERVE),
    gate=gate(tasks(right=119, right_blocked=1)),
    observed_ms=14 * DAY_MS,
    runaways=runaways(11),
    critical=(),
    silent=(),
)


def good(**changes: Any) -> Situation:  # noqa: ANN401 - any field
    return replace(GOOD, **changes)


def failing(situation: Situation, to: Mode = Mode.PARTIAL) -> list[str]:
    return [each.name for each in promotion(situation, to).failing]


def test_every_condition_is_told_with_its_value_and_what_it_must_be() -> None:
    assert promotion(good(modes=(Mode.PARTIAL,)), Mode.ENFORCE) == Promotion(
        to=Mode.ENFORCE,
        holds=True,
        conditions=[
            Condition("mode", "partial", "partial", holds=True),
            Condition("tasks judged", "120 under this policy", "at least 50", holds=True),
            Condition("wrongly blocked", "0.8 % (1 of 120)", "below 5.0 %", holds=True),
            Condition("wrongly blocked, upper end", "4.6 % (95 %)", "below 5.0 %", holds=True),
            Condition("observed", "14 d 0 h", "at least 14 days", holds=True),
            Condition("runaway tasks", "11.0 % (11 of 100)", "above 10.0 %", holds=True),
            Condition("critical alerts", "none", "none", holds=True),
            Condition("feed", "every ledger is heard of", "every ledger is heard of", holds=True),
        ],
    )


def test_partial_asks_for_no_upper_end() -> None:
    found = promotion(GOOD, Mode.PARTIAL)
    assert found.holds
    assert "wrongly blocked, upper end" not in [each.name for each in found.conditions]


@pytest.mark.parametrize(
    ("changes", "named", "value"),
    [
        pytest.param({"modes": (Mode.PARTIAL,)}, "mode", "partial", id="there already"),
        pytest.param({"modes": ()}, "mode", "none yet", id="no ledger has begun"),
        pytest.param(
            {"modes": (Mode.ENFORCE, Mode.OBSERVE)}, "mode", "observe, enforce", id="two modes"
        ),
        pytest.param(
            {"gate": gate(tasks(right=49))}, "tasks judged", "49 under this policy", id="too few"
        ),
        pytest.param(
            {"gate": gate(tasks(right=95, finished_blocked=5))},
            "wrongly blocked", "5.0 % (5 of 100)", id="5 % itself",
        ),
        pytest.param({"observed_ms": 14 * DAY_MS - 1}, "observed", "13 d 23 h", id="too short"),
        pytest.param({"runaways": runaways(10)}, "runaway tasks", "10.0 % (10 of 100)", id="10 %"),
        pytest.param(
            {"critical": ("breaker_open (a)",)}, "critical alerts", "breaker_open (a)", id="alert"
        ),
        pytest.param(
            {"critical": tuple("abcdefg")}, "critical alerts", "a, b, c, d, e and 2 more", id="many"
        ),
        pytest.param({"silent": (1,)}, "feed", "no ledger of partition 1", id="one is silent"),
        pytest.param({"silent": (0, 2)}, "feed", "no ledger of partitions 0, 2", id="two are"),
    ],
)  # fmt: skip
def test_a_condition_that_does_not_hold_stops_it_and_is_named(
    changes: dict[str, Any], named: str, value: str
) -> None:
    found = promotion(good(**changes), Mode.PARTIAL)
    assert not found.holds
    assert [(each.name, each.value) for each in found.failing] == [(named, value)]


def test_enforce_asks_for_an_upper_end_that_few_tasks_do_not_give() -> None:
    situation = good(modes=(Mode.PARTIAL,), gate=gate(tasks(right=107, right_blocked=1)))
    assert failing(situation, Mode.ENFORCE) == ["wrongly blocked, upper end"]


def test_nothing_skips_a_step() -> None:
    assert failing(GOOD, Mode.ENFORCE) == ["mode"]


def test_of_no_tasks_nothing_is_shown() -> None:
    situation = good(gate=gate(tasks()), runaways=runaways(0, 0))
    assert failing(situation) == ["tasks judged", "wrongly blocked", "runaway tasks"]
    assert promotion(situation, Mode.PARTIAL).advice is None


@given(
    counts=st.tuples(st.integers(0, 200), st.integers(0, 20)),
    observed_ms=st.integers(0, 40 * DAY_MS),
    ran_away=st.integers(0, 100),
    modes=st.lists(st.sampled_from(Mode), max_size=3),
    trouble=st.sampled_from([{}, {}, {"critical": ("x",)}, {"silent": (0,)}]),
)
def test_no_promotion_on_fewer_tasks_than_the_minimum_whatever_else_holds(
    counts: tuple[int, int],
    observed_ms: int,
    ran_away: int,
    modes: list[Mode],
    trouble: dict[str, Any],
) -> None:
    right, wrong = counts
    situation = good(
        modes=tuple(modes),
        gate=gate(tasks(right=right, right_blocked=wrong)),
        observed_ms=observed_ms,
        runaways=runaways(ran_away),
        **trouble,
    )
    for to in (Mode.PARTIAL, Mode.ENFORCE):
        found = promotion(situation, to)
        assert found.holds == (not found.failing)
        if found.holds:
            assert right + wrong >= TASKS_MIN
            assert wrong * 20 < right + wrong
            assert observed_ms >= 14 * DAY_MS
            assert ran_away > 10
            assert not trouble


@pytest.mark.parametrize(("ran_away", "advises"), [(0, True), (4, True), (5, False), (50, False)])
def test_where_few_tasks_run_away_alerts_alone_are_advised(ran_away: int, *, advises: bool) -> None:
    advice = promotion(good(runaways=runaways(ran_away)), Mode.PARTIAL).advice
    assert (advice is not None) == advises
    if advice is not None:
        assert advice.startswith(
            f"{ran_away} of 100 tasks ran away, fewer than 5.0 %: alerts alone"
        )


@pytest.mark.parametrize(
    ("modes", "to"),
    [
        ((), Mode.PARTIAL),
        ((Mode.OBSERVE, Mode.OBSERVE), Mode.PARTIAL),
        ((Mode.PARTIAL, Mode.ENFORCE), Mode.ENFORCE),
        ((Mode.OBSERVE, Mode.ENFORCE), Mode.PARTIAL),
        ((Mode.ENFORCE,), Mode.ENFORCE),
    ],
)
def test_the_next_step_is_that_of_the_partition_that_is_furthest_behind(
    modes: tuple[Mode, ...], to: Mode
) -> None:
    assert next_mode(modes) is to
