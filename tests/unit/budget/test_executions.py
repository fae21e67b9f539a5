"""Which run of a phase an event belongs to, and what is published about it."""

import pytest

from schemas.topics import Topic
from streams.budget import executions
from tests.unit.budget.story import all_said, story, tell
from tests.unit.budget.world import OWN_SUBJECT, PARTITION, START_MS, World, record


def runs(world: World) -> list[str]:
    return all_said(world, Topic.EXECUTIONS)


def test_a_run_is_published_when_it_ends_with_all_that_is_known_of_it() -> None:
    world = story("""
        start TASK-1 planned=THINK complexity=small owner=ada team=core type=fix
        begin TASK-1 THINK
        usage TASK-1 THINK 1_000 read=600 write=100 out=50 thought=20 cost=0.1 ms=900 model=m
        usage TASK-1 THINK 500 out=5 calls=3 tool_calls=2 files=4 output_chars=99
        end   TASK-1 THINK +10s ms=9_500
    """)
    (run,) = world.executions()
    assert run.counters == {
        "model_calls": 4,
        "input_tokens": 1_500,
        "cache_read_tokens": 600,
        "cache_write_tokens": 100,
        "output_tokens": 55,
        "reasoning_tokens": 20,
        "cost_usd": 0.1,
        "duration_ms": 900,
        "tool_calls": 2,
        "files_read": 4,
        "output_chars": 99,
        "unknown_usage": 0,
        "estimated_usage": 0,
    }
    assert run.metered_tokens == 1_015  # 800 uncached, 60 of 600, 100, 55
    assert (run.attempt, run.revision, run.latency_ms, run.outcome) == (1, 1, 9_500, "completed")
    assert (run.started, run.ended) == ("2026-01-01T00:00:00.000Z", "2026-01-01T00:00:10.000Z")
    assert run.limits == {"tokens": 4_800, "latency_ms": 108_000}
    assert (run.complexity, run.importance) == ("small", "medium")
    assert (run.owner, run.team, run.task_type, run.flags) == ("ada", "core", "fix", [])


@pytest.mark.parametrize("outcome", ["completed", "failed", "backtracked", "abandoned"])
def test_a_run_ends_as_the_enforcer_says(outcome: str) -> None:
    world = story(f"begin TASK-1 THINK\nend TASK-1 THINK {outcome}")
    assert runs(world) == [f"TASK-1 THINK 1 {outcome} 0ms r1"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(
            """
            begin TASK-1 THINK
            end   TASK-1 THINK ms=1
            begin TASK-1 THINK
            usage TASK-1 THINK 10
            end   TASK-1 THINK ms=2
            """,
            ["THINK 1 completed 1ms r1", "THINK 2 completed 2ms r1"],
            id="a start without an attempt begins the next one",
        ),
        pytest.param(
            """
            begin TASK-1 THINK
            begin TASK-1 THINK            → nothing
            end   TASK-1 THINK ms=1
            """,
            ["THINK 1 completed 1ms r1"],
            id="while the phase is open it repeats the open one",
        ),
        pytest.param(
            """
            begin TASK-1 THINK attempt=2
            end   TASK-1 THINK ms=1
            begin TASK-1 THINK attempt=2  → nothing
            end   TASK-1 THINK ms=2
            """,
            ["THINK 2 completed 1ms r1", "THINK 2 completed 2ms r2"],
            id="one that names a known attempt again is ignored",
        ),
        pytest.param(
            """
            begin TASK-1 THINK attempt=5
            end   TASK-1 THINK ms=1
            begin TASK-1 THINK
            end   TASK-1 THINK ms=1
            """,
            ["THINK 5 completed 1ms r1", "THINK 6 completed 1ms r1"],
            id="the next one follows the highest",
        ),
        pytest.param(
            """
            begin TASK-1 THINK attempt=2
            begin TASK-1 THINK attempt=3 +5s
            end   TASK-1 THINK +5s
            """,
            ["THINK 2 superseded 5000ms r1", "THINK 3 completed 5000ms r1"],
            id="the next attempt supersedes the one that is open",
        ),
        pytest.param(
            """
            usage TASK-1 THINK 10 ms=700
            begin TASK-1 THINK attempt=1
            end   TASK-1 THINK +5s
            """,
            ["THINK 1 completed 5000ms r1"],
            id="a start adopts the attempt that only usage has named",
        ),
        pytest.param(
            """
            usage TASK-1 THINK 10 ms=700
            usage TASK-1 THINK 10 ms=400
            finish TASK-1
            """,
            ["THINK 1 open_at_end 1100ms r1"],
            id="without a start the time of the model is the run's",
        ),
        pytest.param(
            """
            usage TASK-1 THINK 10 ms=700
            end   TASK-1 THINK
            usage TASK-1 THINK 10 ms=400
            """,
            ["THINK 1 completed 700ms r1", "THINK 1 completed 1100ms r2"],
            id="also of what comes in late",
        ),
        pytest.param(
            """
            usage TASK-1 THINK 10 ms=700
            end   TASK-1 THINK ms=900
            usage TASK-1 THINK 10 ms=400
            """,
            ["THINK 1 completed 900ms r1", "THINK 1 completed 900ms r2"],
            id="but not where its end was measured",
        ),
        pytest.param(
            """
            begin TASK-1 THINK
            end   TASK-1 THINK failed ms=5
            end   TASK-1 THINK completed ms=3
            """,
            ["THINK 1 failed 5ms r1", "THINK 1 completed 3ms r2"],
            id="a second end replaces outcome and duration",
        ),
        pytest.param(
            """
            end   TASK-1 THINK ms=5
            """,
            ["THINK 1 completed 5ms r1"],
            id="an end without a start",
        ),
        pytest.param(
            """
            usage TASK-1 THINK 1 attempt=2
            end   TASK-1 THINK ms=5
            end   TASK-1 THINK attempt=4 ms=5
            """,
            ["THINK 2 completed 5ms r1", "THINK 4 completed 5ms r1"],
            id="an end belongs to the newest attempt, or to the one it names",
        ),
        pytest.param(
            """
            begin TASK-1 THINK
            begin TASK-1 PLAN +7s
            begin TASK-1 THINK +1s
            finish TASK-1 +1s
            """,
            [
                "THINK 1 superseded 7000ms r1",
                "PLAN 1 superseded 1000ms r1",
                "THINK 2 open_at_end 1000ms r1",
            ],
            id="a second phase closes the first, the end of the task the last",
        ),
        pytest.param(
            """
            start TASK-1
            finish TASK-1
            usage TASK-1 THINK 10
            begin TASK-1 PLAN
            begin TASK-1 PLAN attempt=1   → nothing
            end   TASK-1 PLAN +3s
            end   TASK-1 PR ms=5
            """,
            [
                "THINK 1 open_at_end 0ms r1",
                "PLAN 1 open_at_end 0ms r1",
                "PLAN 1 completed 3000ms r2",
                "PR 1 completed 5ms r1",
            ],
            id="what first shows up after the end is open_at_end at once",
        ),
    ],
)
def test_runs(text: str, told: list[str]) -> None:
    assert runs(story(text)) == [f"TASK-1 {line}" for line in told]


def test_usage_without_an_attempt_belongs_to_the_open_run_else_to_the_first() -> None:
    world = story("""
        begin TASK-1 THINK
        usage TASK-1 THINK 1
        end   TASK-1 THINK
        begin TASK-1 THINK
        usage TASK-1 THINK 20
        end   TASK-1 THINK
        usage TASK-1 THINK 300
        usage TASK-1 THINK 4_000 attempt=2
    """)
    assert [(run.attempt, run.revision, run.metered_tokens) for run in world.executions()] == [
        (1, 1, 1),
        (2, 1, 20),
        (1, 2, 301),
        (2, 2, 4_020),
    ]


def test_where_the_first_run_was_never_seen_usage_makes_it() -> None:
    world = story("""
        begin TASK-1 THINK attempt=2
        end   TASK-1 THINK attempt=2
        usage TASK-1 THINK 300
        usage TASK-1 THINK 4
        finish TASK-1
    """)
    last = world.executions()[-1]
    assert (last.attempt, last.metered_tokens, last.flags) == (1, 304, ["inferred"])


def test_the_usage_of_all_attempts_adds_up() -> None:
    story("""
        start TASK-1 planned=THINK
        begin TASK-1 THINK
        usage TASK-1 THINK 5_000
        end   TASK-1 THINK backtracked   → continue
        begin TASK-1 THINK
        usage TASK-1 THINK 4_000         → review
    """)


def test_an_oddity_is_flagged() -> None:
    world = story("""
        start TASK-1
        begin TASK-1 THINK
        begin TASK-1 THINK
        begin TASK-1 PLAN
        start TASK-1 complexity=large      # ignored
        finish TASK-1
        finish TASK-1 failed               # ignored
        explain TASK-1 "it was like this"
    """)
    last = world.lifecycles()[-1]
    assert last.flags == [
        *("repeated_phase_start", "superseded", "repeated_start", "repeated_end", "explained"),
    ]
    assert (last.complexity, last.text, last.limits_version) == ("medium", "it was like this", 1)
    assert [one.outcome for one in world.lifecycles() if one.change == "ended"] == ["completed"]


def test_a_phase_remembers_a_bounded_number_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert executions.ATTEMPTS_MAX == 256
    monkeypatch.setattr(executions, "ATTEMPTS_MAX", 2)
    story("""
        begin TASK-1 PR
        end   TASK-1 PR
        begin TASK-1 PR
        end   TASK-1 PR
        begin TASK-1 PR               → refused data.attempt
        usage TASK-1 PR 5 attempt=3   → refused data.attempt
        usage TASK-1 PR 5 attempt=2   → TASK-1 PR 2 completed 0ms r2
        end   TASK-1 PR               → TASK-1 PR 2 completed 0ms r3
    """)


def test_an_end_without_an_attempt_is_about_a_known_run_also_where_no_more_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executions, "ATTEMPTS_MAX", 2)
    story("""
        begin TASK-1 PR attempt=2
        begin TASK-1 PR attempt=3
        end   TASK-1 PR           → TASK-1 PR 3 completed 0ms r1
    """)


def test_unknown_and_estimated_usage_is_counted_and_flagged_and_a_zero_is_a_zero() -> None:
    world = story("""
        start TASK-1
        usage TASK-1 THINK known=false
        usage TASK-1 THINK known=false calls=0
        usage TASK-1 THINK known=false calls=3
        usage TASK-1 THINK out=80 estimated=true
        usage TASK-1 THINK 0 out=0 cost=0 estimated=false known=true calls=0
        finish TASK-1
    """)
    (run,) = world.executions()
    assert run.counters["unknown_usage"] == 5
    assert run.counters["estimated_usage"] == 1
    assert run.counters["model_calls"] == 6
    assert run.flags == ["inferred", "unknown_usage", "estimated_usage"]
    assert world.lifecycles()[-1].flags == ["unknown_usage", "estimated_usage"]


def test_null_is_the_same_as_absent() -> None:
    nulls = "in=null input_tokens=null output_tokens=null cost_usd=null duration_ms=null model=null"
    nulls += " model_calls=null usage_known=null estimated=null attempt=null reasoning_tokens=null"
    worlds = [
        story(f"""
            start TASK-1 {"parent_task_id=null labels=null task_type=null x=null" if null else ""}
            begin TASK-1 THINK {"attempt=null" if null else ""}
            usage TASK-1 THINK {nulls if null else ""}
            end   TASK-1 THINK {"duration_ms=null outcome=null transition_ms=null" if null else ""}
            finish TASK-1
        """)
        for null in (True, False)
    ]
    assert worlds[0].output == worlds[1].output
    assert worlds[0].executions()[0].counters["model_calls"] == 1


def test_a_phase_closed_by_an_operator_is_abandoned() -> None:
    world = story("""
        begin TASK-1 THINK
        recover TASK-1 close_phase +4s   → TASK-1 recovered
        recover TASK-1 close_phase       → refused data.action
        recover TASK-1 end_task          → TASK-1 ended
        recover TASK-1 end_task          → refused data.action
        recover TASK-1 refold            → TASK-1 recovered
        recover TASK-2 refold            → refused subject
    """)
    assert runs(world) == ["TASK-1 THINK 1 abandoned 4000ms r1"]
    ended = next(one for one in world.lifecycles() if one.change == "ended")
    assert (ended.outcome, ended.by, ended.reason) == ("abandoned", "ada", "because")
    tell(world, "usage TASK-1 THINK 5  → TASK-1 THINK 1 abandoned 4000ms r2")


def recovered(action: str, event_id: str, subject: str = OWN_SUBJECT) -> bytes:
    data = {"by": "ada", "reason": "torn", "action": action, "key": "policy/1"}
    return record("task.recovered", subject, event_id, data, START_MS)


def test_what_was_rebuilt_in_a_partition_is_told_and_changes_no_task() -> None:
    world = story("usage TASK-1 THINK 5")
    world.take(recovered("refold", "e-1"))
    world.take(recovered("refold", "e-1"))
    told = [one for one in world.lifecycles(OWN_SUBJECT) if one.change == "recovered"]
    assert [(one.key, one.partition, one.by, one.reason, one.action) for one in told] == [
        ("policy/1", PARTITION, "ada", "torn", "refold")
    ]
    assert list(world.state.tasks) == ["TASK-1"]


@pytest.mark.parametrize(
    ("value", "field"),
    [
        pytest.param(recovered("end_task", "e"), "data.action", id="a partition cannot be ended"),
        pytest.param(recovered("refold", "e", "partition/4"), "subject", id="another partition"),
    ],
)
def test_a_recovery_of_a_partition_that_cannot_be_is_refused(value: bytes, field: str) -> None:
    world = World()
    world.take(value)
    assert [letter.detail.field for letter in world.letters()] == [field]
