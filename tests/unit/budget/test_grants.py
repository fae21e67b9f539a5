"""Granting more, and judging a task's class anew."""

from decimal import Decimal

import pytest

from schemas.topics import Topic
from streams.budget import operators
from streams.budget.amounts import AMOUNT_MAX
from streams.budget.executions import task_class
from streams.budget.limits import compute_limits, limits_in
from tests.unit.budget.histories import OPEN_LIST
from tests.unit.budget.story import all_said, story
from tests.unit.budget.world import START_MS, World, record


def test_a_grant_takes_the_verdict_back_and_forgets_no_usage() -> None:
    world = story("""
        start  TASK-1 planned=THINK   → continue    # medium, medium: 6,000 tokens
        usage  TASK-1 THINK 9_000     → review      # three levels at once: the highest is said
        grant  TASK-1 ×2              → continue    # 9,000 of 12,000
        usage  TASK-1 THINK 3_000     → notice
    """)
    assert [one.limits_version for one in world.decisions()] == [1, 2, 2]
    assert world.task("TASK-1").tokens.used == 12_000_000


def test_a_multiplier_multiplies_what_holds_now_again_and_again() -> None:
    world = story("""
        start TASK-1 planned=THINK override.task.cost_usd=1.0
        grant TASK-1 ×1.5
        grant TASK-1 ×1.5
    """)
    limits = world.lifecycles()[-1].limits
    assert limits["task"] == {"tokens": 13_500, "latency_ms": 303_750, "cost_usd": 2.25}
    assert limits["THINK"] == {"tokens": 13_500, "latency_ms": 303_750}
    assert world.lifecycles()[-1].limits_version == 3


def test_a_granted_limit_is_rounded_up_to_what_a_computed_one_is() -> None:
    world = story("""
        start TASK-1 planned=THINK override.THINK.tokens=3 override.THINK.latency_ms=3
        grant TASK-1 ×1.000000001
    """)
    assert world.lifecycles()[-1].limits["THINK"] == {"tokens": 4, "latency_ms": 4}


def test_absolute_limits_are_those_of_the_named_cells_alone() -> None:
    world = story("""
        start TASK-1 planned=THINK
        usage TASK-1 THINK 9_000                        → review
        grant TASK-1 task.tokens=20000                  → warn     # the phase is at 1.5 still
        grant TASK-1 THINK.tokens=20000 task.tokens=20000 → continue # as much again is no less
    """)
    assert world.lifecycles()[-1].limits["task"] == {"tokens": 20_000, "latency_ms": 135_000}


@pytest.mark.parametrize(
    ("line", "field"),
    [
        pytest.param("grant TASK-1 THINK.tokens=5999", "data.limits.THINK.tokens", id="less"),
        pytest.param(
            "grant TASK-1 THINK.tokens=7000 task.latency_ms=9",
            "data.limits.task.latency_ms",
            id="one of two",
        ),
        pytest.param("grant TASK-1 SLEEP.tokens=9", "data.limits.SLEEP", id="an unlisted phase"),
        pytest.param("grant TASK-1 ×1", "data.multiplier", id="no more than there is"),
        pytest.param("grant TASK-1 ×10.1", "data.multiplier", id="more than tenfold"),
        pytest.param("grant TASK-1", "data.multiplier, data.limits", id="neither"),
        pytest.param(
            "grant TASK-1 ×2 THINK.tokens=9000", "data.multiplier, data.limits", id="both"
        ),
        pytest.param("grant TASK-1 limits=null", "data.multiplier, data.limits", id="null"),
        pytest.param(
            "grant TASK-9 STRATEGIZE.tokens=4499",
            "data.limits.STRATEGIZE.tokens",
            id="less than a task that was never seen has",
        ),
        pytest.param("grant-all ×0.5", "data.multiplier", id="less for all"),
    ],
)
def test_a_grant_that_grants_nothing_is_refused(line: str, field: str) -> None:
    story(f"""
        start TASK-1 planned=THINK
        {line} → refused {field}
    """)


def test_a_refused_grant_says_what_is_allowed_in_tokens() -> None:
    world = story("""
        start TASK-1 planned=THINK
        grant TASK-1 THINK.tokens=5_999
    """)
    (letter,) = world.letters()
    assert letter.detail.value == "5999"
    assert letter.detail.allowed == "at least the current limit, 6000"


def test_an_empty_object_of_limits_grants_nothing() -> None:
    world = World()
    data = {"by": "ada", "reason": "x", "limits": {}}
    world.take(record("task.granted", "TASK-1", "e", data, START_MS))
    assert all_said(world) == ["refused data.limits"]


def test_a_grant_to_a_task_that_was_never_seen_opens_it() -> None:
    world = story("grant TASK-1 ×2 → continue; TASK-1 started; TASK-1 granted")
    assert world.lifecycles()[-1].limits["THINK"]["tokens"] == 12_000
    assert world.lifecycles()[-1].flags == ["inferred"]


def test_all_open_tasks_are_granted_more_in_order_of_their_ids() -> None:
    world = story("""
        start TASK-2 planned=THINK
        start TASK-1 planned=THINK
        start TASK-3 planned=THINK
        usage TASK-2 THINK 9_000   → review
        usage TASK-1 THINK 12_000  → block
        finish TASK-3
        grant-all ×2               → TASK-1 notice; TASK-2 continue
    """)
    granted = [line for line in all_said(world, Topic.LIFECYCLE) if line.endswith("granted")]
    assert granted == ["TASK-1 granted", "TASK-2 granted"]
    assert all_said(world, Topic.DECISIONS)[-2:] == [
        "TASK-1 block to notice observe",
        "TASK-2 review to continue observe",
    ]


def test_more_grants_than_are_remembered_are_merged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert operators.GRANTS_MAX == 64
    monkeypatch.setattr(operators, "GRANTS_MAX", 2)
    world = story("""
        start TASK-1 planned=THINK
        grant TASK-1 ×2
        grant TASK-1 task.tokens=20000
        grant TASK-1 ×1.5
        grant TASK-1 ×2
        usage TASK-1 THINK 53_999 → notice    # 36,000 of the phase, 60,000 of the task
        usage TASK-1 THINK 1      → warn; TASK-1 task tokens notice
    """)
    assert world.lifecycles()[-1].limits["task"] == {"tokens": 60_000, "latency_ms": 810_000}
    assert len(world.task("TASK-1").grants) == 2


def test_a_phase_named_after_more_grants_than_are_remembered_gets_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operators, "GRANTS_MAX", 2)
    text = """
        start TASK-1 planned=THINK
        grant TASK-1 ×2
        grant TASK-1 NAP.tokens=900
        grant TASK-1 ×1.5
        grant TASK-1 ×1.1
        usage TASK-1 WALK 290  → continue     # 100 × 2 × 1.5 × 1.1 = 330 are the limit
        usage TASK-1 NAP 1_300 → continue     # and 900 × 1.5 × 1.1 here
        begin TASK-1 THINK
    """
    merged = story(text, policy=OPEN_LIST)
    assert len(merged.task("TASK-1").grants) == 2
    monkeypatch.undo()
    separate = story(text, policy=OPEN_LIST)
    assert len(separate.task("TASK-1").grants) == 4
    limits = separate.task("TASK-1").limits
    assert merged.task("TASK-1").limits == limits
    assert limits_in(limits.phases["WALK"])[:2] == (330_000, 198_000)
    assert limits_in(limits.phases["NAP"])[:2] == (1_485_000, 198_000)


def test_another_class_after_more_grants_than_are_remembered_gets_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operators, "GRANTS_MAX", 2)
    world = story("""
        start TASK-1 planned=THINK
        grant TASK-1 ×2
        grant TASK-1 ×1.5
        grant TASK-1 ×1.1
        reclassify TASK-1 complexity=large
    """)
    assert world.lifecycles()[-1].limits["THINK"]["tokens"] == 29_700  # 6,000 × 1.5 × 3.3


def test_what_was_granted_without_a_multiplier_is_merged_into_one_grant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operators, "GRANTS_MAX", 1)
    world = story("""
        start TASK-1 planned=THINK
        grant TASK-1 THINK.tokens=7000
        grant TASK-1 task.tokens=8000
    """)
    (grant,) = world.task("TASK-1").grants
    assert grant.multiplier is None
    assert world.lifecycles()[-1].limits["task"]["tokens"] == 8_000


@pytest.mark.parametrize("multiplier", ["10", "1.000000001", "1.1", "3.333333333"])
def test_an_endless_chain_of_grants_stays_small_and_never_lowers_a_limit(
    multiplier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "GRANTS_MAX", 4)
    world = World()
    world.take(record("task.started", "TASK-1", "start", {}, START_MS))
    task = world.task("TASK-1")
    for number in range(24):
        before = task.limits
        data = {"multiplier": Decimal(multiplier), "by": "ada", "reason": "because"}
        world.take(record("task.granted", "TASK-1", f"e-{number}", data, START_MS))
        task = world.task("TASK-1")
        limits = compute_limits(task.policy, task_class(task))
        assert limits == task.limits  # merging them changes nothing
        for name, lines in limits.phases.items():
            for new, old in zip(limits_in(lines), limits_in(before.phases[name]), strict=True):
                assert (new or 0) >= (old or 0)
        assert len(task.grants) <= 4
    product = task.grants[0].multiplier
    assert product is not None
    assert 1 < product <= AMOUNT_MAX
    assert product * 10**9 == int(product * 10**9)


def test_a_reclassification_recomputes_and_keeps_overrides_and_grants() -> None:
    world = story("""
        start TASK-1 planned=THINK,PLAN override.PLAN.tokens=100
        grant TASK-1 ×2
        reclassify TASK-1 complexity=large importance=high
    """)
    last = world.lifecycles()[-1]
    assert (last.change, last.limits_version) == ("reclassified", 3)
    assert last.limits["THINK"]["tokens"] == 27_000  # 4,000 × 1.5 × 1.5 × 1.5 × 2
    assert last.limits["PLAN"]["tokens"] == 200
    assert last.limits["task"]["tokens"] == 27_200
    assert last.previous == {"complexity": "medium", "importance": "medium"}
    assert (last.by, last.reason) == ("ada", "because")
    assert last.flags == ["reclassified", "override_below_limit"]


def test_a_reclassification_may_lower_limits_and_what_is_then_crossed_is_published() -> None:
    world = story("""
        start TASK-1 planned=THINK
        usage TASK-1 THINK 5_000             → continue
        reclassify TASK-1 complexity=small   → notice      # 5,000 of 4,800
        reclassify TASK-1 complexity=tiny    → review      # 5,000 of 3,000
        reclassify TASK-1 complexity=large   → continue
    """)
    assert all_said(world, Topic.BREACHES) == [
        "TASK-1 task tokens notice",
        "TASK-1 THINK tokens notice",
        "TASK-1 task tokens warn",
        "TASK-1 task tokens review",
        "TASK-1 THINK tokens warn",
    ]


def test_a_reclassification_keeps_the_higher_of_its_own_and_a_granted_limit() -> None:
    world = story("""
        start TASK-1 planned=THINK
        grant TASK-1 THINK.tokens=7000
        reclassify TASK-1 complexity=tiny
    """)
    assert world.lifecycles()[-1].limits["THINK"]["tokens"] == 7_000
    again = story("""
        start TASK-1 planned=THINK
        grant TASK-1 THINK.tokens=7000
        reclassify TASK-1 complexity=large
    """)
    assert again.lifecycles()[-1].limits["THINK"]["tokens"] == 9_000


def test_a_reclassification_names_something() -> None:
    story("""
        start TASK-1
        reclassify TASK-1 → refused data.complexity, data.importance
    """)
