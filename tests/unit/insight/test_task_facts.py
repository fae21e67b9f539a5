"""What is known of a task does not depend on which topic was read first, nor on how often."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.envelope import Envelope
from schemas.feedback import Feedback
from schemas.fields import Verdict
from streams.insight import task_facts
from streams.insight.task_facts import TaskFacts, decode_facts, encode_facts, tell_feedback
from tests.unit.budget.story import story
from tests.unit.insight.told import facts_of, records, shuffled, tasks_of

HISTORY = """
    start  TASK-1 planned=THINK,IMPLEMENT owner=ann team=red task_type=fix
    start  TASK-2 parent=TASK-1 planned=THINK
    begin  TASK-1 THINK
    usage  TASK-1 THINK 9_000 files=30
    usage  TASK-2 THINK 5_000
    explain TASK-1 "the plan missed the migration"
    end    TASK-1 THINK backtracked ms=10000
    begin  TASK-1 THINK +1m
    usage  TASK-1 THINK 9_000
    grant  TASK-1 ×2
    end    TASK-1 THINK completed ms=20000
    usage  TASK-1 THINK 100
    finish TASK-1 completed
    finish TASK-2 failed
    usage  TASK-1 THINK 50
"""
TOLD = records(story(HISTORY))
# The same ids again, once their memory has gone.
SECOND_LIFE = f"""
    {HISTORY}
    tick +30h
    start  TASK-1 planned=PLAN complexity=large
    usage  TASK-1 PLAN 90_000
    end    TASK-1 PLAN completed ms=1000
    finish TASK-1 failed
"""
TOLD_FAMILY = records(
    story("""
        start TASK-1 planned=THINK
        start TASK-2 parent=TASK-1 planned=THINK
        usage TASK-1 THINK 12_000      → block; TASK-2 block
        usage TASK-2 THINK 9_500
        grant TASK-1 ×9                → continue; TASK-2 review
    """)
)
TOLD_TWO_LIVES = records(story(SECOND_LIFE))


@given(st.integers(0, 2**32))
def test_any_order_between_topics_gives_the_same_facts(seed: int) -> None:
    assert facts_of(shuffled(TOLD, seed)) == facts_of(TOLD)


@given(st.integers(0, 2**32))
def test_a_block_that_was_inherited_is_the_parents_in_any_order(seed: int) -> None:
    found = facts_of(shuffled(TOLD_FAMILY, seed))
    assert found == facts_of(TOLD_FAMILY)
    assert (len(found["TASK-1"].blocks), len(found["TASK-2"].blocks)) == (1, 0)


@given(st.integers(0, 2**32))
def test_an_id_that_is_used_again_is_another_task_in_any_order(seed: int) -> None:
    found = facts_of(shuffled(TOLD_TWO_LIVES, seed))
    assert found == facts_of(TOLD_TWO_LIVES)
    assert [run.phase for run in found["TASK-1"].runs.values()] == ["PLAN"]
    assert found["TASK-1"].outcome == "failed"
    assert {crossing.cell.phase for crossing in found["TASK-1"].crossings.values()} == {
        None,
        "PLAN",
    }


def test_a_start_that_comes_after_the_end_is_of_the_same_task() -> None:
    facts = tasks_of("""
        usage  TASK-1 THINK 100
        finish TASK-1 completed
        start  TASK-1 complexity=large
    """)["TASK-1"]
    assert (facts.status, facts.complexity, list(facts.runs)) == ("ended", "large", ["THINK#1"])


def test_a_run_is_what_its_last_revision_says() -> None:
    runs = facts_of(TOLD)["TASK-1"].runs
    assert {name: (run.outcome, run.metered_tokens) for name, run in runs.items()} == {
        "THINK#1": ("backtracked", 9_150),  # usage without an attempt, when none is open
        "THINK#2": ("completed", 9_000),
    }


def test_a_verdict_that_falls_is_the_last_one() -> None:
    facts = tasks_of("""
        start  TASK-1 planned=THINK
        usage  TASK-1 THINK 12_500     → block
        grant  TASK-1 ×10              → continue
    """)["TASK-1"]
    assert facts.verdict is Verdict.CONTINUE
    (block,) = facts.blocks.values()
    assert block.message == (
        "the task at 208 % of its token budget (12,500 of 6,000 tokens): "
        "stop until someone investigates or grants more"
    )


def test_an_answer_belongs_to_its_block() -> None:
    facts = tasks_of("""
        start  TASK-1 planned=THINK
        usage  TASK-1 THINK 12_500
    """)["TASK-1"]
    (block,) = facts.blocks.values()
    for decision_id, answer in ((block.decision_id, True), ("3-99-0", False)):
        feedback = Feedback(
            task_id="TASK-1", decision_id=decision_id, false_positive=answer, by="ann"
        )
        tell_feedback(
            facts,
            Envelope(id="1", source="cli", type="", subject="TASK-1", time="", data=feedback),
        )
    assert (block.false_positive, block.answered_by) == (True, "ann")


def test_facts_are_read_back_as_they_were() -> None:
    for facts in facts_of(TOLD).values():
        assert decode_facts(encode_facts(facts)) == facts


def test_a_task_that_backtracks_for_ever_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNS_MAX", "CROSSINGS_MAX", "EXPLANATIONS_MAX", "CHILDREN_MAX"):
        monkeypatch.setattr(task_facts, name, 2)
    monkeypatch.setattr(task_facts, "LIMITS_CHANGES_MAX", 1)
    turn = 'end TASK-1 THINK backtracked\nbegin TASK-1 THINK\nexplain TASK-1 "again"\n'
    children = "".join(f"start TASK-1{number} parent=TASK-1\n" for number in range(3))
    facts = tasks_of(
        f"start TASK-1\nbegin TASK-1 THINK\n{turn * 4}usage TASK-1 THINK 90_000\n"
        f"grant TASK-1 ×2\ngrant TASK-1 ×2 by=bob\n{children}"
    )
    task = facts["TASK-1"]
    assert (len(task.runs), len(task.crossings), len(task.explanations)) == (2, 2, 2)
    assert [each.by for each in task.limits_changes] == ["bob"]
    assert list(task.runs) == ["THINK#3", "THINK#4"]
    assert list(task.children) == ["TASK-10", "TASK-11"]


def test_a_foreign_id_has_no_place() -> None:
    with pytest.raises(ValueError, match="unpack"):
        task_facts.place_of("abc")


def test_nothing_is_known_of_a_task_at_first() -> None:
    assert TaskFacts(task_id="TASK-1").is_ended is False
