"""Entries of the audit as people read them."""

import msgspec
import pytest

from schemas.audit import Action, Audit
from schemas.envelope import Envelope, rfc3339
from streams.cli import audits
from streams.cli.audits import AuditAnswer, AuditFilter, change_text, newest


def entry(number: int, subject: str = "mode", task_id: str | None = None) -> Envelope[Audit]:
    return Envelope(
        id=f"audit-{number}",
        source="test",
        type="stoploss.audit",
        subject=subject,
        time=rfc3339(number * 1000),
        data=Audit(subject=subject, action=Action.MODE_SET, by="ann", task_id=task_id),
    )


def found(
    entries: list[Envelope[Audit]], which: AuditFilter | None = None, limit: int = 9
) -> AuditAnswer:
    return newest(entries, which or AuditFilter(), limit).answer()


def ids(answer: AuditAnswer) -> list[str]:
    return [each.id.removeprefix("audit-") for each in answer.entries]


def test_the_newest_come_last_whoever_wrote_first() -> None:
    assert ids(found([entry(2), entry(1), entry(3)])) == ["1", "2", "3"]


def test_the_newest_are_those_of_the_latest_time_whoever_wrote_last() -> None:
    answer = found([entry(number) for number in (9, 8, 1, 2, 3, 4, 5)], limit=2)
    assert (answer.count, ids(answer)) == (7, ["8", "9"])


def test_entries_of_a_time_on_are_those_that_were_noted_then() -> None:
    entries = [entry(number) for number in range(4)]
    assert ids(found(entries, AuditFilter(since_ms=2_000))) == ["2", "3"]


@pytest.mark.parametrize("time", ["yesterday", "1970-01-01T00:00:03", ""])
def test_an_entry_whose_time_cannot_be_read_is_of_no_time_on(time: str) -> None:
    foreign = msgspec.structs.replace(entry(9), time=time)
    assert ids(found([foreign, entry(3)], AuditFilter(since_ms=2_000))) == ["3"]
    assert found([foreign, entry(3)]).count == 2


def test_of_many_the_newest_are_kept_and_all_are_counted() -> None:
    answer = found([entry(number) for number in range(5)], limit=2)
    assert (answer.count, ids(answer)) == (5, ["3", "4"])


def test_what_was_written_twice_counts_once() -> None:
    answer = found([entry(1), entry(2), entry(1), entry(2)], limit=1)
    assert (answer.count, ids(answer)) == (2, ["2"])


def test_ids_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audits, "RECENT_MAX", 1)
    assert found([entry(1), entry(2), entry(2), entry(1)]).count == 3


def test_a_task_has_its_own_changes_and_those_of_its_report() -> None:
    entries = [
        entry(1, "TASK-1"),
        entry(2, "mode"),
        entry(3, "report/TASK-1", "TASK-1"),
        entry(4, "TASK-2", "TASK-2"),
    ]
    assert ids(found(entries, AuditFilter(task_id="TASK-1"))) == ["1", "3"]


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        pytest.param(
            {"importance": "low", "complexity": "tiny"},
            {"importance": "critical", "complexity": "tiny"},
            "importance low → critical",
            id="only what changed",
        ),
        pytest.param(
            {}, {"multiplier": "2", "a": "1"}, "multiplier 2, a 1", id="what was not there"
        ),
        pytest.param({"mode": "observe"}, {}, "", id="nothing that holds now"),
    ],
)
def test_a_change_is_told_from_what_to_what(
    before: dict[str, str], after: dict[str, str], text: str
) -> None:
    assert change_text(before, after) == text
