"""Who is watched is remembered as long as something may come, and not longer."""

from schemas.alerts import Origin
from schemas.envelope import Envelope, rfc3339
from schemas.outputs import Lifecycle
from schemas.topics import Topic
from streams.insight.forgetting import MINUTE_MS
from streams.insight.governing import TASK, WHERE, Kept, Where, tell, tidy
from streams.insight.task_alerts import REMEMBERED_MS
from tests.unit.budget.story import story
from tests.unit.budget.world import START_MS
from tests.unit.insight.told import Told, records

CRITICAL = """
    start      TASK-1 importance=low
    reclassify TASK-1 importance=critical by=ann reason="it loses data"
    review     TASK-1 approve by=bob
    finish     TASK-1 completed
"""


def changes(text: str) -> list[Envelope[Lifecycle]]:
    told: list[Told] = records(story(text))
    return [record for topic, record in told if topic is Topic.LIFECYCLE]


def later(record: Envelope[Lifecycle], passed_ms: int) -> Envelope[Lifecycle]:
    return Envelope(
        id=record.id,
        source=record.source,
        type=record.type,
        subject=record.subject,
        time=rfc3339(START_MS + passed_ms),
        data=record.data,
    )


def watched(kept: dict[str, Kept]) -> set[str]:
    return {key.removeprefix(TASK) for key in kept if key.startswith(TASK)}


def test_a_change_causes_entries_edges_and_signals_once() -> None:
    kept: dict[str, Kept] = {}
    found = [
        tell(kept, record, Origin("lifecycle", 3, offset))
        for offset, record in enumerate(changes(CRITICAL))
    ]
    audits = [entry.data.action.value for _, _, entries in found for entry in entries]
    edges = [edge.data.state.value for alerts, _, _ in found for edge in alerts]
    assert audits == ["task_reclassified", "justification_reviewed"]
    assert edges == ["firing", "resolved"]
    assert any(signals for _, signals, _ in found)
    again = [
        tell(kept, record, Origin("lifecycle", 3, offset))
        for offset, record in enumerate(changes(CRITICAL))
    ]
    assert again == [([], [], [])] * len(found)


def test_an_ended_task_is_forgotten_when_nothing_comes_any_more() -> None:
    kept: dict[str, Kept] = {}
    for offset, record in enumerate(changes(CRITICAL)):
        tell(kept, record, Origin("lifecycle", 3, offset))
    (other,) = changes("start TASK-2")
    for number, passed_ms in enumerate((REMEMBERED_MS, REMEMBERED_MS + 2 * MINUTE_MS)):
        tell(kept, later(other, passed_ms), Origin("lifecycle", 3, 10 + number))
        tidy(kept)
        assert watched(kept) == ({"TASK-1", "TASK-2"} if number == 0 else {"TASK-2"})
    for _ in range(2):
        tidy(kept)
    assert set(kept) == {f"{TASK}TASK-2", WHERE}


def test_an_id_that_is_used_again_is_watched_on() -> None:
    kept: dict[str, Kept] = {}
    text = f"{CRITICAL}\ntick +30h\nstart TASK-1"
    for offset, record in enumerate(changes(text)):
        tell(kept, record, Origin("lifecycle", 3, offset))
        tidy(kept)
    assert "TASK-1" in watched(kept)


def test_there_is_nothing_to_tidy_at_first_and_time_never_goes_back() -> None:
    kept: dict[str, Kept] = {}
    tidy(kept)
    assert kept == {}
    (record,) = changes("start TASK-2")
    tell(kept, later(record, MINUTE_MS), Origin("lifecycle", 3, 0))
    tell(kept, later(record, 0), Origin("lifecycle", 3, 1))
    where = kept[WHERE]
    assert isinstance(where, Where)
    assert where.read_ms == START_MS + MINUTE_MS
