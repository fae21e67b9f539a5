"""How long things take: measured, estimated while they run, impossible, and taken back."""

import pytest

from schemas.topics import Topic
from streams.budget.policy import policy_from_toml
from tests.unit.budget.story import all_said, story, tell
from tests.unit.budget.world import START_MS, World, record

NARROW = policy_from_toml(
    """
    version = "narrow"
    [phases.A]
    tokens = 1000
    latency_ms = 100_000
    weight = 1
    [phases.B]
    tokens = 1000
    latency_ms = 100_000
    weight = 1
    [ladders.task.latency_ms]
    block = 2.0
    """,
    "narrow.toml",
)


def narrow(text: str) -> World:
    """Two phases of 100 s each; the task is blocked at 400 s."""
    return story(text, policy=NARROW)


def breaches(world: World) -> list[str]:
    return all_said(world, Topic.BREACHES)


def test_an_open_phase_grows_without_any_event_of_its_enforcer() -> None:
    world = narrow("""
        start TASK-1
        begin TASK-1 A
        tick +89999ms     → nothing
        tick +1ms         → notice     # 0.9 of the phase
        tick +60s         → warn       # 1.5 of it
        tick +50s         → review     # 2.0 of it, and on the way 0.9 of the task
    """)
    assert [(one.used, one.level) for one in world.breaches()] == [
        (90_000, "notice"),
        (150_000, "warn"),
        (180_000, "notice"),
        (200_000, "review"),
    ]


def test_what_became_due_is_published_at_its_deadline_however_late_it_is_seen() -> None:
    world = narrow("""
        start TASK-1
        begin TASK-1 A
        tick +1h          → block
    """)
    assert [(one.cell.phase, one.level.value, one.used) for one in world.breaches()] == [
        ("A", "notice", 90_000),
        ("A", "warn", 150_000),
        (None, "notice", 180_000),
        ("A", "review", 200_000),
        (None, "warn", 240_000),
        (None, "review", 300_000),
        (None, "block", 400_000),
    ]
    assert [(one.verdict.value, one.used) for one in world.decisions()] == [
        ("notice", 90_000),
        ("warn", 150_000),
        ("review", 200_000),
        ("block", 400_000),
    ]


def test_the_measured_duration_replaces_the_estimate_and_withdraws_its_levels() -> None:
    world = narrow("""
        start TASK-1
        begin TASK-1 A
        end   TASK-1 A +1h ms=95_000   → notice   # the enforcer was cut off from Kafka
        finish TASK-1                  → TASK-1 ended
    """)
    assert breaches(world)[7:] == [
        "TASK-1 A latency_ms review withdrawn",
        "TASK-1 A latency_ms warn withdrawn",
        "TASK-1 task latency_ms block withdrawn",
        "TASK-1 task latency_ms review withdrawn",
        "TASK-1 task latency_ms warn withdrawn",
        "TASK-1 task latency_ms notice withdrawn",
    ]
    assert all_said(world, Topic.DECISIONS) == [
        "TASK-1 continue to notice observe",
        "TASK-1 notice to warn observe",
        "TASK-1 warn to review observe",
        "TASK-1 review to block observe",
        "TASK-1 block to notice observe",
    ]
    assert world.lifecycles()[-1].overshoot is None  # of a block that nobody was to blame for


def test_a_level_that_the_ladder_does_not_have_is_not_withdrawn() -> None:
    policy = policy_from_toml('[ladders.phase.latency_ms]\nwarn = "never"', "sparse.toml")
    world = story(
        """
        start TASK-1
        begin TASK-1 THINK
        end   TASK-1 THINK +270s ms=5
        """,
        policy=policy,
    )
    assert breaches(world) == [
        "TASK-1 THINK latency_ms notice",
        "TASK-1 THINK latency_ms review",
        "TASK-1 THINK latency_ms review withdrawn",
        "TASK-1 THINK latency_ms notice withdrawn",
    ]


def test_a_withdrawn_level_can_be_reached_again() -> None:
    world = narrow("""
        start TASK-1
        begin TASK-1 A
        end   TASK-1 A +1h ms=10
        begin TASK-1 A
        tick  +100s                   → notice
        end   TASK-1 A ms=100_000     → notice
    """)
    assert breaches(world).count("TASK-1 A latency_ms notice") == 2


@pytest.mark.parametrize(
    ("end", "latency_ms", "verdict"),
    [
        pytest.param(
            "end TASK-1 A own=-3480s", 120_000, "notice", id="the clock of its own source"
        ),
        pytest.param(
            "end TASK-1 A source=other own=-3480s",
            3_600_000,
            "block",
            id="two clocks: the broker's",
        ),
        pytest.param("end TASK-1 A ms=-5", 0, "block", id="a negative duration takes nothing back"),
        pytest.param("end TASK-1 A ms=86400001", 0, "block", id="nor one of more than a day"),
        pytest.param("end TASK-1 A own=-2h", 0, "block", id="nor a clock that ran backwards"),
        pytest.param("end TASK-1 A ms=0", 0, "continue", id="a known zero is a zero"),
    ],
)
def test_only_a_measured_duration_takes_a_level_back(
    end: str, latency_ms: int, verdict: str
) -> None:
    world = narrow(f"""
        start TASK-1
        begin TASK-1 A
        tick +1h      → block
        {end}         → {verdict}
    """)
    (run,) = world.executions()
    assert run.latency_ms == latency_ms


def test_an_impossible_duration_is_flagged_and_counts_as_nothing() -> None:
    world = narrow("""
        start TASK-1
        usage TASK-1 B 1 ms=-1
        usage TASK-1 B 1 ms=86_400_001
        usage TASK-1 B 1 ms=86_400_000  → block     # one day is possible
        begin TASK-1 A
        end   TASK-1 A ms=-1
        finish TASK-1
    """)
    assert [(run.phase, run.latency_ms, run.flags) for run in world.executions()] == [
        ("A", 0, ["clock_skew"]),
        ("B", 86_400_000, ["inferred", "clock_skew"]),
    ]
    assert world.executions()[1].counters["duration_ms"] == 86_400_000
    assert world.lifecycles()[-1].flags == ["clock_skew"]


def test_a_run_of_more_than_a_day_is_impossible_as_well() -> None:
    world = narrow("""
        start TASK-1
        begin TASK-1 A
        end   TASK-1 A +25h source=other
    """)
    (run,) = world.executions()
    assert (run.latency_ms, run.flags) == (0, ["clock_skew"])


def test_a_level_that_was_measured_stays_when_a_later_estimate_is_withdrawn() -> None:
    world = narrow("""
        start TASK-1
        begin TASK-1 A
        end   TASK-1 A ms=150_000      → warn
        begin TASK-1 A
        tick  +1h                      → block
        end   TASK-1 A ms=1_000        → warn
    """)
    assert breaches(world)[:2] == ["TASK-1 A latency_ms notice", "TASK-1 A latency_ms warn"]


def test_what_another_run_measured_is_judged_together_with_the_open_one() -> None:
    world = narrow("""
        start TASK-1
        begin TASK-1 A
        end   TASK-1 A ms=85_000
        begin TASK-1 B
        tick  +96s                     → notice   # the task: 85 + 95 s; B: 90 s
        end   TASK-1 A attempt=1 ms=84_500 → notice # 84.5 + 96 s: the task's notice stays
    """)
    assert not [one for one in world.breaches() if one.withdrawn]
    tell(
        world,
        """
        end   TASK-1 A attempt=1 ms=10 → notice; TASK-1 task latency_ms notice withdrawn
        usage TASK-1 A attempt=2 ms=84_000  → notice; TASK-1 task latency_ms notice
        usage TASK-1 A attempt=2 ms=60_000  → warn; TASK-1 task latency_ms warn
        usage TASK-1 A attempt=2 ms=5_990   → warn   # the next level is nearer now
        tick  +44s                     → warn
        tick  +11s                     → review; TASK-1 task latency_ms review
    """,
    )


def test_time_of_the_model_is_a_counter_where_the_run_is_measured() -> None:
    world = narrow("""
        start TASK-1
        begin TASK-1 A
        usage TASK-1 A 1 ms=1_000_000  → continue
        end   TASK-1 A ms=5            → continue
    """)
    (run,) = world.executions()
    assert (run.latency_ms, run.counters["duration_ms"]) == (5, 1_000_000)


def test_history_blocks_nobody() -> None:
    world = narrow("""
        start TASK-1
        begin TASK-1 A own=-300001ms
        tick +3h                        → nothing
        end  TASK-1 A source=other      → continue
        begin TASK-1 A own=-30d
        end  TASK-1 A ms=90_000 own=-30d → notice    # measured durations do count
        begin TASK-1 A own=-300s
        tick +1h                        → block      # five minutes are no history yet
    """)
    assert [(run.latency_ms, run.flags) for run in world.executions()] == [
        (0, ["historical"]),
        (90_000, ["historical"]),
    ]


def test_history_is_told_by_the_record_itself_not_by_what_came_before_it() -> None:
    # Offline the append time is the event's own: then nothing is historical, in whatever order.
    world = World(NARROW)
    for task_id, own_ms in (("TASK-1", START_MS + 3_600_000), ("TASK-2", START_MS)):
        data = {"phase": "A"}
        world.take(record("phase.started", task_id, task_id, data, own_ms), own_ms)
    tell(world, "tick +1h\nfinish TASK-2")
    assert world.executions()[0].flags == []


def test_the_task_that_is_stuck_in_a_phase_is_told_once() -> None:
    world = story("""
        start TASK-1
        begin TASK-1 THINK own=-1h
        tick +4h                        → TASK-1 stuck
        tick +4h                        → nothing
        end  TASK-1 THINK
        begin TASK-1 THINK
        end  TASK-1 THINK +3h
        tick +4h                        → nothing
        begin TASK-1 THINK own=-1h
        tick +4h                        → TASK-1 stuck
    """)
    stuck = [one for one in world.lifecycles() if one.change == "stuck"]
    assert [one.phase for one in stuck] == ["THINK", "THINK"]
    assert stuck[0].flags == ["stuck"]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("grant     TASK-1 ×2", id="a grant"),
        pytest.param("recover   TASK-1 refold", id="a refold"),
        pytest.param("reclassify TASK-1 complexity=tiny", id="other limits"),
    ],
)
def test_a_run_too_long_to_count_crosses_nothing_when_its_limits_change(line: str) -> None:
    story(f"""
        start TASK-1 planned=THINK
        begin TASK-1 THINK
        tick  +30h                 → TASK-1 review
        {line}                     → continue
        tick  +1s                  → nothing    # those deadlines lie a day back
    """)
