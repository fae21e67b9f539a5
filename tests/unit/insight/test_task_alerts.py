"""Alerts about a task are those of the log, whatever order its topics are read in."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alerts import Alert, AlertState, Origin, Severity
from schemas.envelope import Envelope
from schemas.errors import InvalidFieldError
from schemas.fields import Complexity, Importance, Verdict
from schemas.outputs import Lifecycle
from streams.budget.ladder import LEVELS
from streams.budget.policy import Policy
from streams.insight import task_alerts
from streams.insight.signals import BlockClassed, CallsMade, TaskBegan, TaskBlocked
from streams.insight.task_alerts import REMEMBERED_MS, fold_task, is_forgettable
from tests.unit.budget.histories import POLICY, Happening, examples, histories
from tests.unit.budget.story import story
from tests.unit.budget.world import START_MS, World
from tests.unit.insight.told import records
from tests.unit.insight.watching import Placed, Watcher, interleaved, placed


def told(text: str, policy: Policy | None = None) -> list[Placed]:
    return placed(records(story(text, policy=policy)))


def watched(text: str) -> Watcher:
    return Watcher().read(told(text))


@pytest.mark.parametrize(
    ("text", "edges"),
    [
        pytest.param(
            """
            start TASK-1 planned=THINK
            usage TASK-1 THINK 5_500      → notice
            """,
            [],
            id="a notice is no alert",
        ),
        pytest.param(
            """
            start TASK-1 planned=THINK
            usage TASK-1 THINK 7_300      → warn
            usage TASK-1 THINK 1_800      → review
            """,
            ["budget_breach TASK-1 firing 1"],
            id="a task fires once, however far it goes",
        ),
        pytest.param(
            """
            start TASK-1 planned=THINK
            usage TASK-1 THINK 7_300      → warn
            grant TASK-1 ×2               → continue
            usage TASK-1 THINK 9_000      → warn
            """,
            [
                "budget_breach TASK-1 firing 1",
                "budget_breach TASK-1 resolved 2",
                "budget_breach TASK-1 firing 3",
            ],
            id="a grant resolves it, and more use fires it again",
        ),
        pytest.param(
            """
            start TASK-1 planned=THINK
            begin TASK-1 THINK
            tick  +4m                     → TASK-1 review
            end   TASK-1 THINK ms=1000    → continue
            """,
            ["budget_breach TASK-1 firing 1", "budget_breach TASK-1 resolved 2"],
            id="a level that is withdrawn resolves it",
        ),
        pytest.param(
            """
            start TASK-1 planned=THINK
            usage TASK-1 THINK 7_300      → warn
            finish TASK-1
            usage TASK-1 THINK 7_300      → block
            """,
            ["budget_breach TASK-1 firing 1", "budget_breach TASK-1 resolved 2"],
            id="an end resolves it, and late usage holds nobody",
        ),
        pytest.param(
            """
            start TASK-1 planned=THINK
            usage TASK-1 THINK 7_300      → warn
            usage TASK-1 THINK 5_200      → block
            grant TASK-1 ×1.5             → warn
            """,
            [
                "budget_breach TASK-1 firing 1",
                "task_blocked TASK-1 firing 1",
                "task_blocked TASK-1 resolved 2",
            ],
            id="that it goes on to block is an alert of its own, also where nobody is held",
        ),
        pytest.param(
            """
            start TASK-1 planned=THINK
            usage TASK-1 THINK 12_500     → block
            finish TASK-1
            """,
            [
                "budget_breach TASK-1 firing 1",
                "task_blocked TASK-1 firing 1",
                "budget_breach TASK-1 resolved 2",
                "task_blocked TASK-1 resolved 2",
            ],
            id="an end resolves both",
        ),
        pytest.param(
            """
            start TASK-1 planned=THINK
            mode  enforce
            usage TASK-1 THINK 12_500     → block
            grant TASK-1 ×1.5             → warn
            """,
            [
                "budget_breach TASK-1 firing 1",
                "task_blocked TASK-1 firing 1",
                "task_blocked TASK-1 resolved 2",
            ],
            id="one that is held is an alert of its own until it goes on",
        ),
        pytest.param(
            """
            start TASK-1 planned=THINK
            usage TASK-1 THINK 12_500     → block
            mode  enforce
            mode  observe
            """,
            [
                "budget_breach TASK-1 firing 1",
                "task_blocked TASK-1 firing 1",
                "task_blocked TASK-1 resolved 2",
                "task_blocked TASK-1 firing 3",
                "task_blocked TASK-1 resolved 4",
                "task_blocked TASK-1 firing 5",
            ],
            id="the mode decides who is held",
        ),
        pytest.param(
            """
            mode  enforce
            start TASK-1 planned=THINK
            start TASK-2 planned=THINK parent=TASK-1
            usage TASK-1 THINK 12_500     → block; TASK-2 block
            grant TASK-1 ×4               → continue; TASK-2 continue
            """,
            [
                "budget_breach TASK-1 firing 1",
                "task_blocked TASK-1 firing 1",
                "budget_breach TASK-1 resolved 2",
                "task_blocked TASK-1 resolved 2",
            ],
            id="what is inherited is the parent's alert",
        ),
        pytest.param(
            """
            start TASK-1
            begin TASK-1 THINK
            tick  +4h
            end   TASK-1 THINK ms=1000
            """,
            [
                "budget_breach TASK-1 firing 1",
                "stuck_task TASK-1 firing 1",
                "stuck_task TASK-1 resolved 2",
                "budget_breach TASK-1 resolved 2",
            ],
            id="stuck until the phase ends",
        ),
        pytest.param(
            """
            start TASK-1
            begin TASK-1 THINK own=-10m
            tick  +4h
            usage TASK-1 PLAN 10
            explain TASK-1 "it waits for somebody"
            recover TASK-1 refold
            begin TASK-1 PLAN own=-250m
            tick  +4h
            recover TASK-1 close_phase own=-490m
            """,
            [
                "stuck_task TASK-1 firing 1",
                "stuck_task TASK-1 resolved 2",
                "stuck_task TASK-1 firing 3",
                "stuck_task TASK-1 resolved 4",
            ],
            id="another phase supersedes it, which is closed by an operator",
        ),
        pytest.param(
            """
            start TASK-1
            begin TASK-1 THINK own=-10m
            tick  +4h
            finish TASK-1 own=-250m
            """,
            ["stuck_task TASK-1 firing 1", "stuck_task TASK-1 resolved 2"],
            id="an end resolves stuck as well",
        ),
        pytest.param(
            """
            start TASK-1
            begin TASK-1 THINK own=-10m
            tick  +4h
            end   TASK-1 THINK attempt=2 ms=1000 own=-250m
            """,
            ["stuck_task TASK-1 firing 1"],
            id="the end of a run that nobody has started says nothing of the one that is stuck",
        ),
    ],
)
def test_each_alert_fires_once_and_resolves_once(text: str, edges: list[str]) -> None:
    assert watched(text).edges() == edges


def test_what_is_said_is_what_somebody_can_act_on() -> None:
    alerts = watched("""
        mode  enforce
        start TASK-1 planned=THINK
        usage TASK-1 THINK 12_500         → block
        grant TASK-1 ×4                   → continue
        usage TASK-1 THINK 20_000         → warn
        begin TASK-1 THINK own=-10m
        tick  +4h
        finish TASK-1
    """).alerts
    assert [alert.data.message for alert in alerts] == [
        (
            "TASK-1: the task at 208 % of its token budget (12,500 of 6,000 tokens): "
            "stop until someone investigates or grants more"
        ),
        (
            "TASK-1 is held: the task at 208 % of its token budget (12,500 of 6,000 tokens): "
            "stop until someone investigates or grants more"
        ),
        (
            "TASK-1: the task at 52 % of its token budget (12,500 of 24,000 tokens): "
            "within its limits: go on"
        ),
        (
            "TASK-1 is no longer held: the task at 52 % of its token budget (12,500 of 24,000 tokens): "
            "within its limits: go on"
        ),
        (
            "TASK-1: the task at 135 % of its token budget (32,500 of 24,000 tokens): "
            "go on; this is logged"
        ),
        (
            "TASK-1 has been in THINK for longer than its policy allows; if its enforcer is gone: "
            "stoploss recover TASK-1 --close-phase --reason …"
        ),
        "TASK-1 is no longer in THINK",
        "TASK-1 has ended",
    ]


def test_an_edge_says_when_and_where_it_comes_from() -> None:
    (alert,) = watched("""
        start TASK-1 planned=THINK
        usage TASK-1 THINK 7_300 +90s     → warn
    """).alerts
    assert alert == Envelope(
        id="decisions-3-0-budget_breach-0",
        source="stoploss-agents",
        type="stoploss.alert",
        subject="budget_breach/TASK-1",
        time="2026-01-01T00:01:30.000Z",
        data=Alert(
            name="budget_breach",
            scope="TASK-1",
            state=AlertState.FIRING,
            value=1.2166,
            threshold=1,
            message=alert.data.message,
            severity=Severity.WARNING,
            number=1,
            since="2026-01-01T00:01:30.000Z",
            task_id="TASK-1",
            origin=Origin("decisions", 3, 0),
        ),
    )


LIVES = """
    mode   enforce
    start  TASK-1 planned=THINK,PLAN importance=high
    start  TASK-2 planned=THINK
    start  TASK-3 planned=THINK parent=TASK-1
    usage  TASK-1 THINK 12_000 calls=3
    begin  TASK-1 THINK
    usage  TASK-1 THINK 30_000 calls=2 known=false
    grant  TASK-1 ×4
    reclassify TASK-1 importance=low
    usage  TASK-1 THINK 30_000
    tick   +5h
    end    TASK-1 THINK backtracked ms=1000
    begin  TASK-1 THINK
    tick   +5h
    usage  TASK-2 THINK 90_000
    finish TASK-1
    usage  TASK-1 THINK 90_000 calls=7
    finish TASK-2
    finish TASK-3
    tick   +30h
    usage  TASK-1 PLAN 90_000
    start  TASK-1 planned=PLAN importance=critical
    begin  TASK-1 PLAN
    tick   +5h
    finish TASK-1
"""
TOLD = told(LIVES)
CHANCES = st.lists(st.floats(0, 1), min_size=len(TOLD), max_size=len(TOLD))


@given(CHANCES)
def test_any_order_between_topics_gives_the_same_edges(chances: list[float]) -> None:
    assert Watcher().read(interleaved(TOLD, chances)).by_scope() == Watcher().read(TOLD).by_scope()


@given(CHANCES)
def test_whatever_was_read_first_nothing_fires_for_ever(chances: list[float]) -> None:
    edges = Watcher().read(interleaved(TOLD, chances)).by_scope()
    assert len(edges) == 5
    assert {one[-1].split()[2] for one in edges.values()} == {"resolved"}


@given(CHANCES)
def test_any_order_between_topics_counts_the_same(chances: list[float]) -> None:
    def counted(told: list[Placed]) -> list[str]:
        return sorted(
            repr(signal)
            for signal in Watcher().read(told).signals
            if not isinstance(signal, BlockClassed)
        )

    assert counted(interleaved(TOLD, chances)) == counted(TOLD)


@given(CHANCES)
def test_a_block_is_of_the_class_that_its_task_had_then(chances: list[float]) -> None:
    tiers: dict[str, tuple[int, str]] = {}
    for signal in Watcher().read(interleaved(TOLD, chances)).signals:
        if isinstance(signal, BlockClassed):
            known = tiers.get(signal.decision_id, (-1, ""))
            tiers[signal.decision_id] = max(known, (signal.as_of, signal.tier))
    assert [tier for _, (_, tier) in sorted(tiers.items())] == TIERS


# In order of the decisions' ids, as text.
TIERS = ["medium/medium", "medium/medium", "high/medium", "low/medium"]


@given(CHANCES, st.integers(0, len(TOLD)), st.integers(0, len(TOLD)))
def test_what_is_read_again_in_another_order_changes_nothing_in_the_end(
    chances: list[float], one: int, other: int
) -> None:
    """It is killed after it has sent, and before it has kept: what it kept is of an earlier record."""
    kept, killed = sorted((one, other))
    first = interleaved(TOLD, chances)
    reader = Watcher().read(first[:kept])
    tasks = dict(reader.tasks)
    reader.read(first[kept:killed])
    reader.tasks = tasks
    reader.read([each for each in TOLD if each not in first[:kept]])
    last = {alert.subject: edge for alert, edge in zip(reader.alerts, reader.edges(), strict=True)}
    assert last == {
        subject: edges[-1] for subject, edges in Watcher().read(TOLD).by_scope().items()
    }


@given(st.integers(0, len(TOLD)))
def test_a_record_that_is_in_the_state_already_changes_nothing(cut: int) -> None:
    reader = Watcher().read(TOLD[:cut])
    tasks, sent = dict(reader.tasks), reader.edges()
    reader.read(TOLD[:cut])
    assert (reader.tasks, reader.edges()) == (tasks, sent)


def test_the_watch_that_was_given_stays_as_it_was() -> None:
    reader = Watcher().read(TOLD[:-1])
    packed = msgspec.json.encode(reader.tasks)
    before = dict(reader.tasks)
    reader.read(TOLD[-1:])
    assert msgspec.json.encode(before) == packed
    assert reader.tasks != before


@examples(8)
@given(histories(), CHANCES)
def test_alerts_stand_as_the_ledgers_own_state_does(
    history: list[Happening], chances: list[float]
) -> None:
    world = World(POLICY)
    for happening in history:
        world.take(happening.value, world.clock_ms + happening.moves_ms)
    in_order = placed(records(world))
    reader = Watcher().read(interleaved(in_order, chances))
    assert reader.by_scope() == Watcher().read(in_order).by_scope()
    for task_id, watch in reader.tasks.items():
        if task_id not in world.state.tasks.awake or (task := world.task(task_id)).is_ended:
            continue
        assert watch.stuck.standing.is_firing == ("stuck" in task.flags)
        if task.inherited_from is None:
            assert watch.breach.standing.is_firing == (LEVELS[task.verdict] in AT_LEAST_WARN)


AT_LEAST_WARN = {Verdict.WARN, Verdict.REVIEW, Verdict.BLOCK}


def test_what_all_tasks_together_are_judged_by() -> None:
    signals = watched("""
        start  TASK-1 planned=THINK importance=critical complexity=large task_type=fix
        begin  TASK-1 THINK
        usage  TASK-1 THINK 40_000 calls=3
        usage  TASK-1 THINK calls=2 known=false
        end    TASK-1 THINK
        usage  TASK-1 THINK 10 calls=4
        usage  TASK-2 PLAN 10
        start  TASK-2 importance=low
    """).signals

    def origin(topic: str, offset: int) -> Origin:
        return Origin(topic, 3, offset)

    assert signals == [
        TaskBegan(
            at_ms=START_MS,
            origin=origin("lifecycle", 0),
            importance=Importance.CRITICAL,
            budgeted_importance=Importance.HIGH,
            complexity=Complexity.LARGE,
            task_type="fix",
        ),
        TaskBlocked(at_ms=START_MS, origin=origin("decisions", 0), enforced=False),
        BlockClassed(
            at_ms=START_MS,
            origin=origin("decisions", 0),
            decision_id="3-2-8",
            tier="critical/large",
            as_of=0,
        ),
        CallsMade(at_ms=START_MS, origin=origin("executions", 0), calls=5, unknown=2, estimated=0),
        CallsMade(at_ms=START_MS, origin=origin("executions", 1), calls=4, unknown=0, estimated=0),
        TaskBegan(
            at_ms=START_MS,
            origin=origin("lifecycle", 1),
            importance=Importance.MEDIUM,
            budgeted_importance=Importance.MEDIUM,
            complexity=Complexity.MEDIUM,
        ),
        TaskBegan(
            at_ms=START_MS,
            origin=origin("lifecycle", 2),
            importance=Importance.LOW,
            budgeted_importance=Importance.LOW,
            complexity=Complexity.MEDIUM,
            is_late=True,
        ),
    ]


def test_a_task_is_forgotten_a_day_after_its_end_and_not_before() -> None:
    reader = watched("""
        start  TASK-1
        finish TASK-1 +1h
        start  TASK-2
    """)
    gone, open_one = reader.tasks["TASK-1"], reader.tasks["TASK-2"]
    ended_ms = START_MS + 3_600_000
    assert not is_forgettable(gone, ended_ms + REMEMBERED_MS - 1)
    assert is_forgettable(gone, ended_ms + REMEMBERED_MS)
    assert not is_forgettable(open_one, ended_ms + 100 * REMEMBERED_MS)


def test_one_whose_id_is_used_again_is_remembered() -> None:
    reader = watched("""
        start  TASK-1
        finish TASK-1
        tick   +30h
        start  TASK-1
    """)
    assert not is_forgettable(reader.tasks["TASK-1"], START_MS + 100 * REMEMBERED_MS)


def test_records_about_a_partition_are_about_no_task() -> None:
    assert watched("tick +25h").tasks == {}


def test_a_start_that_says_no_class_counts_for_none() -> None:
    record = Envelope(
        id="3-5-0",
        source="stoploss/ledger",
        type="stoploss.lifecycle",
        subject="TASK-1",
        time="2026-01-01T00:00:00.000Z",
        data=Lifecycle(change="started", task_id="TASK-1"),
    )
    watch, alerts, signals = fold_task(None, record, Origin("lifecycle", 3, 0))
    assert watch is not None
    assert (watch.began.offset, alerts, signals) == (5, [], [])


@pytest.mark.parametrize(
    ("record_id", "time", "said"),
    [
        (
            "abc",
            "2026-01-01T00:00:00Z",
            "id: 'abc' is not allowed; use {partition}-{offset}-{index}",
        ),
        (
            "3-5-0",
            "noon",
            "time: 'noon' is not allowed; use RFC 3339, such as 2026-11-26T12:00:00Z",
        ),
        (
            "3-5-0",
            "2026-01-01",
            "time: '2026-01-01' is not allowed; use RFC 3339, such as 2026-11-26T12:00:00Z",
        ),
    ],
)
def test_a_record_that_is_not_the_ledgers_is_refused(record_id: str, time: str, said: str) -> None:
    record = Envelope(
        id=record_id,
        source="somebody",
        type="stoploss.lifecycle",
        subject="TASK-1",
        time=time,
        data=Lifecycle(change="started", task_id="TASK-1"),
    )
    with pytest.raises(InvalidFieldError) as refused:
        fold_task(None, record, Origin("lifecycle", 3, 0))
    assert str(refused.value) == said


def test_a_task_that_goes_on_for_ever_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNS_MAX", "CLASSES_MAX", "BLOCKS_MAX", "PHASES_MAX"):
        monkeypatch.setattr(task_alerts, name, 1)
    turn = """
        begin TASK-1 THINK
        end   TASK-1 THINK
        begin TASK-1 PLAN
        end   TASK-1 PLAN
        reclassify TASK-1 importance=low
        reclassify TASK-1 importance=high
        mode enforce
        mode observe
    """
    reader = watched(
        f"start TASK-1\nusage TASK-1 SPEC 90_000\n{turn}{turn}usage TASK-1 THINK 5 attempt=1"
    )
    watch = reader.tasks["TASK-1"]
    assert [len(each) for each in (watch.runs, watch.classes, watch.blocks, watch.left)] == [1] * 4
    assert watch.dropped > 4


def test_an_alert_carries_on_the_trace_of_the_record_that_it_follows_from() -> None:
    history = told(
        """
        start TASK-1 planned=THINK
        usage TASK-1 THINK 7_300      → warn
        finish TASK-1
        """
    )
    traced = [
        (origin, (topic, msgspec.structs.replace(record, traceparent=f"{topic} {origin.offset}")))
        for origin, (topic, record) in history
    ]
    alerts = Watcher().read(traced).alerts
    assert [(alert.data.state, alert.traceparent) for alert in alerts] == [
        (AlertState.FIRING, "decisions 0"),
        (AlertState.RESOLVED, "lifecycle 1"),
    ]
    assert [alert.traceparent for alert in Watcher().read(history).alerts] == [msgspec.UNSET] * 2
