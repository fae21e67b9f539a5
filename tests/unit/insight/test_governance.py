"""What tasks call themselves is written down, counted, and looked at by somebody."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alerts import AlertState, Origin, Severity
from schemas.envelope import Envelope
from schemas.errors import InvalidFieldError
from schemas.fields import Importance
from schemas.outputs import Lifecycle
from streams.insight.governance import (
    WHY_LENGTH_MAX,
    GovernedTask,
    fold_governed,
    is_forgettable,
)
from streams.insight.monitors import importance_now
from streams.insight.signals import ReviewAwaited, ReviewSettled, Signal, TaskClassed, Tick
from streams.insight.task_alerts import REMEMBERED_MS
from tests.unit.budget.histories import POLICY, Happening, examples, histories
from tests.unit.budget.story import story
from tests.unit.budget.world import START_MS, World
from tests.unit.insight.governing import Governor, classifying, governed, renamed, told
from tests.unit.insight.signalling import Monitors

DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("text", "edges"),
    [
        pytest.param(
            """
            start TASK-1 importance=low
            reclassify TASK-1 importance=critical
            review TASK-1 approve
            """,
            ["importance_jump TASK-1 firing 1", "importance_jump TASK-1 resolved 2"],
            id="from low to critical, until somebody looks at it",
        ),
        pytest.param(
            """
            start TASK-1 importance=low
            reclassify TASK-1 importance=critical
            review TASK-1 refuse
            """,
            ["importance_jump TASK-1 firing 1", "importance_jump TASK-1 resolved 2"],
            id="whatever the answer is",
        ),
        pytest.param(
            """
            start TASK-1 importance=low
            reclassify TASK-1 importance=critical
            reclassify TASK-1 complexity=tiny
            reclassify TASK-1 importance=high
            """,
            ["importance_jump TASK-1 firing 1", "importance_jump TASK-1 resolved 2"],
            id="until it is classified away",
        ),
        pytest.param(
            """
            start TASK-1 importance=low
            reclassify TASK-1 importance=critical
            finish TASK-1
            review TASK-1 approve
            """,
            ["importance_jump TASK-1 firing 1", "importance_jump TASK-1 resolved 2"],
            id="until it ends",
        ),
        pytest.param(
            """
            start TASK-1 importance=low
            reclassify TASK-1 importance=medium
            reclassify TASK-1 importance=high
            reclassify TASK-1 importance=critical
            """,
            ["importance_jump TASK-1 firing 1"],
            id="in small steps as well",
        ),
        pytest.param(
            """
            start TASK-1 importance=low
            reclassify TASK-1 importance=critical reason=one
            review TASK-1 approve
            reclassify TASK-1 importance=critical reason=two
            reclassify TASK-1 importance=low
            reclassify TASK-1 importance=critical reason=three
            """,
            [
                "importance_jump TASK-1 firing 1",
                "importance_jump TASK-1 resolved 2",
                "importance_jump TASK-1 firing 3",
            ],
            id="again where it jumps again, not where it only says so again",
        ),
        pytest.param(
            """
            start TASK-1
            reclassify TASK-1 importance=critical
            start TASK-2 importance=critical why=outage
            """,
            [],
            id="from medium it is no jump",
        ),
        pytest.param(
            """
            usage TASK-1 THINK 5
            reclassify TASK-1 importance=low
            start TASK-1 importance=critical why=outage
            """,
            ["importance_jump TASK-1 firing 1"],
            id="by a start that comes late",
        ),
        pytest.param(
            """
            start TASK-1 importance=low
            finish TASK-1
            reclassify TASK-1 importance=critical
            """,
            [],
            id="of a task that has ended nobody wants to know",
        ),
        pytest.param(
            """
            start TASK-1 importance=low
            finish TASK-1
            tick +25h
            start TASK-1 importance=medium
            reclassify TASK-1 importance=critical
            """,
            [],
            id="what another task of the same id was does not matter",
        ),
    ],
)
def test_a_jump_to_critical_fires_once_and_resolves_once(text: str, edges: list[str]) -> None:
    assert governed(text).edges == edges


def test_an_edge_says_who_and_why_and_what_to_do() -> None:
    found = governed("""
        start TASK-1 importance=low owner=bob
        reclassify TASK-1 importance=critical by=ann reason="it loses\tdata"
        review TASK-1 approve by=bob
    """)
    assert found.messages == [
        (
            "TASK-1 was low and is critical now, by ann: it loses data; "
            "stoploss justify TASK-1 approve, or refuse"
        ),
        "TASK-1 is critical: approved by bob",
    ]
    fired = found.alerts[0]
    assert (fired.id, fired.data.state, fired.data.severity, fired.data.task_id) == (
        "lifecycle-3-1-importance_jump-0",
        AlertState.FIRING,
        Severity.WARNING,
        "TASK-1",
    )
    assert (fired.data.since, fired.data.origin) == (fired.time, Origin("lifecycle", 3, 1))


def test_a_critical_task_without_a_reason_says_so() -> None:
    found = governed("""
        start TASK-1 importance=low
        reclassify TASK-1 importance=critical reason=" "
    """)
    assert "by ada: nobody said why" in found.messages[0]
    assert not [one for one in found.signals if isinstance(one, ReviewAwaited)]


def test_a_long_reason_is_shortened_where_it_is_kept_with_all_others() -> None:
    found = governed(f'start TASK-1 importance=critical why="{"data loss " * 40}" owner=bob')
    (awaited,) = [one for one in found.signals if isinstance(one, ReviewAwaited)]
    assert len(awaited.why) == WHY_LENGTH_MAX
    assert (awaited.by, awaited.why[-4:]) == ("bob", "oss…")


def test_what_all_tasks_together_are_judged_by() -> None:
    signals = governed("""
        usage TASK-1 THINK 5
        start TASK-1 importance=critical why=outage +1h
        reclassify TASK-1 complexity=tiny +1h
        reclassify TASK-1 importance=low +1h
        finish TASK-1 +1h
    """).signals

    def base(hours: int, offset: int) -> dict[str, object]:
        return {"at_ms": START_MS + hours * 3_600_000, "origin": Origin("lifecycle", 3, offset)}

    def classed(hours: int, offset: int, was: str | None, now: str) -> Signal:
        return TaskClassed(
            **base(hours, offset),  # type: ignore[arg-type]
            began_ms=START_MS,
            importance=Importance(now),
            previous=None if was is None else Importance(was),
        )

    assert signals == [
        classed(0, 0, None, "medium"),
        classed(1, 1, "medium", "critical"),
        ReviewAwaited(**base(1, 1), task_id="TASK-1", by="unknown", why="outage"),  # type: ignore[arg-type]
        ReviewAwaited(**base(2, 2), task_id="TASK-1", by="ada", why="outage"),  # type: ignore[arg-type]
        classed(3, 3, "critical", "low"),
        ReviewSettled(**base(3, 3), task_id="TASK-1", how="is low now, not critical"),  # type: ignore[arg-type]
        ReviewSettled(**base(4, 4), task_id="TASK-1", how="has ended", is_over=True),  # type: ignore[arg-type]
    ]


def test_where_most_tasks_are_critical_it_is_said_once_until_they_no_longer_are() -> None:
    """The user's document, scenario 6: four of five are critical, where it was one of five."""
    history = ["tick"]
    for number in range(40):
        critical = "importance=critical why=outage" if number % 5 else "importance=medium"
        history.append(f"start GAMED-{number} {critical}")
    history += [f"reclassify GAMED-{number} importance=medium" for number in range(37)]
    monitors = Monitors()
    monitors.take(governed("\n".join(history)).signals)
    assert monitors.edges == [
        "importance_inflation all firing 1",
        "importance_inflation all resolved 2",
    ]
    assert [message.partition(";")[0] for message in monitors.messages] == [
        "16 of 20 tasks that began in 7 days are critical: 80 %, where 5 % are expected",
        "3 of 40 tasks that began in 7 days are critical: 7 %, where 5 % are expected",
    ]


def test_every_change_has_its_entry_in_the_audit_once() -> None:
    history = """
        start TASK-1 importance=critical why=outage owner=bob
        grant TASK-1 ×2
        review TASK-1 approve
        finish TASK-1
        tick +25h
    """
    found = governed(history)
    assert [entry.data.action.value for entry in found.audits] == [
        "task_classified",
        "task_granted",
        "justification_reviewed",
    ]
    assert "partition/3" in found.tasks


def test_a_task_whose_start_was_not_read_counts_nowhere_and_may_jump() -> None:
    history = story("start TASK-1 importance=low\nreclassify TASK-1 importance=critical")
    (_, later) = told(history)
    found = Governor().read([later])
    assert found.edges == ["importance_jump TASK-1 firing 1"]
    assert not [one for one in found.signals if isinstance(one, TaskClassed)]


def test_a_start_that_says_no_class_counts_for_none() -> None:
    watch, alerts, signals, audits = fold_governed(None, lifecycle(), Origin("lifecycle", 3, 0))
    assert (watch.importance, alerts, signals, audits) == (None, [], [], [])


def lifecycle(record_id: str = "3-5-0", time: str = "2026-01-01T00:00:00Z") -> Envelope[Lifecycle]:
    return Envelope(
        id=record_id,
        source="somebody",
        type="stoploss.lifecycle",
        subject="TASK-1",
        time=time,
        data=Lifecycle(change="started", task_id="TASK-1"),
    )


@pytest.mark.parametrize(
    ("record", "field"),
    [
        pytest.param(lifecycle(record_id="abc"), "id", id="an id of somebody else's"),
        pytest.param(lifecycle(time="noon"), "time", id="a time in words"),
        pytest.param(lifecycle(time="2026-01-01"), "time", id="a time without a zone"),
    ],
)
def test_a_record_that_is_not_the_ledgers_is_refused(
    record: Envelope[Lifecycle], field: str
) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        fold_governed(None, record, Origin("lifecycle", 3, 0))
    assert refused.value.field == field


def test_a_task_is_forgotten_a_day_after_its_end_and_not_before() -> None:
    tasks = governed("""
        start TASK-1
        finish TASK-1 +1h
        start TASK-2
    """).tasks
    ended_ms = START_MS + 3_600_000
    assert not is_forgettable(tasks["TASK-1"], ended_ms + REMEMBERED_MS - 1)
    assert is_forgettable(tasks["TASK-1"], ended_ms + REMEMBERED_MS)
    assert not is_forgettable(tasks["TASK-2"], ended_ms + 100 * REMEMBERED_MS)


@examples(40)
@given(classifying(), st.data())
def test_a_record_that_is_read_again_changes_nothing(world: World, data: st.DataObject) -> None:
    in_order = told(world)
    cut = data.draw(st.integers(0, len(in_order)))
    reader = Governor().read(in_order[:cut])
    sent = (len(reader.alerts), len(reader.signals), len(reader.audits))
    reader.read(in_order[data.draw(st.integers(0, cut)) : cut])
    assert (len(reader.alerts), len(reader.signals), len(reader.audits)) == sent
    reader.read(in_order[cut:])
    undisturbed = Governor().read(in_order)
    assert reader.tasks == undisturbed.tasks
    assert (reader.alerts, reader.signals) == (undisturbed.alerts, undisturbed.signals)


@examples(20)
@given(classifying())
def test_the_watch_that_was_given_stays_as_it_was(world: World) -> None:
    watch: GovernedTask | None = None
    for origin, record in told(world):
        before = msgspec.json.encode(watch)
        after, *_ = fold_governed(watch, record, origin)
        assert msgspec.json.encode(watch) == before
        watch = after


@examples(60)
@given(classifying())
def test_who_waits_for_a_review_is_what_the_ledger_says(world: World) -> None:
    tasks = Governor().read(told(world)).tasks
    for task_id, task in world.state.tasks.awake.items():
        waits = (
            not task.is_ended
            and task.importance is Importance.CRITICAL
            and task.justification is not None
            and task.approved is None
        )
        assert tasks[task_id].waits == waits


@examples(60)
@given(classifying())
def test_what_fires_in_the_end_has_been_low_is_critical_and_was_not_looked_at(
    world: World,
) -> None:
    expected = set()
    for task_id in ("T0", "T1"):
        life: list[Lifecycle] = []
        for said in world.lifecycles(task_id):
            life = (
                [said] if said.change == "started" and said.limits_version == 1 else [*life, said]
            )
        marks = [said.importance for said in life]
        changes = [said.change for said in life]
        critical_from = len(marks)
        while critical_from and marks[critical_from - 1] is Importance.CRITICAL:
            critical_from -= 1
        if (
            Importance.LOW in marks[:critical_from]
            and critical_from < len(marks)
            and "reviewed" not in changes[critical_from:]
            and "ended" not in changes
        ):
            expected.add(task_id)
    assert Governor().read(told(world)).firing == expected


@examples(60)
@given(classifying())
def test_everything_about_a_justification_fires_in_the_end_and_resolves_by_the_end(
    world: World,
) -> None:
    reader, monitors = Governor().read(told(world)), Monitors()
    monitors.take(reader.signals)
    monitors.take([Tick(at_ms=world.clock_ms + DAY_MS)])
    firing = {name for name, state in monitors.standing.items() if state == "firing"}
    waiting = {task_id for task_id, task in reader.tasks.items() if task.waits}
    assert firing == {f"justification_unreviewed/{task_id}" for task_id in waiting}


def counted(monitors: Monitors) -> Counter[str]:
    found = importance_now(monitors.windows)
    return Counter({one.importance.value: one.tasks for one in found.shares if one.tasks})


def classed_last(world: World) -> Counter[str]:
    """Count each life of each task that began in the last 5 days as what it was last."""
    lives: list[tuple[str, str]] = []
    for effect in world.effects:
        if not isinstance(said := effect.data, Lifecycle) or said.task_id is None:
            continue
        assert said.importance is not None
        if said.change == "started" and said.limits_version == 1:
            lives.append((said.task_id, said.importance.value))
        else:
            last = max(index for index, (task, _) in enumerate(lives) if task == said.task_id)
            lives[last] = (said.task_id, said.importance.value)
    return Counter(importance for _, importance in lives)


@examples(60)
@given(histories())
def test_each_task_counts_once_as_what_it_is_last(history: list[Happening]) -> None:
    world = World(POLICY)
    for happening in history:
        world.take(happening.value, world.clock_ms + happening.moves_ms)
    monitors = Monitors()
    monitors.take(Governor().read(told(world)).signals)
    assert counted(monitors) == classed_last(world)


@examples(30)
@given(st.lists(classifying(), min_size=2, max_size=3), st.data())
def test_no_order_between_partitions_changes_what_is_counted_and_who_waits(
    worlds: list[World], data: st.DataObject
) -> None:
    queues = [
        renamed(Governor().read(told(world, partition)).signals, partition)
        for partition, world in enumerate(worlds)
    ]
    one_by_one = Monitors()
    one_by_one.take(signal for queue in queues for signal in queue)
    order = data.draw(st.permutations([at for at, queue in enumerate(queues) for _ in queue]))
    waiting = [list(queue) for queue in queues]
    mixed = Monitors()
    for at in order:
        signal = waiting[at].pop(0)
        mixed.take([signal])
        mixed.take([signal])  # sent twice after a crash
    end = [Tick(at_ms=max(world.clock_ms for world in worlds) + DAY_MS)]
    one_by_one.take(end)
    mixed.take(end)
    assert counted(mixed) == counted(one_by_one)
    shelves = {key for key in one_by_one.windows if key.startswith("justification_unreviewed/")}
    assert {key: mixed.windows[key] for key in shelves} == {
        key: one_by_one.windows[key] for key in shelves
    }
