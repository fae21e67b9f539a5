"""How sessions ended: a line each, beside a file of their calls or alone."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from schemas.fields import TaskOutcome
from tests.unit.importers.logs import (
    ends,
    imported,
    starts,
    tokens_by_task,
    usage_row,
    usages,
    write,
)


def session_row(**given: object) -> dict[str, Any]:
    return {"source": "bench:somebody/runs", "session": "S", "resolved": None} | given


def a_total(**given: object) -> dict[str, Any]:
    return session_row(input_tokens=900, output_tokens=80, agent="droid", **given)


def test_an_ending_belongs_to_the_calls_of_another_file_wherever_it_is_named(
    tmp_path: Path,
) -> None:
    calls = write(tmp_path / "u.jsonl", [usage_row(), usage_row()])
    row = session_row(source="codex:x", exit_status="Submitted", api_calls=9)
    sessions = write(tmp_path / "u_sessions.jsonl", [row])
    for files in ([calls, sessions], [sessions, calls]):
        events, summary = imported("usage-jsonl", *files)
        assert tokens_by_task(events) == {"codex/S": 320}
        assert starts(events)[0].data.labels == {"phases": "inferred", "exit_status": "Submitted"}
        assert [each.data.outcome for each in ends(events)] == [TaskOutcome.COMPLETED]
        assert (summary.sessions, summary.calls, summary.lines) == (1, 2, 3)


def test_a_session_without_calls_is_a_task_with_its_total(tmp_path: Path) -> None:
    row = a_total(
        resolved=True,
        task="37a3",
        model="gpt-5",
        agent_seconds=660.2,
        agent_started_at="2025-09-24T15:00:00Z",
        agent_ended_at="2025-09-24T15:11:00.200",
    )
    events, summary = imported("usage-jsonl", write(tmp_path / "s.jsonl", [row]))
    (start,), (usage,), (end,) = starts(events), usages(events), ends(events)
    assert start.data.task_type == "droid"
    assert start.data.labels == {"phases": "inferred", "resolved": "true", "group": "37a3"}
    assert (usage.data.phase, usage.data.duration_ms) == ("IMPLEMENT", 660_200)
    assert (usage.data.input_tokens, usage.data.output_tokens) == (900, 80)
    assert usage.data.cost_usd is None  # how much came from a cache is not told
    assert (end.time - start.time).total_seconds() == 660.2
    assert (summary.sessions, summary.calls) == (1, 1)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(a_total(tokens_reported=False), id="it says so"),
        pytest.param(a_total() | {"input_tokens": None}, id="no number"),
        pytest.param(
            session_row(exit_status="Submitted", api_calls=3, instance_cost=0.5), id="none named"
        ),
    ],
)
def test_a_total_that_was_not_reported_is_unknown_and_not_zero(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    events, summary = imported("usage-jsonl", write(tmp_path / "s.jsonl", [row]))
    (usage,) = usages(events)
    calls = row.get("api_calls", 1)
    assert usage.data.usage_known is False
    assert usage.data.input_tokens is None
    assert (usage.data.model_calls, summary.unknown_usage) == (calls, calls)


def test_what_a_session_cost_is_known_where_it_is_told(tmp_path: Path) -> None:
    row = a_total(instance_cost=0.25, api_calls=4)
    events, summary = imported("usage-jsonl", write(tmp_path / "s.jsonl", [row]))
    assert usages(events)[0].data.cost_usd == Decimal("0.25")
    assert (summary.calls, summary.cost_usd) == (4, Decimal("0.25"))


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        ({"exit_status": "Submitted"}, TaskOutcome.COMPLETED),
        ({"exit_status": "LimitsExceeded"}, TaskOutcome.FAILED),
        ({"failure_mode": "unset", "resolved": False}, TaskOutcome.COMPLETED),
        ({"failure_mode": "parse_error"}, TaskOutcome.COMPLETED),
        ({"failure_mode": "agent_timeout"}, TaskOutcome.FAILED),
        ({}, TaskOutcome.COMPLETED),
    ],
)
def test_a_task_is_completed_where_its_agent_came_to_an_end(
    tmp_path: Path, given: dict[str, object], outcome: TaskOutcome
) -> None:
    events, _ = imported("usage-jsonl", write(tmp_path / "s.jsonl", [session_row(**given)]))
    assert ends(events)[0].data.outcome is outcome


def test_words_of_a_log_that_look_like_no_id_become_digests(tmp_path: Path) -> None:
    row = session_row(task="fix /etc/passwd", agent="a b", exit_status="it broke")
    events, _ = imported("usage-jsonl", write(tmp_path / "s.jsonl", [row]))
    data = starts(events)[0].data
    assert data.labels is not None
    assert all(" " not in each for each in [*data.labels.values(), data.task_type or " "])


@pytest.mark.parametrize(
    "wrong",
    [{"agent_seconds": -1}, {"instance_cost": -1}, {"resolved": "yes"}, {"input_tokens": -1}],
)
def test_a_wrong_line_is_named_and_the_others_count(tmp_path: Path, wrong: dict[str, Any]) -> None:
    lines = [a_total(), a_total(session="W") | wrong, a_total(session="Z")]
    events, summary = imported("usage-jsonl", write(tmp_path / "s.jsonl", lines))
    assert set(tokens_by_task(events)) == {"bench/S", "bench/Z"}
    assert [each.line for each in summary.unreadable_named] == [2]


def test_importing_it_again_gives_the_same_events(tmp_path: Path) -> None:
    file = write(tmp_path / "s.jsonl", [a_total(), a_total(session="Z")])
    assert imported("usage-jsonl", file)[0] == imported("usage-jsonl", file)[0]
