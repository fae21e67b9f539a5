"""How much a task may use: the formula, task sums, overrides, and what they are computed from."""

from decimal import Decimal
from fractions import Fraction

import pytest

from schemas.errors import InvalidFieldError
from schemas.fields import Complexity, Importance, Metric
from schemas.outputs import Lifecycle
from schemas.topics import Topic
from streams.budget import executions, state
from streams.budget.limits import TaskClass, check_multiplier, compute_limits, phase_limit
from streams.budget.policy import Policy, builtin_policy, policy_from_toml
from tests.unit.budget.histories import OPEN_LIST
from tests.unit.budget.story import all_said, story
from tests.unit.budget.world import START_MS, World, record

PRICED = policy_from_toml(
    """
    version = "priced"
    [phases.THINK]
    tokens = 3000
    latency_ms = 1000
    weight = 1.1
    cost_usd = 0.5
    [phases.PLAN]
    tokens = 1
    latency_ms = 1
    weight = 0.3333
    cost_usd = 0.000000001
    [multipliers.task_type]
    refactoring = 2.5
    """,
    "priced.toml",
)


@pytest.mark.parametrize(
    ("policy", "kind", "phase", "metric", "limit"),
    [
        pytest.param(
            builtin_policy(),
            TaskClass(Complexity.LARGE, Importance.CRITICAL),
            "THINK",
            Metric.TOKENS,
            18_000_000,
            id="critical + large + THINK",
        ),
        pytest.param(
            PRICED,
            TaskClass(Complexity.SMALL, Importance.HIGH),
            "THINK",
            Metric.TOKENS,
            3_960_000,
            id="exact: in floats this is 3961",
        ),
        pytest.param(
            PRICED, TaskClass(), "PLAN", Metric.TOKENS, 1_000, id="rounded up to a whole token"
        ),
        pytest.param(
            PRICED, TaskClass(), "PLAN", Metric.LATENCY_MS, 1, id="rounded up to a millisecond"
        ),
        pytest.param(
            PRICED, TaskClass(), "PLAN", Metric.COST_USD, 1, id="rounded up to a nano-dollar"
        ),
        pytest.param(
            PRICED, TaskClass(), "THINK", Metric.COST_USD, 550_000_000, id="dollars as nano-dollars"
        ),
        pytest.param(
            PRICED,
            TaskClass(task_type="refactoring"),
            "THINK",
            Metric.TOKENS,
            8_250_000,
            id="a kind of work that the policy has a factor for",
        ),
        pytest.param(
            PRICED,
            TaskClass(task_type="anything else"),
            "THINK",
            Metric.TOKENS,
            3_300_000,
            id="a kind of work that it has none for",
        ),
        pytest.param(
            builtin_policy(),
            TaskClass(multiplier=Fraction(1, 3)),
            "SPEC",
            Metric.TOKENS,
            500_000,
            id="the task's own multiplier",
        ),
        pytest.param(
            builtin_policy(), TaskClass(), "SPEC", Metric.COST_USD, None, id="no cost, no limit"
        ),
        pytest.param(
            OPEN_LIST, TaskClass(), "ANY", Metric.TOKENS, 100_000, id="the default of all others"
        ),
    ],
)
def test_a_limit_is_the_exact_product_rounded_up_once(
    policy: Policy, kind: TaskClass, phase: str, metric: Metric, limit: int | None
) -> None:
    assert phase_limit(policy, kind, phase, metric) == limit


def test_a_phase_that_the_policy_does_not_list_has_no_limit() -> None:
    with pytest.raises(
        InvalidFieldError, match=r"^phase: 'SLEEP' is not allowed; use one of STRAT"
    ):
        phase_limit(builtin_policy(), TaskClass(), "SLEEP", Metric.TOKENS)


def test_the_task_may_use_the_sum_of_its_planned_phases() -> None:
    limits = compute_limits(builtin_policy(), TaskClass(planned=("THINK", "PR")))
    tokens, latency, cost = limits.task
    assert tokens is not None
    assert latency is not None
    assert (tokens.limit, latency.limit, cost) == (6_900_000, 153_000, None)


def test_all_phases_are_planned_where_nothing_is_said() -> None:
    tokens, *_ = compute_limits(builtin_policy(), TaskClass()).task
    assert tokens is not None
    assert tokens.limit == 23_400_000


def test_limits_stop_growing_at_an_amount_that_is_still_folded_exactly() -> None:
    policy = policy_from_toml(
        """
        [phases.THINK]
        tokens = 1_000_000_000_000
        latency_ms = 1_000_000_000_000
        weight = 10
        """,
        "huge.toml",
    )
    kind = TaskClass(Complexity.LARGE, Importance.CRITICAL, multiplier=Fraction(10))
    assert phase_limit(policy, kind, "THINK", Metric.TOKENS) == 300_000_000_000_000 * 1_000
    world = story(
        """
        start TASK-1 x=10 complexity=large
        grant TASK-1 ×10
        grant TASK-1 ×10
        grant TASK-1 ×10
        grant TASK-1 ×10
        """,
        policy=policy,
    )
    assert started(world).limits["task"]["tokens"] == 10**15


def started(world: World, task_id: str = "TASK-1") -> Lifecycle:
    """What was last published about a task's limits."""
    return world.lifecycles(task_id)[-1]


@pytest.mark.parametrize(
    ("words", "limits"),
    [
        pytest.param(
            "", {"tokens": 6_000, "latency_ms": 135_000}, id="medium where nothing is said"
        ),
        pytest.param(
            "complexity=null importance=null",
            {"tokens": 6_000, "latency_ms": 135_000},
            id="null is the same as absent",
        ),
        pytest.param(
            "complexity=tiny importance=low",
            {"tokens": 2_100, "latency_ms": 47_250},
            id="tiny and low",
        ),
        pytest.param("x=0.5", {"tokens": 3_000, "latency_ms": 67_500}, id="a multiplier"),
        pytest.param(
            "override.THINK.tokens=10000",
            {"tokens": 10_000, "latency_ms": 135_000},
            id="an override is absolute, and counts in the sum",
        ),
        pytest.param(
            "override.THINK.tokens=10000 complexity=large x=2",
            {"tokens": 10_000, "latency_ms": 405_000},
            id="no multiplier applies to an override",
        ),
        pytest.param(
            "override.task.tokens=7000 override.THINK.tokens=10000",
            {"tokens": 7_000, "latency_ms": 135_000},
            id="a task override replaces the sum",
        ),
        pytest.param(
            "override.task.cost_usd=1.5",
            {"tokens": 6_000, "latency_ms": 135_000, "cost_usd": 1.5},
            id="a task override alone makes a cost limit",
        ),
        pytest.param(
            "override.THINK.cost_usd=0.000000001",
            {"tokens": 6_000, "latency_ms": 135_000, "cost_usd": 1e-9},
            id="every planned phase has a cost, hence the task",
        ),
    ],
)
def test_a_task_starts_with_these_limits(words: str, limits: dict[str, float]) -> None:
    world = story(f"start TASK-1 planned=THINK {words} → continue")
    assert started(world).limits["task"] == limits


def test_one_phase_without_a_cost_limit_leaves_the_task_without_one() -> None:
    world = story("start TASK-1 planned=THINK,PLAN override.THINK.cost_usd=1.0")
    assert "cost_usd" not in started(world).limits["task"]
    assert started(world).limits["THINK"]["cost_usd"] == 1


def test_an_override_below_what_is_computed_is_flagged() -> None:
    world = story("""
        start TASK-1 planned=THINK override.THINK.tokens=5999
        start TASK-2 planned=THINK override.THINK.tokens=6000
        start TASK-3 planned=THINK override.task.latency_ms=1
    """)
    flagged = [task for task in ("TASK-1", "TASK-2", "TASK-3") if started(world, task).flags]
    assert flagged == ["TASK-1", "TASK-3"]
    assert started(world).flags == ["override_below_limit"]


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        pytest.param(
            {"THINK": {"tokens": 9}, "SLEEP": {"tokens": 1}}, "SLEEP", id="an unlisted phase"
        ),
        pytest.param({"THINK": {"tokens": 9}, "PLAN": {}}, "PLAN", id="an override of nothing"),
        pytest.param({"THINK": {"cost_usd": 0}}, "THINK.cost_usd", id="no money at all"),
        pytest.param({"THINK": {"cost_usd": -1}}, "THINK.cost_usd", id="less than none"),
        pytest.param({"THINK": {"cost_usd": "NaN"}}, "THINK.cost_usd", id="not a number"),
        pytest.param({"THINK": {"tokens": 0}}, "", id="no tokens at all"),
        pytest.param({"THINK": {"tokens": "many"}}, "", id="text for a number"),
        pytest.param({"THINK": {"token": 5}}, "", id="a misspelt metric"),
        pytest.param([1], "", id="a list"),
        pytest.param("x", "", id="a text"),
    ],
)
def test_one_invalid_override_refuses_all_and_the_task_runs_on(
    overrides: object, field: str
) -> None:
    world = start_with({"planned_phases": ["THINK"], "budget_overrides": overrides})
    where = f"data.budget_overrides.{field}" if field else "data.budget_overrides"
    assert all_said(world, Topic.DEAD_LETTERS) == [f"refused {where}"]
    assert [letter.task_id for letter in world.letters()] == ["TASK-1"]
    assert started(world).limits["task"]["tokens"] == 6_000
    assert started(world).flags == ["overrides_refused"]


@pytest.mark.parametrize("overrides", [None, {}], ids=["null", "an empty object"])
def test_no_overrides_are_no_mistake(overrides: object) -> None:
    world = start_with({"planned_phases": ["THINK"], "budget_overrides": overrides})
    assert all_said(world, Topic.DEAD_LETTERS) == []


def start_with(data: dict[str, object]) -> World:
    world = World()
    world.take(record("task.started", "TASK-1", "e-0", data, START_MS))
    return world


@pytest.mark.parametrize(
    ("line", "field"),
    [
        pytest.param("start TASK-1 planned=THINK,SLEEP", "data.planned_phases", id="planned"),
        pytest.param("start TASK-1 x=0", "data.budget_multiplier", id="a multiplier of 0"),
        pytest.param("start TASK-1 x=-1", "data.budget_multiplier", id="below 0"),
        pytest.param("start TASK-1 x=10.5", "data.budget_multiplier", id="above 10"),
        pytest.param("start TASK-1 x=0.1234567891", "data.budget_multiplier", id="ten decimals"),
        pytest.param("usage TASK-1 SLEEP 5", "data.phase", id="used"),
        pytest.param("usage TASK-1 task 5", "data.phase", id="the whole task as a phase"),
        pytest.param("begin TASK-1 SLEEP", "data.phase", id="begun"),
        pytest.param("end TASK-1 SLEEP", "data.phase", id="ended"),
        pytest.param("explain TASK-1 so_it_was phase=SLEEP", "data.phase", id="explained"),
    ],
)
def test_what_the_policy_does_not_allow_is_refused_and_opens_no_task(line: str, field: str) -> None:
    world = story(f"{line} → refused {field}")
    assert list(world.state.tasks) == []


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "sNaN", "1E-12"])
def test_a_multiplier_is_a_number_with_few_decimals(value: str) -> None:
    with pytest.raises(InvalidFieldError, match="with up to 9 decimals"):
        check_multiplier("x", Decimal(value), above=0)


def test_a_policy_with_a_default_lets_events_name_any_phase() -> None:
    world = story(
        """
        start TASK-1 planned=THINK,DREAM            # 1,000 + 100
        usage TASK-1 DREAM 90        → notice
        usage TASK-1 SLEEP 150       → warn         # beyond the plan: counts, and has its limit
        grant TASK-1 SLEEP.tokens=99 → refused data.limits.SLEEP.tokens
        grant TASK-1 SLEEP.tokens=500 NAP.tokens=200 → notice
        usage TASK-1 NAP 180         → notice
        grant TASK-1 ×2              → continue
        usage TASK-1 NAP 180         → notice
        usage TASK-1 task 5          → refused data.phase   # no phase: the scope beside them
        begin TASK-1 WALK
        end TASK-1 WALK +1m          → notice
        finish TASK-1
        """,
        policy=OPEN_LIST,
    )
    names = ["THINK", "DREAM", "SLEEP", "NAP", "WALK", "task"]
    assert list(started(world).limits) == names
    assert started(world).limits["NAP"]["tokens"] == 400


def test_a_task_remembers_a_bounded_number_of_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    assert executions.PHASES_MAX == 64
    monkeypatch.setattr(executions, "PHASES_MAX", 3)
    story(
        """
        usage TASK-1 A 1
        usage TASK-1 B 1
        usage TASK-1 C 1
        usage TASK-1 D 1   → refused data.phase
        usage TASK-1 C 1   → continue
        """,
        policy=OPEN_LIST,
    )


def test_limits_are_kept_for_a_bounded_number_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert state.LIMITS_CACHE_MAX == 4_096
    monkeypatch.setattr(state, "LIMITS_CACHE_MAX", 2)
    world = story("start TASK-1 x=2\nstart TASK-2 x=3\nstart TASK-3 x=0.5\nstart TASK-1 x=5")
    assert len(world.state.limits_cache) <= 2
    assert started(world, "TASK-3").limits["THINK"]["tokens"] == 3_000


def test_the_built_in_policy_of_a_new_ledger_does_not_replace_an_operators() -> None:
    world = story(
        """
        policy priced                        → policy stored
        policy builtin source=stoploss/ledger                  # appended before that was folded
        start  TASK-1 planned=THINK
        """,
        priced=PRICED,
        builtin=builtin_policy(),
    )
    assert started(world).policy.version == "priced"  # type: ignore[union-attr]


def test_a_later_policy_touches_new_tasks_only() -> None:
    world = story(
        """
        start  TASK-1 planned=THINK
        policy priced                     → policy stored
        usage  TASK-1 THINK 5_400         → notice       # of 6,000, as it started
        start  TASK-2 planned=THINK
        usage  TASK-2 THINK 2_970         → notice       # of 3,300
        reclassify TASK-1 importance=high → continue     # by the policy that is stored with it
        """,
        priced=PRICED,
    )
    assert started(world).limits["THINK"]["tokens"] == 9_000
    assert started(world, "TASK-2").policy.version == "priced"  # type: ignore[union-attr]
