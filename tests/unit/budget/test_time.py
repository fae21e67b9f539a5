"""What time alone decides, in which order, and what leaves memory."""

import pytest

from schemas.topics import Topic
from streams.budget import clock
from streams.budget.fold import next_deadline_ms, open_task_count
from streams.budget.policy import policy_from_toml
from tests.unit.budget.story import all_said, story, tell
from tests.unit.budget.world import START_MS, World

DAY_MS = 86_400_000


def test_a_task_without_any_event_for_seven_days_is_ended_as_abandoned() -> None:
    world = story("""
        start TASK-1
        begin TASK-1 THINK
        usage TASK-1 THINK 5  +3d
        tick +604799999ms
        tick +1ms             → TASK-1 ended; TASK-1 THINK 1 open_at_end 0ms r1
    """)
    ended = world.lifecycles("TASK-1")[-1]
    assert (ended.outcome, ended.flags) == ("abandoned", ["clock_skew"])
    assert world.executions()[0].ended == "2026-01-11T00:00:00.000Z"
    assert open_task_count(world.state) == 0


ONE_INSTANT = policy_from_toml(
    """
    [ladders.task.latency_ms]
    block = 2.0
    [clock]
    stuck_after_ms = 270_000
    abandoned_after_ms = 270_000
    retention_ms = 270_000
    """,
    "instant.toml",
)


@pytest.mark.parametrize(
    ("begun", "kept", "due"),
    [
        pytest.param(
            "begin M-STRANGER PR own=-1h",
            "usage M-STRANGER PR",
            ["M-STRANGER stuck"],
            id="somebody is stuck",
        ),
        pytest.param("start M-STRANGER", "", ["M-STRANGER ended"], id="somebody is given up"),
        pytest.param("start M-STRANGER\nfinish M-STRANGER", "", [], id="somebody is forgotten"),
        pytest.param(
            "begin M-SIBLING PR own=-1h", "", ["M-SIBLING stuck"], id="one of the family is stuck"
        ),
    ],
)
def test_what_else_is_due_at_an_instant_does_not_split_the_decision_of_a_family(
    begun: str, kept: str, due: list[str]
) -> None:
    text = """
        start A-CHILD parent=Z-PARENT planned=THINK override.task.latency_ms=300000
        start M-SIBLING parent=Z-PARENT
        begin A-CHILD THINK
        start Z-PARENT planned=THINK                 # 135 s
        begin Z-PARENT THINK
        {begun}
        usage A-CHILD THINK  +1s                     # so that nobody of them is given up
        usage M-SIBLING PR
        {kept}
        tick +269s
    """
    alone = story(text.format(begun="", kept=""), policy=ONE_INSTANT)
    among = story(text.format(begun=begun, kept=kept), policy=ONE_INSTANT)
    last = [one for one in all_said(among, Topic.DECISIONS) if one.startswith("A-CHILD")][-1]
    assert last == "A-CHILD warn to block from Z-PARENT observe"
    for task_id in ("A-CHILD", "Z-PARENT"):
        assert [
            (one.number, one.verdict, one.previous, one.used) for one in among.decisions(task_id)
        ] == [(one.number, one.verdict, one.previous, one.used) for one in alone.decisions(task_id)]
    assert [one for one in all_said(among, Topic.LIFECYCLE) if one in due] == due


@pytest.mark.parametrize(
    "event",
    ["begin TASK-1 PR", "explain TASK-1 why", "grant TASK-1 ×2", "usage TASK-1 PR", "start TASK-1"],
)
def test_any_event_keeps_a_task_from_being_abandoned(event: str) -> None:
    world = story(f"""
        start TASK-1
        {event} +6d
        tick +6d
    """)
    assert open_task_count(world.state) == 1


def test_what_a_child_uses_keeps_its_parent_also_where_nobody_knows_how_much() -> None:
    world = story("""
        start ROOT
        start CHILD parent=ROOT
        usage CHILD PR known=false +6d
        tick +6d
    """)
    assert open_task_count(world.state) == 2


def test_an_ended_task_is_forgotten_after_a_day_and_a_later_event_opens_it_anew() -> None:
    world = story("""
        start TASK-1 planned=THINK
        usage TASK-1 THINK 6_000          → notice
        finish TASK-1
        usage TASK-1 THINK 1  +86399999ms → notice
        tick +1ms                         → TASK-1 gone from tasks; TASK-1 gone from decisions
        usage TASK-1 THINK 6_000          → TASK-1 started
    """)
    assert world.lifecycles("TASK-1")[-1].flags == ["inferred"]
    assert [one.number for one in world.decisions("TASK-1")] == [1, 1]


def test_a_task_that_nothing_was_decided_for_leaves_no_decision_behind() -> None:
    world = story("""
        start TASK-1
        finish TASK-1
        tick +1d       → TASK-1 gone from tasks
    """)
    gone = [line for line in all_said(world) if "gone" in line]
    assert gone == ["TASK-1 gone from tasks", f"policy/{world.default_policy.hash} gone from tasks"]
    assert list(world.state.tasks) == []


def test_what_is_due_in_the_same_event_as_a_change_is_decided_first() -> None:
    world = story("""
        start TASK-1 planned=THINK
        begin TASK-1 THINK
        usage TASK-1 THINK 12_000 +3m   → block
    """)
    assert all_said(world, Topic.DECISIONS) == [
        "TASK-1 continue to notice observe",
        "TASK-1 notice to warn observe",
        "TASK-1 warn to block observe",
    ]
    assert [one.event_id for one in world.decisions()] == [None, None, "e-2"]


def test_what_becomes_due_is_decided_in_order_of_deadline_then_task_then_phase() -> None:
    world = story("""
        start TASK-3 planned=PLAN,PR
        start TASK-2 planned=PLAN
        start TASK-1 planned=PLAN
        begin TASK-2 PLAN
        begin TASK-1 PLAN
        begin TASK-3 PLAN
        tick +54s
    """)
    assert all_said(world, Topic.BREACHES) == [
        "TASK-1 task latency_ms notice",
        "TASK-1 PLAN latency_ms notice",
        "TASK-2 task latency_ms notice",
        "TASK-2 PLAN latency_ms notice",
        "TASK-3 PLAN latency_ms notice",
    ]
    assert all_said(world, Topic.DECISIONS) == [
        f"TASK-{number} continue to notice observe" for number in (1, 2, 3)
    ]


def test_an_end_that_is_due_comes_after_the_levels_that_were_due_before_it() -> None:
    policy = policy_from_toml("[clock]\nabandoned_after_ms = 100_000", "short.toml")
    world = story(
        """
        start TASK-1 planned=THINK
        begin TASK-1 THINK
        start TASK-2 +1ms
        tick +2h
        """,
        policy=policy,
    )
    assert all_said(world, Topic.DECISIONS, Topic.LIFECYCLE, Topic.EXECUTIONS) == [
        "TASK-1 started",
        "TASK-2 started",
        "TASK-1 THINK 1 open_at_end 100000ms r1",
        "TASK-1 ended",
        "TASK-2 ended",
    ]


def test_the_next_deadline_is_when_the_clock_has_to_move() -> None:
    world = story("start TASK-1 planned=THINK")
    assert next_deadline_ms(world.state) == START_MS + 7 * DAY_MS
    tell(world, "begin TASK-1 THINK")
    assert next_deadline_ms(world.state) == START_MS + 121_500
    tell(world, "end TASK-1 THINK +1s")
    assert next_deadline_ms(world.state) == START_MS + 1_000 + 7 * DAY_MS
    tell(world, "finish TASK-1")
    assert next_deadline_ms(world.state) == START_MS + 1_000 + DAY_MS
    tell(world, "tick +1d")
    assert next_deadline_ms(world.state) is None
    assert next_deadline_ms(World().state) is None


def test_deadlines_that_came_to_nothing_are_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "STALE_MAX", 10)
    lines = "\n".join("begin TASK-1 PR\nend TASK-1 PR ms=1" for _ in range(20))
    world = story(f"start TASK-1\n{lines}\ntick +1m\nstart TASK-2\nfinish TASK-1\ntick +5h\n")
    assert len(world.state.due) < 20
    tell(world, "tick +1d  → TASK-1 gone from tasks")


def test_the_clock_never_runs_backwards() -> None:
    world = story("start TASK-1 planned=THINK\nbegin TASK-1 THINK\ntick +1m")
    world.take(world.inputs[2][0].replace(b'"e-2"', b'"e-9"'), START_MS)
    assert world.state.clock_ms == START_MS + 60_000
    tell(world, "finish TASK-1  → TASK-1 THINK 1 open_at_end 60000ms r1")


@pytest.mark.parametrize(
    ("line", "offsets"),
    [("garbage +3m", 3), ("usage TASK-1 SLEEP 1 +3m", 3), ("usage TASK-1 THINK 1 id=e-1 +3m", 3)],
    ids=["not an event", "a refused event", "a duplicate"],
)
def test_every_record_moves_the_clock(line: str, offsets: int) -> None:
    world = story(f"""
        start TASK-1 planned=THINK
        begin TASK-1 THINK
        {line}                    → TASK-1 notice to warn observe
    """)
    assert world.state.next_offset == offsets


def test_a_checkpoint_says_once_a_day_where_the_partition_stands() -> None:
    world = story(
        """
        policy second
        start TASK-1
        mode partial
        policy third
        tick +23h
        tick +1h             → partition/3 partition_checkpoint
        tick +1h
        garbage +30h         → partition/3 partition_checkpoint
    """,
        second=SECOND,
        third=THIRD,
    )
    first, second = (one for one in world.lifecycles() if one.change == "partition_checkpoint")
    assert (first.partition, first.next_offset, first.mode) == (3, 6, "partial")
    assert first.clock == "2026-01-02T00:00:00.000Z"
    assert first.policies == [THIRD.hash, SECOND.hash]
    assert second.next_offset == 8


SECOND = policy_from_toml('version = "second"', "second.toml")
THIRD = policy_from_toml('version = "third"', "third.toml")


def test_a_policy_is_kept_as_long_as_a_task_refers_to_it() -> None:
    world = story(
        """
        policy second        → policy stored
        start TASK-1
        policy third         → policy stored
        policy third id=again → nothing
        finish TASK-1
        tick +1d             → TASK-1 gone from tasks
    """,
        second=SECOND,
        third=THIRD,
    )
    assert f"policy/{SECOND.hash} gone from tasks" in all_said(world)
    assert world.state.policies == {THIRD.hash: 1}
