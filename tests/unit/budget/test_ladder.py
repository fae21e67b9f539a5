"""Levels: where they begin, how often they are told, and what the almost finished get."""

import pytest

from schemas.topics import Topic
from streams.budget.ladder import (
    BLOCK,
    CONTINUE,
    NEVER,
    NOTICE,
    REVIEW,
    WARN,
    crossed,
    level_at,
    line,
    next_at,
)
from streams.budget.policy import policy_from_toml
from tests.unit.budget.story import all_said, story, tell

TASK_TOKENS = line(10_000, (9_000, 12_000, 15_000, 20_000))
NO_WARN = line(10_000, (9_000, None, 15_000, None))


@pytest.mark.parametrize(
    ("used", "standing", "reached"),
    [
        pytest.param(8_999, CONTINUE, [], id="one below the share is not there yet"),
        pytest.param(9_000, CONTINUE, [NOTICE], id="the share itself counts"),
        pytest.param(15_000, NOTICE, [WARN, REVIEW], id="one event, two levels"),
        pytest.param(15_000, REVIEW, [], id="a level is crossed once"),
        pytest.param(10**30, CONTINUE, [NOTICE, WARN, REVIEW, BLOCK], id="all of them"),
    ],
)
def test_a_cell_crosses_each_level_once(used: int, standing: int, reached: list[int]) -> None:
    assert list(crossed(TASK_TOKENS.at, used, standing=standing)) == reached


def test_a_level_that_a_ladder_does_not_have_is_passed_over() -> None:
    assert list(crossed(NO_WARN.at, 10**9, standing=CONTINUE)) == [NOTICE, REVIEW]
    assert level_at(NO_WARN.at, 14_999) == NOTICE
    assert next_at(NO_WARN.at, NOTICE) == 15_000
    assert next_at(NO_WARN.at, REVIEW) == next_at(NO_WARN.at, BLOCK) == NEVER


def test_a_level_begins_at_the_smallest_amount_that_is_not_below_its_share() -> None:
    assert line(3, (9_000, 12_000, 15_000, 20_000)).at == (3, 4, 5, 6)
    assert line(333, (9_001, None, None, None)).at[0] == 300


def test_each_cell_has_its_own_ladder() -> None:
    world = story("""
        start TASK-1 planned=THINK,PLAN      # 6,000 + 2,400 tokens
        usage TASK-1 THINK 5_399  → continue
        usage TASK-1 THINK 1      → notice   # of the phase: 0.9
        usage TASK-1 THINK 3_599  → notice   # the task: 8,999 of 8,400
        usage TASK-1 THINK 1      → warn     # of the phase: 1.5
        usage TASK-1 THINK 3_000  → review   # of the phase: 2.0
        usage TASK-1 PLAN  4_799  → review
        usage TASK-1 PLAN  1      → block    # of the task: 2.0; a phase has none
    """)
    assert all_said(world, Topic.BREACHES) == [
        "TASK-1 THINK tokens notice",
        "TASK-1 task tokens notice",
        "TASK-1 THINK tokens warn",
        "TASK-1 THINK tokens review",
        "TASK-1 task tokens warn",
        "TASK-1 PLAN tokens notice",
        "TASK-1 PLAN tokens warn",
        "TASK-1 task tokens review",
        "TASK-1 PLAN tokens review",
        "TASK-1 task tokens block",
    ]


def test_one_event_that_passes_several_levels_is_one_decision() -> None:
    world = story("""
        start TASK-1 planned=THINK
        usage TASK-1 THINK 12_000 → block
    """)
    assert [breach.level for breach in world.breaches()] == [
        *("notice", "warn", "review"),
        *("notice", "warn", "review", "block"),
    ]
    (decision,) = world.decisions()
    assert (decision.number, decision.previous, decision.verdict) == (1, "continue", "block")
    assert decision.message == (
        "the task at 200 % of its token budget (12,000 of 6,000 tokens): "
        "stop until someone investigates or grants more"
    )
    assert (decision.used, decision.limit, decision.ratio) == (12_000, 6_000, 2.0)
    assert decision.event_id == "e-1"
    assert (decision.input.partition, decision.input.offset) == (3, 1)


def test_cost_is_limited_where_there_is_a_limit() -> None:
    world = story("""
        start TASK-1 planned=THINK override.task.cost_usd=1.0
        usage TASK-1 THINK cost=0.9   → notice
        usage TASK-1 THINK cost=0.6   → review
        usage TASK-1 THINK cost=0.499999999 → review
        usage TASK-1 THINK cost=0.000000001 → block
    """)
    assert world.decisions()[-1].message == (
        "the task at 200 % of its cost budget ($2.00 of $1.00): "
        "stop until someone investigates or grants more"
    )


ALMOST = """
    start TASK-1 planned=THINK,PLAN,PR,MONITOR     # 6,000 + 2,400 + 900 + 600: block at 19,800
    begin TASK-1 THINK
    usage TASK-1 THINK 15_000
    end   TASK-1 THINK                → review
    begin TASK-1 PLAN
    end   TASK-1 PLAN                 → review     # only PR and MONITOR are left: 21,300
"""


def test_an_almost_finished_task_is_blocked_later() -> None:
    story(
        ALMOST
        + """
        usage TASK-1 PR 4_800             → review # 19,800
        usage TASK-1 PR 1_499             → review
        usage TASK-1 PR 1                 → block
    """
    )


def test_a_block_that_was_reached_stays_when_a_task_comes_to_be_almost_finished() -> None:
    world = story("""
        start TASK-1 planned=THINK,PR       # 6,000 + 900
        begin TASK-1 THINK
        usage TASK-1 THINK 14_000 → block   # of 13,800; 14,700 once THINK is completed
        end   TASK-1 THINK        → block
        review TASK-1 approve     → block
        recover TASK-1 refold     → review  # an operator has it all judged anew
    """)
    assert [one.verdict for one in world.decisions()] == ["block", "review"]


def test_a_task_that_has_to_go_back_is_almost_finished_no_more() -> None:
    story(
        ALMOST
        + """
        usage TASK-1 PR 5_000             → review # 20,000
        begin TASK-1 PLAN                 → block  # the newest attempt is not completed
    """
    )


@pytest.mark.parametrize(
    "back",
    [
        "begin TASK-1 PLAN",
        "usage TASK-1 PLAN attempt=2 cost=0.1",
        "usage TASK-1 PLAN attempt=2",
    ],
)
def test_whatever_begins_an_attempt_anew_judges_the_task_by_what_holds_then(back: str) -> None:
    story(f"""
        start TASK-1 planned=PLAN,PR override.PLAN.cost_usd=1.0 override.PR.cost_usd=1.0
        begin TASK-1 PLAN
        end   TASK-1 PLAN
        usage TASK-1 PR cost=4.0  → review      # of 2: block at 4, at 5 while only PR is left
        {back}                    → block
    """)


def test_a_phase_that_begins_again_after_its_tasks_end_judges_the_task_as_well() -> None:
    story(
        ALMOST
        + """
        usage TASK-1 PR 5_000             → review # 20,000
        finish TASK-1                     → review
        begin TASK-1 PLAN                 → block; TASK-1 review to block ended
    """
    )


def test_a_phase_that_failed_is_not_completed() -> None:
    world = story("""
        start TASK-1 planned=THINK,PR
        begin TASK-1 THINK
        end   TASK-1 THINK failed
        usage TASK-1 PR 13_800   → block
    """)
    again = story("""
        start TASK-1 planned=THINK,PR
        begin TASK-1 THINK
        end   TASK-1 THINK failed
        end   TASK-1 THINK completed         # a second end replaces the outcome
        usage TASK-1 PR 13_800   → review
        end   TASK-1 THINK failed → block    # and takes it back
    """)
    assert len(world.decisions()) == 1
    assert len(again.decisions()) == 2


def test_a_policy_can_block_a_phase_and_leave_levels_out() -> None:
    policy = policy_from_toml(
        """
        [ladders.phase.tokens]
        notice = "never"
        warn = 1
        review = "never"
        block = 1.5
        """,
        "strict.toml",
    )
    world = story(
        """
        start TASK-1
        usage TASK-1 THINK 5_999   → continue
        usage TASK-1 THINK 1       → warn
        usage TASK-1 THINK 3_000   → block
        """,
        policy=policy,
    )
    assert all_said(world, Topic.BREACHES) == [
        "TASK-1 THINK tokens warn",
        "TASK-1 THINK tokens block",
    ]
    tell(world, "grant TASK-1 THINK.tokens=6_001 → warn")
