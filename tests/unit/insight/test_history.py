"""The history of tasks: what is known of their use and end, and what is not."""

import random
from collections.abc import Iterable
from typing import Any

import pytest

from schemas.fields import Cause, Complexity, ExecutionOutcome, Importance, Metric, Number
from schemas.outputs import ExecutionRecord, Lifecycle
from streams.budget.policy import builtin_policy
from streams.insight.history import Coverage, Histories, Run, TaskHistory, families

Record = ExecutionRecord | tuple[Lifecycle, int]


def execution(task: str = "T", phase: str = "THINK", **given: Any) -> ExecutionRecord:  # noqa: ANN401
    counters: dict[str, Number] = {
        "model_calls": 1,
        "output_tokens": 50,
        **given.pop("counters", {}),
    }
    given = {"attempt": 1, "revision": 1, "latency_ms": 2_000, "metered_tokens": 100} | given
    return ExecutionRecord(
        task_id=task,
        phase=phase,
        outcome=given.pop("outcome", ExecutionOutcome.COMPLETED),
        counters=counters,
        limits=given.pop("limits", {}),
        complexity=Complexity.SMALL,
        importance=Importance.HIGH,
        **given,
    )


def change(what: str, task: str = "T", at_ms: int = 1_000, **given: Any) -> tuple[Lifecycle, int]:  # noqa: ANN401
    return Lifecycle(change=what, task_id=task, **given), at_ms


def told(*records: Record) -> Histories:
    histories = Histories(builtin_policy().explanations)
    for record in records:
        if isinstance(record, ExecutionRecord):
            histories.tell_execution(record)
        else:
            histories.tell_lifecycle(*record)
    return histories


def only(*records: Record) -> TaskHistory:
    (history,) = told(*records, change("ended", at_ms=9_000)).tasks()
    return history


def ended(task: str, **given: Any) -> list[tuple[Lifecycle, int]]:  # noqa: ANN401 - lifecycle's
    return [change("started", task, **given), change("ended", task, 9_000, **given)]


def used(*runs: ExecutionRecord) -> dict[Metric, int]:
    return only(*runs).used


def test_a_history_says_what_a_task_was_and_what_it_used() -> None:
    task: dict[str, Any] = {
        "complexity": Complexity.SMALL,
        "importance": Importance.CRITICAL,
        "budgeted_importance": Importance.HIGH,
        "task_type": "codex",
        "planned_phases": ["THINK", "VERIFY"],
        "labels": {"resolved": "true"},
    }
    histories = told(
        change("started", at_ms=1_000, **task),
        execution(metered_tokens=100.5, counters={"cost_usd": 0.25}),
        execution(phase="VERIFY", counters={"cost_usd": 1}),
        change("ended", at_ms=9_000, **task, outcome="failed"),
    )
    assert histories.tasks() == [
        TaskHistory(
            task_id="T",
            group="T",
            task_type="codex",
            complexity=Complexity.SMALL,
            importance=Importance.HIGH,
            runs=(
                Run(
                    phase="THINK",
                    attempt=1,
                    amounts={
                        Metric.TOKENS: 100_500,
                        Metric.LATENCY_MS: 2_000,
                        Metric.COST_USD: 250_000_000,
                    },
                    cause=None,
                ),
                Run(
                    phase="VERIFY",
                    attempt=1,
                    amounts={
                        Metric.TOKENS: 100_000,
                        Metric.LATENCY_MS: 2_000,
                        Metric.COST_USD: 1_000_000_000,
                    },
                    cause=None,
                ),
            ),
            used={
                Metric.TOKENS: 200_500,
                Metric.LATENCY_MS: 4_000,
                Metric.COST_USD: 1_250_000_000,
            },
            unknown_share=0.0,
            success=True,
            finished=False,
            started_ms=1_000,
            duration_ms=8_000,
            planned=("THINK", "VERIFY"),
        )
    ]
    assert repr(histories) == "<Histories of 1 tasks>"


def test_the_order_between_both_topics_does_not_matter() -> None:
    lifecycle: list[Record] = [*ended("P"), *ended("C", parent_task_id="P")]
    executions: list[Record] = [
        execution("P"),
        execution("C"),
        execution("C", revision=2, metered_tokens=300),
    ]
    expected = {each.task_id: each for each in told(*lifecycle, *executions).tasks()}
    for records in ([*executions, *lifecycle], [*executions, *executions, *lifecycle]):
        assert {each.task_id: each for each in told(*records).tasks()} == expected


def test_the_last_revision_of_a_run_counts_whichever_comes_last() -> None:
    revisions = [execution(revision=each, metered_tokens=each * 10) for each in (1, 2, 3)]
    random.Random(6).shuffle(revisions)
    assert used(*revisions)[Metric.TOKENS] == 30_000


def test_a_task_that_is_still_open_is_none_of_the_history() -> None:
    histories = told(change("started"), execution(), execution("unheard of"))
    assert histories.tasks() == []
    assert histories.open_count == 2


def test_a_task_that_nothing_ran_in_is_none_of_the_history() -> None:
    assert told(change("started"), change("ended")).tasks() == []
    assert told((Lifecycle(change="partition_checkpoint"), 1)).tasks() == []


def test_all_runs_are_used_and_those_count_that_somebody_worked_through() -> None:
    history = only(execution(outcome=ExecutionOutcome.SUPERSEDED), execution(attempt=2))
    assert [each.attempt for each in history.runs] == [2]
    assert history.used[Metric.TOKENS] == 200_000


@pytest.mark.parametrize(
    ("flags", "given", "absent"),
    [
        pytest.param(["unknown_usage"], {}, Metric.TOKENS, id="a call of unknown usage"),
        pytest.param(["clock_skew"], {}, Metric.LATENCY_MS, id="an impossible duration"),
        pytest.param(["inferred"], {"latency_ms": 0}, Metric.LATENCY_MS, id="no time was told"),
        pytest.param([], {}, Metric.COST_USD, id="no cost was told"),
    ],
)
def test_what_is_not_known_of_one_run_is_not_known_of_the_task(
    flags: list[str], given: dict[str, Any], absent: Metric
) -> None:
    known = execution(counters={"cost_usd": 1})
    assert absent in used(known)
    assert absent not in used(known, execution(phase="VERIFY", flags=flags, **given))


def test_a_run_in_which_nothing_happened_hides_nothing() -> None:
    idle = execution(phase="PR", latency_ms=0, metered_tokens=0, counters={"model_calls": 0})
    assert used(execution(counters={"cost_usd": 1}), idle)[Metric.COST_USD] == 1_000_000_000


def test_tokens_of_children_at_any_depth_are_their_ancestors_too_and_time_is_not() -> None:
    parents = {"P": None, "C": "P", "G": "C"}
    lifecycle = [
        each for task, parent in parents.items() for each in ended(task, parent_task_id=parent)
    ]
    histories = told(*lifecycle, execution("C"), execution("G", latency_ms=7)).tasks()
    by_id = {each.task_id: each for each in histories}
    assert by_id["P"].used == {Metric.TOKENS: 200_000}
    assert by_id["C"].used == {Metric.TOKENS: 200_000, Metric.LATENCY_MS: 2_000}
    assert {each.group for each in histories} == {"P"}
    assert [by_id[each].parent_id for each in "PCG"] == [None, "P", "C"]


def test_tasks_that_name_each_other_as_parents_end_the_search() -> None:
    lifecycle = [*ended("A", parent_task_id="B"), *ended("B", parent_task_id="A")]
    histories = told(*lifecycle, execution("A"), execution("B")).tasks()
    assert [each.used[Metric.TOKENS] for each in histories] == [200_000, 200_000]


def test_a_parent_that_nobody_told_of_is_the_root() -> None:
    (history,) = told(*ended("C", parent_task_id="P"), execution("C")).tasks()
    assert history.group == "P"


def test_tasks_that_tried_the_same_are_one_group() -> None:
    labels = {"group": "37a3"}
    histories = told(
        *ended("A", labels=labels), *ended("B", labels=labels), execution("A"), execution("B")
    )
    assert [each.group for each in histories.tasks()] == ["group/37a3", "group/37a3"]


@pytest.mark.parametrize(
    ("labels", "outcome", "expected"),
    [
        pytest.param({}, "completed", (None, True), id="an enforcer says so"),
        pytest.param({}, None, (None, True), id="left out: completed"),
        pytest.param({}, "abandoned", (None, False), id="given up"),
        pytest.param({"phases": "inferred"}, "completed", (None, None), id="a log just stops"),
        pytest.param(
            {"phases": "inferred", "exit_status": "Submitted"},
            "completed",
            (None, True),
            id="handed in: right or not",
        ),
        pytest.param(
            {"phases": "inferred", "resolved": "false"}, "failed", (False, False), id="tests failed"
        ),
        pytest.param({"resolved": "perhaps"}, "completed", (None, True), id="no answer"),
    ],
)
def test_how_a_task_ended_and_whether_it_was_right(
    labels: dict[str, str], outcome: str | None, expected: tuple[bool | None, bool | None]
) -> None:
    (history,) = told(
        execution(), change("started", labels=labels), change("ended", outcome=outcome)
    ).tasks()
    assert (history.success, history.finished) == expected


def test_a_log_without_times_has_neither_start_nor_duration() -> None:
    lifecycle: Iterable[Record] = [change("started", at_ms=0), change("ended", at_ms=0)]
    (history,) = told(execution(), *lifecycle).tasks()
    assert (history.started_ms, history.duration_ms) == (None, None)


def test_a_late_start_moves_no_beginning() -> None:
    assert only(execution(), change("started"), change("started", at_ms=5_000)).started_ms == 1_000


def test_an_end_that_nobody_saw_begin_has_no_duration() -> None:
    assert only(execution()).duration_ms is None


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({}, None),
        ({"counters": {"model_calls": 30}}, Cause.ITERATION),
        ({"counters": {"files_read": 30}}, Cause.EXTENSIVE_RESEARCH),
        ({"counters": {"output_tokens": 1}}, Cause.INEFFICIENT),
        ({"attempt": 2}, Cause.BACKTRACKING),
        ({"limits": {"tokens": 101, "latency_ms": 2_000}}, Cause.SLOW_MODEL),
        ({"limits": {"latency_ms": 2_000}}, Cause.SLOW_MODEL),
        ({"limits": {"tokens": 100, "latency_ms": 2_000}}, None),
        ({"counters": {"estimated_usage": 1}}, Cause.MISSING_USAGE),
    ],
)
def test_a_run_names_what_stands_out(given: dict[str, Any], cause: Cause | None) -> None:
    (run,) = only(execution(**given)).runs
    assert run.cause is cause


@pytest.mark.parametrize(
    ("counters", "share"),
    [
        pytest.param({"model_calls": 4, "unknown_usage": 1}, 0.25, id="one of four"),
        pytest.param({"model_calls": 4, "unknown_usage": 1, "estimated_usage": 1}, 0.5, id="both"),
        pytest.param({"model_calls": 0, "unknown_usage": 2}, 1.0, id="all"),
        pytest.param({"model_calls": 0}, 0.0, id="no calls at all"),
    ],
)
def test_the_share_of_unknown_usage_is_of_model_calls(
    counters: dict[str, Number], share: float
) -> None:
    assert only(execution(counters=counters)).unknown_share == share


def test_how_much_is_known_is_counted_by_class() -> None:
    coverage = told(
        execution("A", counters={"cost_usd": 1}),
        execution("B", flags=["unknown_usage", "estimated_usage"]),
        execution("C", outcome=ExecutionOutcome.ABANDONED),
        execution("D", phase="PR"),
    ).coverage()
    assert coverage == {
        "THINK/small/high": Coverage(
            executions=2,
            known={Metric.TOKENS: 1, Metric.LATENCY_MS: 2, Metric.COST_USD: 1},
            estimated=1,
        ),
        "PR/small/high": Coverage(
            executions=1, known={Metric.TOKENS: 1, Metric.LATENCY_MS: 1, Metric.COST_USD: 0}
        ),
    }


def test_a_family_is_a_root_with_all_below_it_and_none_whose_root_is_away() -> None:
    parents = {"P": None, "C": "P", "G": "C", "Q": None, "orphan": "away"}
    lifecycle = [
        each for task, parent in parents.items() for each in ended(task, parent_task_id=parent)
    ]
    tasks = told(*lifecycle, *(execution(task) for task in parents)).tasks()
    assert {
        root: [each.task_id for each in family] for root, family in families(tasks).items()
    } == {"P": ["P", "C", "G"], "Q": ["Q"]}
