"""Calibration finds what usage was drawn from, and leaves alone what it does not show."""

import random
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from schemas.fields import Complexity, Importance, Metric
from streams.budget.policy import Policy, builtin_policy, policy_from_toml
from streams.insight.calibration import (
    COUNT_MIN,
    Blocked,
    Change,
    Proposal,
    calibrate,
    would_block,
)
from streams.insight.history import TaskHistory
from tests.unit.insight.histories import a_run, a_task, tokens_of

# A sketch is within 1 % of the exact quantile; a ratio of two of them within 2.
ERROR = 0.021
COMPLEXITIES = {Complexity.SMALL: 0.5, Complexity.MEDIUM: 1.0, Complexity.LARGE: 2.5}
IMPORTANCES = {Importance.MEDIUM: 1.0, Importance.HIGH: 1.6}
TYPES = {"agent": 1.0, "other": 3.0}


def a_policy(*phases: str, more: str = "", **weights: float) -> Policy:
    tables = (
        f"[phases.{phase}]\ntokens = 1\nlatency_ms = 1\nweight = {weights.get(phase, 1)}\n{more}"
        for phase in phases
    )
    return policy_from_toml('version = "old"\n' + "".join(tables), "test")


def change(proposal: Proposal, field: str) -> Change:
    return next(each for each in proposal.changes if each.field == field)


def new(proposal: Proposal, field: str) -> float:
    return float(change(proposal, field).new)


def drawn(
    shape: list[float],
    one: float = 1_000,
    *,
    complexities: dict[Complexity, float] = COMPLEXITIES,
    importances: dict[Importance, float] = IMPORTANCES,
    types: dict[str, float] = TYPES,
    phase: str = "THINK",
) -> list[TaskHistory]:
    """Tasks of each class, whose use has the same shape in every one of them."""
    return [
        a_task(
            f"{complexity}-{importance}-{task_type}-{number}",
            a_run(phase, tokens=one * large * matters * kind * factor),
            complexity=complexity,
            importance=importance,
            task_type=task_type,
        )
        for complexity, large in complexities.items()
        for importance, matters in importances.items()
        for task_type, kind in types.items()
        for number, factor in enumerate(shape)
    ]


SHAPES = st.lists(st.floats(0.2, 50), min_size=COUNT_MIN, max_size=40)
FACTORS = st.floats(0.25, 4)


def three_in_four(shape: list[float]) -> float:
    ordered = sorted(shape)
    return ordered[-(-3 * len(ordered) // 4) - 1]


@settings(max_examples=30)
@given(SHAPES, st.floats(10_000, 1_000_000), FACTORS, FACTORS, FACTORS)
def test_the_numbers_that_usage_was_drawn_from_are_found(
    shape: list[float], one: float, large: float, high: float, other: float
) -> None:
    tasks = drawn(
        shape,
        one,
        complexities={Complexity.MEDIUM: 1.0, Complexity.LARGE: large},
        importances={Importance.MEDIUM: 1.0, Importance.HIGH: high},
        types={"agent": 1.0, "other": other},
    )
    proposal = calibrate(tasks, a_policy("THINK"))
    # Which level keeps its number is a matter of names here: what is found is how they are to each other.
    for level, reference, expected in (
        ("complexity.large", "complexity.medium", large),
        ("importance.high", "importance.medium", high),
        ("task_type.other", "task_type.agent", other),
    ):
        found = new(proposal, f"multipliers.{level}") / new(proposal, f"multipliers.{reference}")
        assert found == pytest.approx(expected, rel=1e-3)
    limit = new(proposal, "phases.THINK.tokens")
    for level in ("complexity.medium", "importance.medium", "task_type.agent"):
        limit *= new(proposal, f"multipliers.{level}")
    assert limit == pytest.approx(one * three_in_four(shape), rel=ERROR, abs=50)


@settings(max_examples=30)
@given(st.lists(st.floats(1, 50), min_size=COUNT_MIN, max_size=30), st.floats(0.01, 1_000))
def test_all_usage_times_k_makes_bases_times_k(shape: list[float], k: float) -> None:
    before, after = (
        calibrate(drawn(shape, one, types={"agent": 1.0}), a_policy("THINK"))
        for one in (100_000, 100_000 * k)
    )
    assert new(after, "phases.THINK.tokens") == pytest.approx(
        k * new(before, "phases.THINK.tokens"), rel=ERROR, abs=1.01
    )
    assert factors(after) == pytest.approx(factors(before), rel=1e-3)


def factors(proposal: Proposal) -> list[float]:
    return [float(each.new) for each in proposal.changes if each.field.startswith("multipliers")]


def test_the_order_of_tasks_does_not_matter() -> None:
    chance = random.Random(4)
    tasks = [
        *drawn([chance.lognormvariate(0, 1) for _ in range(25)], phase="THINK"),
        *drawn([chance.lognormvariate(1, 1) for _ in range(9)], phase="VERIFY", types={"third": 2}),
    ]
    policy = a_policy("THINK", "VERIFY")
    expected = calibrate(tasks, policy)
    assert sum(each.is_changed for each in expected.changes) > 5
    for _ in range(10):
        assert calibrate(chance.sample(tasks, len(tasks)), policy) == expected


@given(st.integers(0, COUNT_MIN - 1))
def test_fewer_than_20_change_nothing(count: int) -> None:
    policy = builtin_policy()
    proposal = calibrate(tokens_of(*[90_000] * count), policy)
    assert not any(each.is_changed for each in proposal.changes)
    assert proposal.policy.phases == policy.phases
    assert proposal.policy.complexity == policy.complexity
    assert proposal.policy.task_type == policy.task_type


def test_20_are_enough() -> None:
    proposal = calibrate(tokens_of(*[90_000] * COUNT_MIN), builtin_policy())
    found = change(proposal, "phases.THINK.tokens")
    assert (found.old, found.count, found.unknown_share) == (4_000, 20, 0)
    assert found.new == 60_000  # of weight 1.5
    assert found.p75 == pytest.approx(90_000, rel=0.01)
    assert found.reason.startswith("p75 of 20 runs 9")
    assert proposal.tasks == 20


def test_a_phase_without_enough_runs_keeps_its_base_and_says_why() -> None:
    tasks = [
        *tokens_of(*[500] * 30),
        *(a_task(f"V-{n}", a_run("VERIFY", tokens=70)) for n in range(3)),
        *(a_task(f"P-{n}", a_run("PLAN", tokens=0)) for n in range(30)),
    ]
    proposal = calibrate(tasks, builtin_policy())
    reasons = {
        phase: change(proposal, f"phases.{phase}.tokens").reason
        for phase in ("VERIFY", "PLAN", "PR")
    }
    assert reasons == {
        "VERIFY": "3 runs, 3 known: fewer than 20, it stays",
        "PLAN": "three in four of 30 runs used nothing: it stays",
        "PR": "never seen: it stays",
    }
    assert proposal.policy.phases["VERIFY"] == builtin_policy().phases["VERIFY"]


def test_what_is_not_known_decides_nothing_and_is_counted() -> None:
    tasks = [
        *tokens_of(*[1_000] * 30),
        *(a_task(f"U-{n}", a_run("THINK", latency_ms=5)) for n in range(10)),
    ]
    found = change(calibrate(tasks, a_policy("THINK")), "phases.THINK.tokens")
    assert (found.new, found.count, found.unknown_share) == (1_000, 30, 0.25)


def test_each_metric_has_its_own_base() -> None:
    tasks = [
        a_task(f"T-{n}", a_run("THINK", tokens=3_000, latency_ms=2_000, cost_usd=0.25))
        for n in range(25)
    ]
    with_cost = a_policy("THINK", more="cost_usd = 0.01\n")
    base = calibrate(tasks, with_cost).policy.phases["THINK"]
    assert (base.tokens, base.latency_ms, base.cost_usd) == (3_000, 2_000, Decimal("0.25"))
    without = calibrate(tasks, a_policy("THINK"))
    assert without.policy.phases["THINK"].cost_usd is None
    assert Metric.COST_USD not in without.sums


def test_no_base_is_less_than_one_of_its_unit() -> None:
    tasks = tokens_of(*[0.002] * 30)
    assert calibrate(tasks, a_policy("THINK")).policy.phases["THINK"].tokens == 1


def test_phases_add_up_to_what_three_in_four_tasks_use() -> None:
    chance = random.Random(7)
    tasks = [
        a_task(
            f"T-{n}",
            a_run("THINK", tokens=chance.lognormvariate(9, 1)),
            *([a_run("VERIFY", tokens=chance.lognormvariate(8, 1))] if n % 2 else []),
        )
        for n in range(400)
    ]
    policy = a_policy("THINK", "VERIFY")
    proposal = calibrate(tasks, policy)
    limit = sum(base.tokens for base in proposal.policy.phases.values())
    within = sum(task.used[Metric.TOKENS] <= limit * 1_000 for task in tasks)
    assert within == 300
    assert 0.7 < proposal.sums[Metric.TOKENS] < 1
    assert "phases add up to tasks" in change(proposal, "phases.THINK.tokens").reason


def test_each_task_counts_with_the_phases_that_it_planned() -> None:
    tasks = [
        *(
            a_task(f"A-{n}", a_run("THINK", tokens=100), planned=("THINK", "gone"))
            for n in range(30)
        ),
        *(a_task(f"B-{n}", a_run("VERIFY", tokens=900), planned=("VERIFY",)) for n in range(30)),
    ]
    phases = calibrate(tasks, a_policy("THINK", "VERIFY")).policy.phases
    found = [phases[name].tokens for name in ("THINK", "VERIFY")]
    assert found == pytest.approx([100, 900], rel=ERROR)


def test_a_phase_that_nobody_uses_takes_nothing_from_the_others() -> None:
    tasks = tokens_of(*[1_000] * 30)
    proposal = calibrate(tasks, a_policy("THINK", "REVIEW"))
    assert new(proposal, "phases.THINK.tokens") == 1_000
    assert new(proposal, "phases.REVIEW.tokens") == 1


def test_tasks_below_others_count_as_runs_and_not_as_tasks() -> None:
    tasks = [
        *tokens_of(*[1_000] * 30),
        *(
            a_task(f"C-{n}", a_run("VERIFY", tokens=50), parent_id="T-0", task_type="sub")
            for n in range(30)
        ),
    ]
    proposal = calibrate(tasks, a_policy("THINK", "VERIFY"))
    assert change(proposal, "phases.VERIFY.tokens").count == 30
    assert not any(each.field == "multipliers.task_type.sub" for each in proposal.changes)


def test_the_only_level_with_enough_tasks_keeps_its_factor() -> None:
    tasks = [
        *tokens_of(*[1_000] * 30),
        *drawn([9_000.0] * 5, importances={Importance.MEDIUM: 1.0}, types={"few": 1.0}),
    ]
    proposal = calibrate(tasks, builtin_policy())
    assert change(proposal, "multipliers.task_type.agent").reason == (
        "the only one with enough tasks: it stays"
    )
    assert change(proposal, "multipliers.task_type.few").reason == (
        "15 of 20 tasks of known use: too few, it stays"
    )
    assert change(proposal, "multipliers.complexity.tiny").reason == "never seen: it stays"


def test_a_difference_that_may_be_another_kinds_is_not_fitted_twice() -> None:
    tasks = [
        *drawn([1.0] * 30, complexities={Complexity.SMALL: 1.0}, types={"agent": 1.0}),
        *drawn([1.0] * 25, complexities={Complexity.LARGE: 1.0}, types={"other": 4.0}),
    ]
    proposal = calibrate(tasks, builtin_policy())
    # 1,000 / 0.8 of a small task, 4,000 / 1.5 of a large one.
    assert new(proposal, "multipliers.task_type.other") == pytest.approx(2.1333, abs=1e-4)
    large = change(proposal, "multipliers.complexity.large")
    assert (large.new, large.reason) == (
        Decimal("1.5"),
        "never beside small of the same task type: it stays",
    )


def test_levels_are_told_apart_by_way_of_others() -> None:
    cells = {
        "a": (Complexity.SMALL, Complexity.MEDIUM),
        "b": (Complexity.MEDIUM, Complexity.LARGE),
    }
    tasks = [
        a_task(
            f"{kind}-{complexity}-{n}",
            a_run("THINK", tokens=1_000 * COMPLEXITIES[complexity]),
            complexity=complexity,
            task_type=kind,
        )
        for kind, complexities in cells.items()
        for complexity in complexities
        for n in range(30)
    ]
    proposal = calibrate(tasks, a_policy("THINK"))
    assert new(proposal, "multipliers.complexity.large") == pytest.approx(2.5, rel=0.01)
    assert new(proposal, "multipliers.complexity.small") == pytest.approx(0.5, rel=0.01)


def test_a_factor_is_cut_to_what_a_policy_may_have() -> None:
    tasks = drawn([1.0] * 25, types={"agent": 1.0, "huge": 40.0})
    huge = change(calibrate(tasks, builtin_policy()), "multipliers.task_type.huge")
    assert huge.new == 10
    assert huge.reason.endswith("cut to 10")


def test_where_tasks_of_the_scale_use_nothing_nothing_is_fitted() -> None:
    tasks = [
        *drawn([0.0] * 40, types={"agent": 1.0}),
        *drawn([1.0] * 30, types={"other": 1.0}),
    ]
    proposal = calibrate(tasks, builtin_policy())
    assert change(proposal, "multipliers.task_type.other").reason == "cannot be fitted: it stays"
    assert not change(proposal, "multipliers.task_type.other").is_changed


def test_without_tokens_time_tells_the_factors() -> None:
    tasks = [
        a_task(f"{kind}-{n}", a_run("THINK", latency_ms=1_000 * factor), task_type=kind)
        for kind, factor in TYPES.items()
        for n in range(25)
    ]
    proposal = calibrate(tasks, a_policy("THINK"))
    assert new(proposal, "multipliers.task_type.other") == 3
    assert new(proposal, "phases.THINK.latency_ms") == 1_000


def test_a_task_without_a_type_has_no_factor() -> None:
    tasks = tokens_of(*[1_000] * 30, task_type=None)
    proposal = calibrate(tasks, a_policy("THINK"))
    assert not any(each.field.startswith("multipliers.task_type") for each in proposal.changes)
    assert new(proposal, "phases.THINK.tokens") == 1_000


def test_tasks_without_a_type_do_not_move_the_factors_of_the_others() -> None:
    tasks = drawn([1.0] * 25, types={"agent": 1.0, "other": 3.0})
    found = calibrate([*tasks, *tokens_of(*[7.0] * 30, task_type=None)], a_policy("THINK"))
    assert new(found, "multipliers.task_type.other") == 3


def test_tasks_that_plan_different_phases_are_compared_by_what_they_planned() -> None:
    runs = {"THINK": a_run("THINK", tokens=1_000), "VERIFY": a_run("VERIFY", tokens=3_000)}
    tripled = {"THINK": a_run("THINK", tokens=3_000), "VERIFY": a_run("VERIFY", tokens=9_000)}
    tasks = [
        a_task(
            f"{kind}-{planned}-{n}",
            *(used[each] for each in planned),
            task_type=kind,
            planned=planned,
        )
        for kind, used in (("agent", runs), ("other", tripled))
        for planned in (("THINK",), ("THINK", "VERIFY"))
        for n in range(25)
    ]
    proposal = calibrate(tasks, a_policy("THINK", "VERIFY"))
    assert new(proposal, "multipliers.task_type.other") == pytest.approx(3, rel=ERROR)
    assert new(proposal, "phases.VERIFY.tokens") == pytest.approx(3_000, rel=ERROR)


def test_names_with_dots_find_their_place() -> None:
    tasks = drawn([1.0] * 25, phase="re.view", types={"a.b": 1.0, "c.d": 2.0})
    proposal = calibrate(tasks, policy_from_toml(DOTTED, "test"))
    assert proposal.policy.task_type == {"c.d": 2}
    assert proposal.policy.phases["re.view"].tokens > 1


DOTTED = '[phases."re.view"]\ntokens = 1\nlatency_ms = 1\nweight = 1\n'


def test_the_proposal_is_named_by_what_it_says_and_keeps_all_else() -> None:
    old = policy_from_toml('version = "mine"\nfail = "closed"\n', "test")
    one, other = (calibrate(tokens_of(*[amount] * 25), old).policy for amount in (50_000, 60_000))
    assert one.version.startswith("calibrated-25-")
    assert one.version != other.version
    assert one.fail is old.fail
    assert one.ladders == old.ladders


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        pytest.param(tokens_of(19)[0], Blocked(tasks=1, blocked=0), id="below"),
        pytest.param(tokens_of(20)[0], Blocked(tasks=1, blocked=1), id="at twice the limit"),
        pytest.param(
            tokens_of(20, complexity=Complexity.LARGE)[0],
            Blocked(tasks=1, blocked=0),
            id="a large task may use more",
        ),
        pytest.param(
            tokens_of(30, planned=("THINK", "VERIFY", "unknown"))[0],
            Blocked(tasks=1, blocked=0),
            id="one with more phases, too",
        ),
        pytest.param(
            a_task("L", a_run("THINK", latency_ms=9_000)),
            Blocked(tasks=0, blocked=0),
            id="not known",
        ),
        pytest.param(
            a_task("C", a_run("THINK", tokens=99), parent_id="P"),
            Blocked(tasks=0, blocked=0),
            id="below another",
        ),
    ],
)
def test_a_task_would_be_blocked_at_what_the_ladder_says(
    task: TaskHistory, expected: Blocked
) -> None:
    policy = policy_from_toml(
        "[phases.THINK]\ntokens = 10\nlatency_ms = 1\nweight = 1\n"
        "[phases.VERIFY]\ntokens = 10\nlatency_ms = 1\nweight = 1\n",
        "test",
    )
    planned = task if task.planned else replaced(task)
    assert would_block([planned], policy) == expected


def replaced(task: TaskHistory) -> TaskHistory:
    return structs.replace(task, planned=("THINK",))
