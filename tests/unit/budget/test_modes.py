"""Who is really held: modes, the breaker, and why a decision holds nobody."""

import pytest

from schemas.topics import Topic
from streams.budget.policy import policy_from_toml
from tests.unit.budget.story import all_said, story

BLOCKED = """
    start LOW planned=THINK importance=low          # 4,200
    start HIGH planned=THINK importance=high        # 9,000
    usage LOW THINK 9_000
    usage HIGH THINK 18_000
"""


def decisions(text: str) -> list[str]:
    return all_said(story(text), Topic.DECISIONS)


@pytest.mark.parametrize(
    ("mode", "low", "high"),
    [
        pytest.param("", "observe", "observe", id="observe is where it begins"),
        pytest.param("mode observe", "observe", "observe", id="observe"),
        pytest.param("mode partial", "enforced", "partial", id="partial"),
        pytest.param("mode enforce", "enforced", "enforced", id="enforce"),
        pytest.param("mode observe by=breaker", "breaker", "breaker", id="the breaker"),
        pytest.param(
            "mode enforce\nmode observe by=breaker\nmode observe",
            "observe",
            "observe",
            id="a person after the breaker",
        ),
    ],
)
def test_a_mode_holds(mode: str, low: str, high: str) -> None:
    assert decisions(f"{mode}\n{BLOCKED}") == [
        f"LOW continue to block {low}",
        f"HIGH continue to block {high}",
    ]


def test_a_change_of_mode_decides_again_what_stands_at_review_or_block() -> None:
    told = decisions("""
        start T4 planned=THINK
        start T3 planned=THINK
        start T2 planned=THINK
        start T1 planned=THINK
        start T0 planned=THINK
        usage T4 THINK 12_000     → block
        usage T3 THINK 9_000      → review
        usage T2 THINK 8_999      → warn
        usage T0 THINK 12_000     → block
        finish T0
        mode enforce
        mode enforce              → nothing
        mode observe by=breaker
        mode observe              → T3 review to review observe
        mode observe by=ada       → nothing
    """)
    assert told[4:] == [
        "T3 review to review enforced",
        "T4 block to block enforced",
        "T3 review to review breaker",
        "T4 block to block breaker",
        "T3 review to review observe",
        "T4 block to block observe",
    ]


def test_the_end_of_a_task_comes_first_among_the_reasons() -> None:
    told = decisions("""
        mode observe by=breaker
        start TASK-1 planned=THINK
        finish TASK-1
        usage TASK-1 THINK 9_000  → review
    """)
    assert told == ["TASK-1 continue to review ended"]


def test_the_mode_before_is_remembered() -> None:
    world = story("mode partial\nmode enforce")
    assert (world.state.previous_mode, world.state.mode) == ("partial", "enforce")


def test_another_policy_changes_no_mode() -> None:
    world = story(
        """
        mode enforce
        policy other
        start TASK-1 planned=THINK
        usage TASK-1 THINK 9_000  → TASK-1 continue to review enforced
        """,
        other=policy_from_toml('version = "other"', "other.toml"),
    )
    assert world.decisions()[0].policy.version == "other"
