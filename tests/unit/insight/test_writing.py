"""The first report of a task is whole, and the next one says something else."""

from collections import defaultdict
from typing import Any

import msgspec
import pytest

from schemas.alerts import Origin
from schemas.baselines import Baseline
from schemas.envelope import Envelope, rfc3339
from schemas.feedback import Feedback
from schemas.reports import Report
from schemas.topics import DAY_MS, Topic
from streams.insight import writing
from streams.insight.gathering import Due, Tick
from streams.insight.writing import (
    DONE,
    TASK,
    WHERE,
    Entry,
    Held,
    Where,
    finish,
    fold_baseline,
    fold_feedback,
    fold_said,
)
from tests.unit.budget.story import story
from tests.unit.budget.world import START_MS
from tests.unit.insight.gathered import Gathering, numbered
from tests.unit.insight.test_reports import baseline
from tests.unit.insight.told import records

S, HOUR = 1_000, 3_600_000
NOW = START_MS + HOUR
BLOCKED = """
    start  TASK-1 planned=THINK
    usage  TASK-1 THINK 13_100      → block
    end    TASK-1 THINK completed ms=20000
    finish TASK-1 blocked
"""
TOPIC = "agents-reports-due"


def due_of(text: str = BLOCKED, task_id: str = "TASK-1") -> Due:
    room = Gathering()
    room.batch(numbered(records(story(text))))
    return room.last_due[task_id]


class Writing:
    """Entries as they are stored between batches, and the reports that were written."""

    def __init__(self, template: str | None = None) -> None:
        self.stored: dict[str, bytes] = {}
        self.written: list[Envelope[Report]] = []
        self.failed: list[tuple[str, Exception]] = []
        self._template = template
        self._offsets: dict[str, int] = defaultdict(int)

    def told(self, *said: tuple[int, Any], again: int = 0) -> list[Envelope[Report]]:
        """Fold a batch: each record and when it was written; `again`: so many were read before."""
        entries: dict[str, Any] = {key: _DECODER.decode(v) for key, v in self.stored.items()}
        for written_ms, record in said:
            topic = TOPIC
            if isinstance(record, Envelope):
                topic = Topic.FEEDBACK if isinstance(record.data, Feedback) else Topic.BASELINES
            offset = self._offsets[topic] - again
            self._offsets[topic] = max(self._offsets[topic], offset + 1)
            origin = Origin(topic, 0, offset)
            if not isinstance(record, Envelope):
                fold_said(entries, origin, written_ms, record)
            elif isinstance(record.data, Feedback):
                fold_feedback(entries, origin, written_ms, record)
            else:
                fold_baseline(entries, origin, record)
        written = finish(entries, lambda *each: self.failed.append(each), self._template)
        self.stored = {key: _ENCODE(entry) for key, entry in entries.items()}
        self.written += written
        return written

    def ticks(self, first_ms: int, count: int = 1, *, every_ms: int = S) -> list[Envelope[Report]]:
        """Let time pass, each tick in a batch of its own."""
        found = []
        for number in range(count):
            at_ms = first_ms + number * every_ms
            found += self.told((at_ms, Tick(at_ms)))
        return found

    def until(self, at_ms: int) -> list[Envelope[Report]]:
        """Let every second pass until then."""
        first_ms = self.where.tick_ms + S
        return self.ticks(first_ms, (at_ms - first_ms) // S + 1)

    @property
    def entries(self) -> dict[str, Entry]:
        return {key: _DECODER.decode(value) for key, value in self.stored.items()}

    @property
    def where(self) -> Where:
        where = self.entries[WHERE]
        assert isinstance(where, Where)
        return where


_ENCODE = msgspec.json.Encoder(decimal_format="number").encode
_DECODER: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)


def running() -> Writing:
    """A room in which time has passed for a while."""
    room = Writing("https://budget.example/{task_id}")
    room.ticks(NOW - 60 * S, 61)
    return room


def answer(task_id: str = "TASK-1", *, false_positive: bool = True) -> Envelope[Feedback]:
    (decision_id,) = due_of().facts.blocks
    said = Feedback(
        task_id=task_id, decision_id=decision_id, false_positive=false_positive, by="ann"
    )
    return Envelope(
        id="f",
        source="web",
        type="stoploss.feedback",
        subject=task_id,
        time=rfc3339(NOW),
        data=said,
    )


def usual(*used: float) -> Envelope[Baseline]:
    data = baseline("THINK", *used)
    return Envelope(
        id="b", source="", type="stoploss.baseline", subject="", time=rfc3339(NOW), data=data
    )


def test_a_report_is_written_a_second_after_the_last_that_came_for_it() -> None:
    room = running()
    assert room.told((NOW, due_of()), (NOW + 999, Tick(NOW + 999))) == []
    (report,) = room.ticks(NOW + S)
    assert report.id == f"report-TASK-1-{rfc3339(START_MS)}-1"
    assert (report.subject, report.time) == ("TASK-1", rfc3339(START_MS))
    assert (report.data.revision, report.data.final) == (1, True)
    assert report.data.link == "https://budget.example/TASK-1"
    assert report.data.metrics["tokens"].used == 13_100  # type: ignore[index]
    assert room.ticks(NOW + 2 * S, 100) == []


def test_what_comes_meanwhile_is_in_the_first_report() -> None:
    room = running()
    early = due_of()
    runs, early.facts.runs = early.facts.runs, {}
    room.told((NOW, early))
    whole = due_of()
    assert whole.facts.runs == runs
    room.told((NOW + 500, whole), (NOW + S, Tick(NOW + S)))
    (report,) = room.ticks(NOW + 1_500)
    assert report.data.phases[0].attempts == 1
    assert report.data.revision == 1


def test_a_report_waits_as_long_as_time_stands_still_because_something_is_not_read() -> None:
    room = running()
    room.told((NOW, due_of()))
    for later_ms in range(0, HOUR, 600 * S):
        assert room.told((NOW + later_ms, Tick(NOW + 999))) == []
    assert len(room.told((NOW + HOUR, Tick(NOW + S)))) == 1


def test_after_a_pause_the_first_tick_has_waited_for_all_that_came_meanwhile() -> None:
    room = running()
    room.told((NOW, due_of()))
    assert len(room.ticks(NOW + HOUR)) == 1


def test_what_similar_tasks_use_is_compared_with_and_makes_no_revision_by_itself() -> None:
    room = running()
    room.told((NOW, usual(*[3_500] * 5)), (NOW, due_of()))
    (report,) = room.ticks(NOW + S)
    similar = report.data.phases[0].metrics["tokens"].similar  # type: ignore[index]
    assert similar is not None
    assert similar.mean == 3_500
    room.told((NOW + 2 * S, usual(*[9_000] * 5)))
    room.told((NOW + 2 * S, due_of()))
    assert room.ticks(NOW + 3 * S, 10) == []


def test_late_usage_and_an_explanation_make_the_next_revision() -> None:
    room = running()
    room.told((NOW, due_of()))
    room.ticks(NOW + S)
    late = due_of(f'{BLOCKED}\nusage TASK-1 THINK 50\nexplain TASK-1 "a migration"')
    room.until(NOW + 9 * S)
    room.told((NOW + 9 * S, late))
    (report,) = room.until(NOW + 10 * S)
    assert report.id.endswith("-2")
    assert report.data.revision == 2
    assert report.data.metrics["tokens"].used == 13_150  # type: ignore[index]
    assert [each.text for each in report.data.explanations] == ["a migration"]


def test_a_change_that_the_report_does_not_show_makes_no_revision() -> None:
    room = running()
    room.told((NOW, due_of()))
    room.ticks(NOW + S)
    unseen = due_of()
    unseen.facts.limits_version += 1
    unseen.facts.crossings = {
        name: msgspec.structs.replace(each, limits_version=unseen.facts.limits_version)
        for name, each in unseen.facts.crossings.items()
    }
    room.until(NOW + 9 * S)
    room.told((NOW + 9 * S, unseen))
    assert room.until(NOW + 10 * S) == []
    room.until(NOW + 19 * S)
    room.told((NOW + 19 * S, unseen), (NOW + 19 * S, answer()))
    assert [each.data.revision for each in room.until(NOW + 20 * S)] == [2]


@pytest.mark.parametrize("first", ["the answer", "the end"])
def test_an_answer_is_in_the_report_whenever_it_comes(first: str) -> None:
    room = running()
    if first == "the answer":
        room.told((NOW, answer()))
    room.until(NOW + 9 * S)
    room.told((NOW + 9 * S, due_of()))
    room.until(NOW + 10 * S)
    if first == "the end":
        room.until(NOW + 19 * S)
        room.told((NOW + 19 * S, answer(false_positive=False)))
        room.until(NOW + 20 * S)
    (block,) = room.written[-1].data.blocks
    assert (block.false_positive, block.answered_by) == (first == "the answer", "ann")
    assert room.written[-1].data.revision == 1 + (first == "the end")
    room.until(NOW + 29 * S)
    room.told((NOW + 29 * S, due_of()))
    assert room.until(NOW + 35 * S) == []


def test_an_answer_about_a_block_that_is_not_in_the_report_changes_nothing() -> None:
    room = running()
    room.told((NOW, due_of()))
    room.ticks(NOW + S)
    other = answer()
    other.data = msgspec.structs.replace(other.data, decision_id="9-9-9")
    room.told((NOW + 2 * S, other))
    assert room.ticks(NOW + 3 * S, 5) == []


def test_what_is_read_again_changes_nothing() -> None:
    room = running()
    said = [(NOW, due_of()), (NOW + S, Tick(NOW + S))]
    assert len(room.told(*said)) == 1
    stored = dict(room.stored)
    assert room.told(*said, again=3) == []
    room.told((NOW, usual(1, 2)), (NOW, answer()))
    entries = room.entries
    room.told((NOW, usual(3)), again=1)
    room.told((NOW, answer(false_positive=False)), again=1)
    assert room.entries == entries
    assert stored.items() - room.stored.items() != set()


def test_an_id_that_is_used_again_has_a_first_report_again() -> None:
    room = running()
    room.told((NOW, due_of()))
    room.ticks(NOW + S)
    other = due_of()
    other.facts.started = rfc3339(NOW)
    room.until(NOW + 9 * S)
    room.told((NOW + 9 * S, other))
    (report,) = room.until(NOW + 10 * S)
    assert (report.data.revision, report.id) == (1, f"report-TASK-1-{rfc3339(NOW)}-1")


def test_a_task_is_forgotten_26_hours_after_the_last_that_came_for_it() -> None:
    room = running()
    room.told((NOW, due_of()))
    room.ticks(NOW + S)
    room.ticks(NOW + 25 * HOUR, 3)
    assert {f"{TASK}TASK-1", f"{DONE}TASK-1"} <= room.entries.keys()
    room.ticks(NOW + 27 * HOUR, 3)
    assert [key for key in room.entries if not key.startswith("seen/")] == ["where", "pending"]


def test_an_answer_about_an_open_task_is_kept_for_a_month() -> None:
    room = running()
    room.told((NOW, answer()))
    for day in range(1, 31):
        room.ticks(NOW + day * DAY_MS, 2)
    held = room.entries[f"{TASK}TASK-1"]
    assert isinstance(held, Held)
    assert held.facts is None
    for day in range(31, 35):
        room.ticks(NOW + day * DAY_MS, 2)
    assert room.entries.keys() == {"where"}


def test_what_waits_to_be_written_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    room = running()
    room.told((NOW, due_of()))
    later = NOW + 27 * HOUR
    with monkeypatch.context() as full:
        full.setattr(writing, "REPORTS_MAX", 0)
        assert room.told((later, Tick(later))) == []
    assert f"{TASK}TASK-1" in room.entries
    assert len(room.ticks(later + S)) == 1


def test_where_room_is_short_what_is_held_goes_before_what_was_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = running()
    room.told((NOW, due_of()))
    monkeypatch.setattr(writing, "ENTRIES_MAX", 4)
    room.ticks(NOW, 1)
    assert f"{TASK}TASK-1" in room.entries, "it waits to be written"
    room.ticks(NOW + S)
    assert room.entries.keys() >= {f"{DONE}TASK-1"}
    assert f"{TASK}TASK-1" not in room.entries
    assert room.where.forgotten_early == 1
    room.told((NOW + 2 * S, answer()))
    monkeypatch.setattr(writing, "ENTRIES_MAX", 0)
    room.ticks(NOW + 3 * S)
    assert room.where.forgotten_early == 3
    assert f"{DONE}TASK-1" not in room.entries


def test_one_batch_writes_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "REPORTS_MAX", 2)
    room = running()
    dues = []
    for number in range(5):
        due = due_of()
        due.facts.task_id = f"TASK-{number}"
        dues.append((NOW + number, due))
    room.told(*dues)
    assert [each.subject for each in room.ticks(NOW + 2 * S)] == ["TASK-0", "TASK-1"]
    assert [each.subject for each in room.ticks(NOW + 3 * S)] == ["TASK-2", "TASK-3"]
    assert [each.subject for each in room.ticks(NOW + 4 * S)] == ["TASK-4"]


def test_where_too_much_waits_the_first_is_not_waited_for_and_the_last_finds_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writing, "PENDING_MAX", 2)
    room = running()
    dues = []
    for number in range(6):
        due = due_of()
        due.facts.task_id = f"TASK-{number}"
        dues.append((NOW + number, due))
    assert [each.subject for each in room.told(*dues)] == ["TASK-0", "TASK-1"]
    assert room.where.refused == 2
    written = room.until(NOW + 7 * S)
    assert [each.subject for each in written] == ["TASK-2", "TASK-3"]


def test_what_was_held_and_is_gone_is_not_waited_for() -> None:
    room = running()
    room.told((NOW, due_of()))
    del room.stored[f"{TASK}TASK-1"]
    assert room.ticks(NOW + S, 5) == []
    assert _DECODER.decode(room.stored["pending"]) == writing.Pending()


def test_without_a_record_nothing_is_written() -> None:
    room = Writing()
    assert (room.told(), room.entries) == ([], {})


def test_a_report_that_cannot_be_made_keeps_no_other_back() -> None:
    room = running()
    bad, good = due_of(), due_of()
    bad.facts.task_id = "BAD"
    bad.facts.complexity = "a defect of ours"  # type: ignore[assignment]
    entries: dict[str, Any] = {key: _DECODER.decode(v) for key, v in room.stored.items()}
    for offset, due in enumerate((bad, good)):
        fold_said(entries, Origin(TOPIC, 0, 10**6 + offset), NOW, due)
    fold_said(entries, Origin(TOPIC, 0, 2 * 10**6), NOW + 5 * S, Tick(NOW + 5 * S))
    failed: list[str] = []
    written = finish(entries, lambda task_id, _error: failed.append(task_id))
    assert ([each.subject for each in written], failed) == (["TASK-1"], ["BAD"])
    assert finish(entries, lambda task_id, _error: failed.append(task_id)) == []
    assert failed == ["BAD"], "it is not tried again and again"
