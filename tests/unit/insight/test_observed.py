"""What a running system has said of its tasks becomes what the gate judges by."""

import pytest
from msgspec.structs import replace

from schemas.feedback import Feedback
from schemas.fields import Cause, Metric, Scope, Verdict
from schemas.outputs import Breach, Cell, InputRef, Lifecycle, PolicyRef
from streams.insight.gate import Ended, Stop, WouldBe
from streams.insight.observed import Observed
from tests.unit.insight.gated import history

OURS, OTHERS = "aaaa", "bbbb"
BREACH = Breach(
    task_id="T",
    cell=Cell(Scope.PHASE, Metric.TOKENS, "THINK"),
    used=13_000,
    limit=6_000,
    ratio=2.1666,
    limits_version=1,
    level=Verdict.BLOCK,
    cause=Cause.ITERATION,
    input=InputRef(0, 7),
)


def began(task_id: str = "T", policy: str | None = OURS) -> Lifecycle:
    return Lifecycle(
        change="started",
        task_id=task_id,
        limits={"task": {"tokens": 6_000, "latency_ms": 9}, "THINK": {"tokens": 1}},
        policy=None if policy is None else PolicyRef("p", policy),
    )


def observed(*told: Lifecycle | Breach | Feedback) -> Observed:
    found = Observed()
    for at_ms, each in enumerate(told):
        match each:
            case Lifecycle():
                found.tell_lifecycle(each, at_ms)
            case Breach():
                found.tell_breach(each)
            case Feedback():
                found.tell_feedback(each)
    return found


def said_of_t(*told: Lifecycle | Breach | Feedback) -> WouldBe:
    (task,) = observed(*told).judged([history("T", finished=True)], OURS).tasks
    return task.would_be


def answer(*, false: bool, task_id: str = "T") -> Feedback:
    return Feedback(task_id=task_id, decision_id="0-7-1", false_positive=false, by="ann")


def test_a_breach_at_block_is_where_the_task_was_or_would_have_been_stopped() -> None:
    assert said_of_t(began(), BREACH) == WouldBe(
        task_id="T",
        peak=Verdict.BLOCK,
        limit={Metric.TOKENS: 6_000_000, Metric.LATENCY_MS: 9},
        used={Metric.TOKENS: 0, Metric.LATENCY_MS: 0, Metric.COST_USD: 0},
        reports=2,
        block=Stop(
            used={Metric.TOKENS: 13_000_000},
            metric=Metric.TOKENS,
            at=13_000_000,
            limit=6_000_000,
            phase="THINK",
            cause=Cause.ITERATION,
        ),
    )


def test_the_first_block_is_told_and_one_without_a_cause_says_so() -> None:
    first = replace(BREACH, cause=None)
    block = said_of_t(began(), first, replace(BREACH, used=20_000)).block
    assert block is not None
    assert (block.used, block.cause) == ({Metric.TOKENS: 13_000_000}, Cause.UNCLASSIFIED)


@pytest.mark.parametrize(
    ("told", "peak"),
    [
        pytest.param([], Verdict.CONTINUE, id="nothing was said"),
        pytest.param([Verdict.NOTICE, Verdict.WARN], Verdict.WARN, id="the highest counts"),
        pytest.param([Verdict.REVIEW, Verdict.NOTICE], Verdict.REVIEW, id="whatever comes after"),
    ],
)
def test_the_peak_is_the_highest_level_that_was_reached(told: list[Verdict], peak: Verdict) -> None:
    breaches = [replace(BREACH, level=level) for level in told]
    said = said_of_t(began(), *breaches)
    assert (said.peak, said.block) == (peak, None)


def test_a_level_that_was_withdrawn_was_not_reached() -> None:
    warned = replace(BREACH, level=Verdict.WARN)
    assert said_of_t(began(), warned, replace(warned, withdrawn=True)).peak is Verdict.CONTINUE


def test_tasks_of_another_policy_and_earlier_ones_prove_nothing_of_this_one() -> None:
    tasks = [history(name) for name in "ABCDE"]
    tasks[3] = replace(tasks[3], started_ms=99)
    tasks[4] = replace(tasks[4], started_ms=100)
    found = observed(
        began("A", OTHERS), began("B", None), began("D"), began("E"), replace(BREACH, task_id="F")
    )
    judged = found.judged(tasks, OURS, since_ms=100)
    assert [each.task.task_id for each in judged.tasks] == ["E"]


@pytest.mark.parametrize(
    ("answers", "ended", "is_wrong"),
    [
        pytest.param([], Ended.FINISHED, True, id="finished, and nobody has said anything"),
        pytest.param([answer(false=True)], Ended.RIGHT, True, id="somebody called it false"),
        pytest.param([answer(false=False)], Ended.FAILED, False, id="somebody called it right"),
        pytest.param(
            [answer(false=True), answer(false=False)], Ended.FAILED, False, id="the last stands"
        ),
    ],
)
def test_an_answer_says_more_than_how_the_task_ended(
    *, answers: list[Feedback], ended: Ended, is_wrong: bool
) -> None:
    found = observed(began(), BREACH, *answers)
    (task,) = found.judged([history("T", finished=True)], OURS).tasks
    assert (task.ended, task.is_wrong) == (ended, is_wrong)


@pytest.mark.parametrize(
    ("outcome", "ended"),
    [
        pytest.param("blocked", Ended.UNKNOWN, id="it was held"),
        pytest.param("abandoned", Ended.UNKNOWN, id="held, and nothing more came of it"),
        pytest.param("failed", Ended.UNFINISHED, id="it went on, and failed by itself"),
    ],
)
def test_of_a_task_that_was_held_nobody_knows_how_it_would_have_ended(
    outcome: str, ended: Ended
) -> None:
    over = Lifecycle(change="ended", task_id="T", outcome=outcome)
    task = history("T", finished=False)
    (held,) = observed(began(), BREACH, over).judged([task], OURS).tasks
    assert (held.ended, held.is_wrong) == (ended, ended is Ended.UNKNOWN)
    (alone,) = observed(began(), over).judged([task], OURS).tasks
    assert alone.ended is Ended.UNFINISHED
    (answered,) = observed(began(), BREACH, over, answer(false=False)).judged([task], OURS).tasks
    assert answered.ended is Ended.FAILED


def test_an_answer_about_a_task_that_was_not_blocked_counts_for_nothing() -> None:
    found = observed(began(), answer(false=False), answer(false=True, task_id="nobody"))
    (task,) = found.judged([history("T", finished=True)], OURS).tasks
    assert task.ended is Ended.FINISHED


def test_it_has_been_observed_since_the_first_record_of_any_task_or_partition() -> None:
    assert Observed().first_ms is None
    found = Observed()
    found.tell_lifecycle(began(), 500)
    found.tell_lifecycle(Lifecycle(change="partition_checkpoint", partition=0), 300)
    found.tell_lifecycle(Lifecycle(change="ended", task_id="T"), 900)
    assert found.first_ms == 300
    assert repr(found) == "<Observed 1 tasks, 0 answers>"
