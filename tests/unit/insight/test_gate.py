"""The gate: how many honest tasks a policy would have blocked, and when that is few enough."""

import itertools
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.fields import Cause, Complexity, Importance, Metric, Verdict
from streams.insight.gate import (
    TASKS_MIN,
    Ended,
    Explained,
    Fate,
    Group,
    Judged,
    JudgedTasks,
    amounts_json,
    fate_of,
    gate,
    judged,
)
from streams.insight.intervals import wilson
from tests.unit.insight.gated import LIMIT, a_task, history, one, stop, tasks, would_be

BLOCK = stop(2 * LIMIT)
TASKS = st.lists(
    st.tuples(st.sampled_from(Ended), st.booleans(), st.sampled_from(["codex", "claude"])),
    max_size=130,
)


def made(drawn: list[tuple[Ended, bool, str]]) -> JudgedTasks:
    return JudgedTasks(
        [
            a_task(number, ended, blocked=blocked, task_type=task_type)
            for number, (ended, blocked, task_type) in enumerate(drawn)
        ]
    )


@pytest.mark.parametrize(
    ("success", "finished", "answer", "ended", "is_wrong"),
    [
        pytest.param(True, True, None, Ended.RIGHT, True, id="right: a false positive"),
        pytest.param(True, False, None, Ended.RIGHT, True, id="right, though it ran out of time"),
        pytest.param(None, True, None, Ended.FINISHED, True, id="finished: a suspected one"),
        pytest.param(None, None, None, Ended.UNKNOWN, True, id="unknown counts against the policy"),
        pytest.param(False, True, None, Ended.FAILED, False, id="finished, and wrong"),
        pytest.param(None, False, None, Ended.UNFINISHED, False, id="it did not come to an end"),
        pytest.param(None, False, True, Ended.RIGHT, True, id="somebody called the block false"),
        pytest.param(None, True, False, Ended.FAILED, False, id="somebody called the block right"),
    ],
)
def test_a_block_is_wrong_unless_the_task_is_known_to_have_failed(
    *,
    success: bool | None,
    finished: bool | None,
    answer: bool | None,
    ended: Ended,
    is_wrong: bool,
) -> None:
    task = history(success=success, finished=finished)
    blocked = one(task, would_be(block=BLOCK), answer=answer)
    assert (blocked.ended, blocked.is_wrong, blocked.has_failed) == (ended, is_wrong, not is_wrong)
    assert not one(task, would_be(), answer=answer).is_wrong


@pytest.mark.parametrize(
    ("right", "wrong", "partial", "enforce"),
    [
        pytest.param(49, 0, False, False, id="49 tasks are too few, whatever they say"),
        pytest.param(50, 0, True, False, id="0 in 50: it may still be 7 %"),
        pytest.param(72, 0, True, False, id="0 in 72: the upper end is just above"),
        pytest.param(73, 0, True, True, id="0 in 73: the upper end is just below"),
        pytest.param(107, 1, True, False, id="1 in 108: 5.06 %"),
        pytest.param(109, 1, True, True, id="1 in 110: 4.97 %"),
        pytest.param(95, 5, False, False, id="5 % itself is not below"),
        pytest.param(96, 4, True, False, id="4 % is below, and its upper end is not"),
        pytest.param(960, 30, True, True, id="3 % of a thousand"),
    ],
)
def test_partial_asks_for_a_share_and_enforce_for_the_upper_end_of_its_interval(
    right: int, wrong: int, *, partial: bool, enforce: bool
) -> None:
    found = gate(tasks(right=right, right_blocked=wrong))
    assert (found.partial.holds, found.enforce.holds) == (partial, enforce)
    assert found.total.interval == wilson(wrong, right + wrong)


@given(TASKS)
def test_a_gate_never_holds_on_fewer_tasks_than_its_minimum(
    drawn: list[tuple[Ended, bool, str]],
) -> None:
    found = gate(made(drawn))
    enough = len(drawn) >= TASKS_MIN
    assert enough or not (found.partial.holds or found.enforce.holds)
    assert enough == ("to judge by" not in found.partial.why)
    # What is good enough to hold everybody is good enough to hold some.
    assert found.partial.holds or not found.enforce.holds


@given(TASKS, st.data())
def test_another_wrong_block_opens_no_gate(
    drawn: list[tuple[Ended, bool, str]], data: st.DataObject
) -> None:
    drawn = [*drawn, (Ended.RIGHT, False, "codex")]
    index = data.draw(st.integers(0, len(drawn) - 1))
    worse = [*drawn]
    worse[index] = (Ended.FINISHED, True, "codex")
    before, after = gate(made(drawn)), gate(made(worse))
    assert before.partial.holds or not after.partial.holds
    assert before.enforce.holds or not after.enforce.holds


@given(TASKS)
def test_every_task_counts_once_in_each_grouping(drawn: list[tuple[Ended, bool, str]]) -> None:
    found = gate(made(drawn))
    for groups in (found.by_task_type, found.by_tier, found.by_phase):
        for name in ("tasks", "blocked", "failed", "failed_blocked", "wrong", "suspected"):
            assert sum(getattr(each, name) for each in groups) == getattr(found.total, name)
    total = found.total
    assert total.wrong == total.false_positives + total.suspected + total.unknown
    assert total.blocked == total.wrong + total.failed_blocked
    assert sum(total.verdicts.values()) == total.tasks


def test_a_group_has_what_was_counted() -> None:
    found = gate(tasks(right=90, right_blocked=1, finished_blocked=2, unknown_blocked=1, failed=4,
                       failed_blocked=2))  # fmt: skip
    assert found.total == Group(
        name="all",
        tasks=100,
        verdicts={
            Verdict.CONTINUE: 94,
            Verdict.NOTICE: 0,
            Verdict.WARN: 0,
            Verdict.REVIEW: 0,
            Verdict.BLOCK: 6,
        },
        blocked=6,
        failed=6,
        failed_blocked=2,
        false_positives=1,
        suspected=2,
        unknown=1,
        wrong=4,
        wrong_share=0.04,
        interval=wilson(4, 100),
    )
    assert found.partial.why == (
        "4 of 100 tasks would have been wrongly blocked: 4.0 %, and it must be below 5.0 %"
    )
    assert found.enforce.why == (
        "with 4 of 100 tasks the share of wrongly blocked ones is up to 9.8 % (95 %), and it must be "
        "below 5.0 %"
    )


def test_nothing_to_judge_by_is_no_gate() -> None:
    found = gate(JudgedTasks([]))
    assert (found.total.wrong_share, found.total.interval.upper) == (0.0, 1.0)
    assert found.partial.why == "0 tasks to judge by, and it must be at least 50"
    assert not found.partial.holds
    assert not found.enforce.holds


def test_it_is_said_by_type_and_tier_and_by_the_phase_in_which_a_block_would_have_come() -> None:
    high = history(
        "A",
        success=True,
        task_type=None,
        importance=Importance.HIGH,
        complexity=Complexity.LARGE,
        phases=("THINK", "VERIFY"),
    )
    low = history("B", success=True, phases=("THINK",))
    elsewhere = stop(2 * LIMIT, phase="PR")
    nowhere = stop(2 * LIMIT, phase=None)
    cases = [
        (high, would_be("A", block=stop(2 * LIMIT, phase="VERIFY"))),
        (low, would_be("B", block=elsewhere)),
        (history("C", success=True), would_be("C", block=nowhere)),
    ]
    found = gate(JudgedTasks([one(task, said) for task, said in cases]))
    assert [(each.name, each.blocked) for each in found.by_task_type] == [("codex", 2), ("none", 1)]
    assert [each.name for each in found.by_tier] == ["high/large", "medium/medium"]
    assert [(each.name, each.tasks, each.wrong) for each in found.by_phase] == [
        ("PR", 1, 1),
        ("THINK", 3, 0),
        ("VERIFY", 1, 1),
    ]


def test_what_nobody_knows_the_usage_of_is_left_out_and_counted() -> None:
    known, unknown = history("A", unknown_share=0.49), history("B", unknown_share=0.5)
    found = judged([known, unknown], {"A": would_be("A"), "B": would_be("B", block=stop(LIMIT))})
    assert ([each.task.task_id for each in found.tasks], found.usage_unknown) == (["A"], 1)
    assert gate(found).usage_unknown == 1


def test_a_task_that_no_policy_was_asked_about_is_left_out() -> None:
    assert judged([history("A")], {}) == JudgedTasks([])


@pytest.mark.parametrize("order", [*itertools.permutations("PCG")], ids="".join)
def test_a_block_of_a_sub_agent_is_one_of_the_root_task(order: tuple[str, ...]) -> None:
    family = {
        "P": history("P", finished=True),
        "C": history("C", parent_id="P"),
        "G": history("G", parent_id="C"),
    }
    said = {"P": would_be("P"), "C": would_be("C"), "G": would_be("G", block=BLOCK)}
    found = judged([family[name] for name in order], said)
    (task,) = found.tasks
    assert (task.task.task_id, task.would_be.peak, task.would_be.block) == (
        "P",
        Verdict.BLOCK,
        BLOCK,
    )


def test_a_root_task_that_is_blocked_keeps_its_own_block() -> None:
    own, below = stop(3 * LIMIT), stop(2 * LIMIT)
    found = judged(
        [history("P"), history("C", parent_id="P")],
        {"P": would_be("P", block=own), "C": would_be("C", block=below)},
    )
    assert [each.would_be.block for each in found.tasks] == [own]


def test_a_task_whose_parent_is_not_in_the_history_stands_for_itself() -> None:
    found = judged([history("C", parent_id="P")], {"C": would_be("C")})
    assert [each.task.task_id for each in found.tasks] == ["C"]


def test_the_tasks_to_look_at_first_are_the_surest_mistakes_and_then_the_nearest_ones() -> None:
    found = gate(
        JudgedTasks(
            [
                a_task(0, Ended.UNKNOWN, blocked=True, used=9 * LIMIT),
                a_task(1, Ended.RIGHT, blocked=True, used=3 * LIMIT),
                a_task(2, Ended.RIGHT, blocked=True, used=4 * LIMIT),
                a_task(3, Ended.FINISHED, blocked=True, used=8 * LIMIT),
                a_task(4, Ended.FAILED, blocked=True, used=9 * LIMIT),
                a_task(5, Ended.FINISHED, blocked=False, used=LIMIT),
                a_task(6, Ended.RIGHT, blocked=False, used=LIMIT * 3 // 2),
            ]
        )
    )
    assert [each.task_id for each in found.worst] == ["T-2", "T-1", "T-3", "T-0", "T-6", "T-5"]


def test_ten_of_them_are_named() -> None:
    assert len(gate(tasks(right_blocked=30)).worst) == 10


@pytest.mark.parametrize(
    ("judged_task", "text"),
    [
        pytest.param(
            one(history(success=True), would_be(used=4 * LIMIT, block=stop(2 * LIMIT, 2 * LIMIT + 5))),
            "was right, and would have been stopped in THINK at 20,000 of the 40,000 tokens that it "
            "used: 2.0 × its limit of 10,000 tokens; it went on over many calls",
            id="calls are known",
        ),
        pytest.param(
            one(
                history(finished=True),
                would_be(
                    used=4 * LIMIT,
                    reports=1,
                    block=stop(2 * LIMIT, 4 * LIMIT, phase=None, cause=Cause.UNCLASSIFIED),
                ),
            ),
            "finished, and would have been stopped at 20,000 of the 40,000 tokens that it used: "
            "2.0 × its limit of 10,000 tokens; nothing else stands out",
            id="only the total is known: where the level begins",
        ),
        pytest.param(
            one(history(), would_be(used=LIMIT * 3 // 2)),
            "nobody knows how it ended, and would not have been stopped: it used 15,000 tokens, "
            "1.5 × its limit of 10,000 tokens",
            id="near",
        ),
    ],
)  # fmt: skip
def test_each_is_explained_in_a_sentence(judged_task: Judged, text: str) -> None:
    (found,) = gate(JudgedTasks([judged_task])).worst
    is_blocked = judged_task.would_be.block is not None
    assert found == Explained(task_id="T", ended=judged_task.ended, blocked=is_blocked, text=text)


def test_a_block_by_money_is_explained_in_money() -> None:
    block = stop(2 * LIMIT)
    by_cost = block.__class__(
        used=block.used,
        metric=Metric.COST_USD,
        at=2_000_000_000,
        limit=1_000_000_000,
        phase="PR",
        cause=Cause.SLOW_MODEL,
    )
    said = would_be(used=400_000_000, block=by_cost)
    (found,) = gate(JudgedTasks([one(history(success=True), said)])).worst
    assert found.text == (
        "was right, and would have been stopped in PR at $0.20 of the $4.00 that it used: "
        "2.0 × its limit of $1.00; the model was slow"
    )


def test_of_each_task_it_is_told_what_would_have_happened_and_why() -> None:
    blocked = one(history("A", success=True), would_be("A", block=stop(LIMIT * 5 // 2)))
    assert fate_of(blocked) == Fate(
        task_id="A",
        task_type="codex",
        tier="medium/medium",
        ended=Ended.RIGHT,
        verdict=Verdict.BLOCK,
        blocked_at={
            Metric.TOKENS: 25_000,
            Metric.LATENCY_MS: 25_000,
            Metric.COST_USD: Decimal("0.25"),
        },
        phase="THINK",
        cause=Cause.ITERATION,
    )
    fate = fate_of(one(history("B"), would_be("B")))
    assert (fate.verdict, fate.blocked_at, fate.phase, fate.cause) == (
        Verdict.CONTINUE,
        None,
        None,
        None,
    )


def test_amounts_are_told_in_their_units() -> None:
    assert amounts_json({Metric.TOKENS: 1_500_000, Metric.COST_USD: 2_000_000_000}) == {
        Metric.TOKENS: 1_500,
        Metric.COST_USD: 2,
    }
