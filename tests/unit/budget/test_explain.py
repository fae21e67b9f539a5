"""Why a cell was crossed, from its own counters; and the overshoot of a block."""

import pytest

from schemas.fields import Number
from streams.budget.explain import counters_json
from streams.budget.policy import policy_from_toml
from streams.budget.state import COUNTER_NAMES, Counters
from tests.unit.budget.story import story
from tests.unit.budget.world import World


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        pytest.param(
            "usage TASK-1 THINK 8_000 out=1_000 files=20",
            "extensive_research",
            id="many tokens, many files read",
        ),
        pytest.param(
            "usage TASK-1 THINK 8_000 out=1_000 calls=10",
            "iteration",
            id="many calls, output still growing",
        ),
        pytest.param("usage TASK-1 THINK 9_000 out=100", "inefficient", id="hardly any output"),
        pytest.param(
            """
            usage TASK-1 THINK 4_000 out=500
            usage TASK-1 THINK 4_000 out=500 attempt=2
            """,
            "backtracking",
            id="half of it in later attempts",
        ),
        pytest.param(
            """
            usage TASK-1 THINK 1
            usage TASK-1 THINK out=9_000 estimated=true
            """,
            "missing_usage",
            id="half of the calls are estimates",
        ),
        pytest.param(
            """
            usage TASK-1 THINK known=false
            usage TASK-1 THINK out=9_000
            """,
            "missing_usage",
            id="half of the calls are unknown",
        ),
        pytest.param("usage TASK-1 THINK 8_000 out=1_000", "unclassified", id="none of these"),
        pytest.param("usage TASK-1 THINK ms=202_500", "slow_model", id="time, not tokens"),
        pytest.param(
            "usage TASK-1 THINK 6_000 out=1_000 ms=202_500", "unclassified", id="time and tokens"
        ),
    ],
)
def test_a_breach_of_warn_or_more_says_why(lines: str, cause: str) -> None:
    world = story(f"start TASK-1 planned=THINK\n{lines}")
    severe = [one for one in world.breaches() if one.level != "notice"]
    assert severe[-1].cause == cause
    assert {one.cause for one in world.breaches() if one.level == "notice"} == {None}


def test_an_override_below_the_computed_limit_is_the_cause() -> None:
    world = story("""
        start TASK-1 planned=THINK override.THINK.tokens=100
        usage TASK-1 THINK 150 out=20
    """)
    severe = [one for one in world.breaches() if one.level == "warn"]
    assert [(one.cell.phase, one.cause) for one in severe] == [
        ("THINK", "override_too_low"),
        (None, "unclassified"),
    ]
    assert severe[0].evidence["computed_limit"] == 6_000
    assert world.decisions()[-1].cause in {"override_too_low", "unclassified"}


def test_an_override_above_the_computed_limit_is_not() -> None:
    world = story("""
        start TASK-1 planned=THINK override.THINK.tokens=6001
        usage TASK-1 THINK 8_000 out=2_000
    """)
    (warned,) = [one for one in world.breaches() if one.cell.phase and one.level == "warn"]
    assert (warned.cause, warned.evidence["computed_limit"]) == ("unclassified", 6_000)


def test_the_evidence_is_what_the_cell_has_counted() -> None:
    world = story("""
        start TASK-1 planned=THINK,PLAN
        usage TASK-1 PLAN 100 out=10 files=3
        usage TASK-1 THINK 3_000 out=400 cost=0.25 tool_calls=2
        usage TASK-1 THINK 5_000 out=600 attempt=2
    """)
    breach = [one for one in world.breaches() if one.cell.phase == "THINK"][-1]
    assert breach.evidence == {
        "model_calls": 2,
        "input_tokens": 8_000,
        "output_tokens": 1_000,
        "cost_usd": 0.25,
        "tool_calls": 2,
        "metered_tokens": 9_000,
        "attempts": 2,
        "repeated_tokens": 5_600,
    }
    assert (breach.used, breach.limit, breach.ratio) == (9_000, 6_000, 1.5)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "usage TASK-1 THINK 5_520",
            "THINK at 92 % of its token budget (5,520 of 6,000 tokens): consider wrapping up",
        ),
        (
            "usage TASK-1 THINK ms=202_599",
            "THINK at 150 % of its time budget (202.5 of 135.0 s): go on; this is logged",
        ),
        (
            "usage TASK-1 PLAN 4_800",
            (
                "PLAN at 200 % of its token budget (4,800 of 2,400 tokens): "
                "go on, and write down why: an explanation is owed"
            ),
        ),
    ],
)
def test_a_decision_says_what_to_do_in_one_line(line: str, message: str) -> None:
    world = story(f"start TASK-1 planned=THINK,PLAN,SPEC\n{line}")
    assert world.decisions()[-1].message == message


def test_the_message_of_a_verdict_that_fell_says_so() -> None:
    world = story("""
        start TASK-1 planned=THINK
        usage TASK-1 THINK 6_000
        grant TASK-1 ×2
    """)
    assert world.decisions()[-1].message == (
        "the task at 50 % of its token budget (6,000 of 12,000 tokens): within its limits: go on"
    )


@pytest.mark.parametrize(
    ("last", "change"),
    [
        ("finish TASK-1 blocked", "ended"),
        ("grant TASK-1 ×2", "granted"),
        ("grant TASK-1 ×1.01", "granted"),
        ("reclassify TASK-1 complexity=large", "reclassified"),
        ("start TASK-1 x=2", "started"),
    ],
)
def test_what_was_used_beyond_a_block_is_published_with_what_ends_it(
    last: str, change: str
) -> None:
    opened = "" if change == "started" else "start TASK-1 planned=THINK"
    more = 46_800 - 12_000 if change == "started" else 0
    world = story(f"""
        {opened}
        usage TASK-1 THINK {12_000 + more}   → block
        usage TASK-1 THINK 700
        {last}
    """)
    told = world.lifecycles()[-1]
    assert told.change == change
    assert told.overshoot is not None
    assert (told.overshoot.used, told.overshoot.overshoot) == (12_700 + more, 700)
    assert told.overshoot.cell.metric == "tokens"


def test_an_overshoot_is_that_of_the_last_block() -> None:
    world = story("""
        start TASK-1 planned=THINK
        usage TASK-1 THINK 12_500     → block
        reclassify TASK-1 complexity=large → warn     # 9,000: no block any more
        usage TASK-1 THINK 5_500      → block
        usage TASK-1 THINK 30
        finish TASK-1
    """)
    over = world.lifecycles()[-1].overshoot
    assert over is not None
    assert (over.at_block, over.used, over.overshoot) == (18_000, 18_030, 30)


BLOCK_EVERYWHERE = policy_from_toml(
    """
    [ladders.phase.tokens]
    review = 1.8
    block = 2.0
    [ladders.task.latency_ms]
    block = 2.0
    """,
    "everywhere.toml",
)


def overshoots(world: World) -> list[tuple[str, Number, Number] | None]:
    """What each change of a task said: phase or task and metric, at block, and beyond it."""
    return [
        None
        if (over := one.overshoot) is None
        else (f"{over.cell.phase or 'task'} {over.cell.metric}", over.at_block, over.overshoot)
        for one in world.lifecycles()[1:]
    ]


def test_a_grant_that_lifts_one_block_leaves_the_overshoot_of_the_other() -> None:
    world = story(
        """
        start  TASK-1 planned=THINK,SPEC            # 6,000 and 1,500
        usage  TASK-1 SPEC 3_000       → block
        usage  TASK-1 THINK 12_000     → block      # the phase, and the task
        usage  TASK-1 SPEC 500
        grant  TASK-1 SPEC.tokens=9000 → block      # it lifts that of SPEC
        usage  TASK-1 THINK 70
        grant  TASK-1 ×10              → continue
        finish TASK-1
        """,
        policy=BLOCK_EVERYWHERE,
    )
    assert overshoots(world) == [
        ("SPEC tokens", 3_000, 500),
        ("THINK tokens", 12_000, 70),
        None,
    ]


def test_a_block_that_is_withdrawn_leaves_the_overshoot_of_the_other() -> None:
    world = story(
        """
        start  TASK-1 planned=THINK
        begin  TASK-1 THINK
        usage  TASK-1 THINK 12_000 +270s → block    # by time first, then by tokens
        usage  TASK-1 THINK 30
        end    TASK-1 THINK ms=1_000     → block
        finish TASK-1
        """,
        policy=BLOCK_EVERYWHERE,
    )
    assert overshoots(world) == [("THINK tokens", 12_000, 30)]


def test_a_reclassification_that_lifts_one_of_two_blocks_says_its_overshoot() -> None:
    world = story(
        """
        start  TASK-1 planned=THINK,SPEC override.THINK.tokens=1000
        usage  TASK-1 SPEC 3_000                     → block
        usage  TASK-1 THINK 2_000                    → block
        usage  TASK-1 SPEC 40
        reclassify TASK-1 complexity=large           → block    # SPEC may use 2,250 now
        finish TASK-1
        """,
        policy=BLOCK_EVERYWHERE,
    )
    assert overshoots(world) == [("SPEC tokens", 3_000, 40), ("THINK tokens", 2_000, 0)]


def test_what_is_derived_anew_and_blocks_no_more_has_no_overshoot() -> None:
    world = story("""
        start   TASK-1 planned=THINK,PR              # 6,000 and 900
        usage   TASK-1 THINK 13_800    → block
        begin   TASK-1 THINK
        end     TASK-1 THINK ms=1                    # almost done: it may use 900 more
        recover TASK-1 refold          → review
        finish  TASK-1
    """)
    assert overshoots(world) == [None, None]


def test_a_task_that_was_never_blocked_has_none() -> None:
    world = story("start TASK-1\nfinish TASK-1")
    assert world.lifecycles()[-1].overshoot is None


def test_a_block_by_time_overshoots_in_time() -> None:
    policy = policy_from_toml("[ladders.task.latency_ms]\nblock = 2.0", "time.toml")
    world = story(
        """
        start TASK-1 planned=THINK
        begin TASK-1 THINK
        tick  +270s        → block
        grant TASK-1 ×3 +5s → continue
        """,
        policy=policy,
    )
    over = world.lifecycles()[-1].overshoot
    assert over is not None
    assert (over.cell.metric, over.at_block, over.overshoot) == ("latency_ms", 270_000, 5_000)


@pytest.mark.parametrize("name", COUNTER_NAMES)
def test_every_counter_is_told_under_its_name_and_a_missing_one_is_0(name: str) -> None:
    counters = Counters(**{name: 3_000_000_000})
    told: Number = 3 if name == "cost_usd" else 3_000_000_000
    assert counters_json(counters, zeros=False) == {name: told}
    assert list(counters_json(counters, zeros=True).items()) == [
        (one, told if one == name else 0) for one in COUNTER_NAMES
    ]
