"""A block that is inherited is its parent's: whoever is held by it owes nothing, and is told whose it is."""

import pytest

from streams.insight.report_text import plain_text
from tests.unit.insight.test_reports import report_on

FAMILY = """
    start TASK-P planned=THINK
    start TASK-1 planned=THINK parent=TASK-P
"""


@pytest.mark.parametrize("with_state", [False, True])
def test_who_inherits_a_block_owes_nothing_and_is_told_whose_it_is(*, with_state: bool) -> None:
    history = f"{FAMILY}\nusage TASK-P THINK 12_000  → block; TASK-1 block"
    report = report_on(history, with_state=with_state)
    assert (report.verdict, report.inherited_from) == ("block", "TASK-P")
    assert (report.explanation, report.blocks) == ("none", [])
    assert report.summary[0] == (
        "Within budget: 0 % of its token budget (0 of 6,000 tokens); at block, inherited from TASK-P."
    )
    assert report.summary[2] == (
        "Investigate TASK-P, which is above it, and grant that one more (`stoploss grant TASK-P …`): "
        "that lifts this block, and a grant to TASK-1 does not."
    )
    assert "verdict block, inherited from TASK-P" in plain_text(report)
    assert "false positive" not in plain_text(report)
    lifted = report_on(
        f"""
        {history}
        explain TASK-P "the migration was missing"
        grant   TASK-P ×4              → continue; TASK-1 continue
        """,
        with_state=with_state,
    )
    assert (lifted.verdict, lifted.inherited_from) == ("continue", None)
    assert (lifted.explanation, lifted.summary[2]) == ("none", "Nothing to do.")


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize(
    ("history", "above", "owed", "said"),
    [
        pytest.param(
            """
            usage TASK-1 THINK 9_500       → review
            usage TASK-P THINK 12_000      → block; TASK-1 block
            """,
            "TASK-P",
            "owed",
            "a grant to TASK-1 does not. Write down why: ",
            id="it was at review before",
        ),
        pytest.param(
            """
            usage   TASK-1 THINK 9_500     → review
            explain TASK-1 "the tests are slow"
            usage   TASK-P THINK 12_000    → block; TASK-1 block
            grant   TASK-P ×9              → continue; TASK-1 review
            """,
            None,
            "none",
            "Look at the transcript of the task: ",
            id="it was at review before, said why, and is again",
        ),
        pytest.param(
            """
            usage TASK-P THINK 12_000      → block; TASK-1 block
            usage TASK-1 THINK 9_500
            """,
            "TASK-P",
            "owed",
            "a grant to TASK-1 does not. Write down why: ",
            id="it comes to review meanwhile",
        ),
        pytest.param(
            """
            usage TASK-P THINK 12_000      → block; TASK-1 block
            usage TASK-1 THINK 9_500
            grant TASK-P ×9                → continue; TASK-1 review
            """,
            None,
            "owed",
            "Write down why: ",
            id="it came to review meanwhile, and the block is lifted",
        ),
        pytest.param(
            """
            usage   TASK-P THINK 12_000    → block; TASK-1 block
            usage   TASK-1 THINK 9_500
            explain TASK-1 "the tests are slow"
            grant   TASK-P ×9              → continue; TASK-1 review
            """,
            None,
            "none",
            "Look at the transcript of the task: ",
            id="it came to review meanwhile, and has said why",
        ),
        pytest.param(
            """
            usage TASK-P THINK 12_000      → block; TASK-1 block
            usage TASK-1 THINK 12_500
            """,
            None,
            "owed",
            "Investigate; then grant more (`stoploss grant`) or end the task. Write down why: ",
            id="it comes to block itself meanwhile, which is no decision",
        ),
    ],
)
def test_who_inherits_a_block_owes_what_it_came_to_itself(
    history: str, above: str | None, owed: str, said: str, *, with_state: bool
) -> None:
    report = report_on(FAMILY + history, with_state=with_state)
    assert (report.inherited_from, report.explanation) == (above, owed)
    assert said in report.summary[2]
    assert report.blocks == []


def test_a_level_that_was_withdrawn_while_a_block_is_inherited_is_not_owed() -> None:
    report = report_on("""
        start TASK-P planned=THINK
        start TASK-1 planned=THINK,PLAN parent=TASK-P
        usage TASK-P THINK 12_000      → block; TASK-1 block
        begin TASK-1 THINK
        tick  +5m
        end   TASK-1 THINK ms=1000
    """)
    assert (report.inherited_from, report.explanation) == ("TASK-P", "none")


def test_where_a_mode_tells_a_block_of_its_own_after_an_inherited_one_it_is_asked_about() -> None:
    report = report_on(f"""
        {FAMILY}
        usage TASK-P THINK 12_000      → block; TASK-1 block
        usage TASK-1 THINK 12_500
        mode  enforce
    """)
    assert (report.inherited_from, report.explanation) == (None, "owed")
    assert [block.enforced for block in report.blocks] == [True]
