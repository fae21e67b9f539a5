"""Usage as lines of numbers."""

from decimal import Decimal
from pathlib import Path

import pytest

from streams.importers.usage_jsonl import FAMILIES_OPEN_MAX, IDLE_LINES
from tests.unit.importers.logs import (
    ends,
    imported,
    starts,
    tokens_by_task,
    usage_row,
    usages,
    write,
)


def test_repeats_are_skipped_and_counted(tmp_path: Path) -> None:
    lines = [usage_row(), usage_row(raw_duplicate=True), usage_row()]
    events, summary = imported("usage-jsonl", write(tmp_path / "u.jsonl", lines))
    assert tokens_by_task(events) == {"codex/S": 320}
    assert (summary.calls, summary.repeats) == (2, 1)


def test_classes_are_told_apart(tmp_path: Path) -> None:
    row = usage_row(input_tokens=100, cached_input_tokens=900, cache_write_tokens=60)
    row |= {"output_tokens": 40, "reasoning_tokens": 30}
    events, summary = imported("usage-jsonl", write(tmp_path / "u.jsonl", [row]))
    data = usages(events)[0].data
    assert (data.input_tokens, data.cache_read_tokens, data.cache_write_tokens) == (1_000, 900, 60)
    assert (data.output_tokens, data.reasoning_tokens) == (40, 30)
    counted = summary.tokens
    assert (counted.uncached_input, counted.cache_read, counted.cache_write) == (40, 900, 60)
    assert counted.total == 1_040


@pytest.mark.parametrize("missing", ["input_tokens", "output_tokens"])
def test_a_call_without_numbers_is_unknown_and_not_zero(tmp_path: Path, missing: str) -> None:
    lines = [usage_row(), usage_row() | {missing: None}]
    events, summary = imported("usage-jsonl", write(tmp_path / "u.jsonl", lines))
    assert usages(events)[1].data.usage_known is False
    assert usages(events)[1].data.input_tokens is None
    assert summary.unknown_usage == 1


@pytest.mark.parametrize(
    ("row", "cost"),
    [
        pytest.param(usage_row(cost_usd=0.0052816), Decimal("0.0052816"), id="the log's own"),
        pytest.param(usage_row(cost_usd=0), Decimal(0), id="a known zero is zero"),
        pytest.param(
            usage_row(input_tokens=1_000, cached_input_tokens=9_000),
            Decimal("0.002475"),
            id="priced: 1,000 at 1.25, 9,000 at 0.125, 10 at 10 dollars a million",
        ),
        pytest.param(usage_row(model="no-such-model"), None, id="unknown, not free"),
        pytest.param(usage_row(model=None), None, id="no model, no price"),
    ],
)
def test_dollars(tmp_path: Path, row: dict[str, object], cost: Decimal | None) -> None:
    events, summary = imported("usage-jsonl", write(tmp_path / "u.jsonl", [row]))
    assert usages(events)[0].data.cost_usd == cost
    assert sum(summary.calls_unpriced_by_model.values()) == (cost is None)
    assert summary.cost_usd == (cost or 0)


def test_who_ran_it_stays_out_of_events(tmp_path: Path) -> None:
    events, _ = imported("usage-jsonl", write(tmp_path / "u.jsonl", [usage_row()]))
    assert starts(events)[0].data.task_type == "codex"
    assert all("secret" not in event.source + event.subject + event.id for event in events)


def test_a_subagent_is_a_child_of_its_parents_session(tmp_path: Path) -> None:
    rows = [usage_row(), usage_row("K", parent_session="S"), usage_row("L", parent_session="K")]
    events, summary = imported("usage-jsonl", write(tmp_path / "u.jsonl", rows))
    told = [(s.subject, s.data.parent_task_id, s.partitionkey) for s in starts(events)]
    assert told == [
        ("codex/S", None, None),
        ("codex/K", "codex/S", "codex/S"),
        ("codex/L", "codex/K", "codex/S"),
    ]
    assert events[-1].subject == "codex/S"
    assert summary.subagents == 2


def test_blocks_of_one_call_add_their_tools_to_it(tmp_path: Path) -> None:
    blocks = [
        usage_row(call="c", raw_duplicate=True, tool_kinds=["edit"], tool_calls=["Edit"]),
        usage_row(call="c", raw_duplicate=True, tool_kinds=["read"], files_read=1, tool_calls=1),
        usage_row(call="c", tool_kinds=["read"], files_read=1, tool_calls=["Read"]),
        usage_row(call="d"),
    ]
    events, _ = imported("usage-jsonl", write(tmp_path / "u.jsonl", blocks))
    told = [(e.data.phase, e.data.tool_calls, e.data.files_read) for e in usages(events)]
    assert told == [("IMPLEMENT", 3, 2), ("IMPLEMENT", 0, 0)]


def test_sessions_may_be_mixed_and_lines_of_one_out_of_order(tmp_path: Path) -> None:
    rows = [usage_row(f"S{index % 7}", seq=-index) for index in range(70)]
    events, _ = imported("usage-jsonl", write(tmp_path / "u.jsonl", rows))
    assert tokens_by_task(events) == {f"codex/S{index}": 1_600 for index in range(7)}
    assert len(starts(events)) == len(ends(events)) == 7


def test_a_session_that_goes_on_in_another_file_loses_nothing(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", [usage_row(), usage_row()])
    second = write(tmp_path / "b.jsonl", [usage_row(input_tokens=7), usage_row()])
    events, _ = imported("usage-jsonl", first, second)
    assert len({(event.source, event.sequence) for event in usages(events)}) == 4
    assert len(starts(events)) == len(ends(events)) == 1


def test_a_session_ends_after_many_lines_of_others(tmp_path: Path) -> None:
    rows = [usage_row("FIRST")] + [usage_row(f"S{index % 3}") for index in range(IDLE_LINES + 1)]
    events, _ = imported("usage-jsonl", write(tmp_path / "u.jsonl", rows))
    assert [event.subject for event in ends(events)].index("codex/FIRST") == 0
    assert events.index(ends(events)[0]) < len(events) - 3


def test_a_session_that_comes_back_after_its_end_is_counted_on(tmp_path: Path) -> None:
    others = [usage_row(f"S{index % 3}") for index in range(IDLE_LINES + 1)]
    rows = [usage_row("BACK"), *others, usage_row("BACK")]
    events, _ = imported("usage-jsonl", write(tmp_path / "u.jsonl", rows))
    assert tokens_by_task(events)["codex/BACK"] == 320
    # What is said twice has the same id, and the sequence of what was said: a ledger drops it.
    twice = [event for event in starts(events) + ends(events) if event.subject == "codex/BACK"]
    assert len({event.id for event in twice}) == 2


def test_a_line_that_says_so_ends_its_session(tmp_path: Path) -> None:
    rows = [usage_row("A"), usage_row("A", session_ended=True), usage_row("B")]
    events, _ = imported("usage-jsonl", write(tmp_path / "u.jsonl", rows))
    kinds = [(type(event).__name__, event.subject) for event in events]
    assert kinds[3:5] == [("TaskEnded", "codex/A"), ("TaskStarted", "codex/B")]


def test_open_sessions_are_bounded(tmp_path: Path) -> None:
    rows = [usage_row(f"S{index}") for index in range(FAMILIES_OPEN_MAX + 10)]
    events, summary = imported("usage-jsonl", write(tmp_path / "u.jsonl", rows))
    assert len(ends(events)) == summary.sessions == FAMILIES_OPEN_MAX + 10


@pytest.mark.parametrize(
    ("before", "after", "duration_ms"),
    [
        pytest.param("2026-01-05T09:00:00Z", "2026-01-05T09:00:07.250Z", 7_250, id="a step"),
        pytest.param("2026-01-05T09:00:00Z", "2026-01-05T08:58:32Z", None, id="88 s back"),
        pytest.param("2026-01-05T09:00:00Z", "2026-01-05T22:00:00Z", None, id="13 h idle"),
        pytest.param("2026-01-05T09:00:00Z", None, None, id="no time"),
        pytest.param(None, "2026-01-05T09:00:00Z", None, id="no time before"),
    ],
)
def test_a_duration_is_told_only_where_the_clock_can_be_trusted(
    tmp_path: Path, before: str | None, after: str | None, duration_ms: int | None
) -> None:
    rows = [usage_row(ts=before), usage_row(ts=after)]
    events, _ = imported("usage-jsonl", write(tmp_path / "u.jsonl", rows))
    assert usages(events)[1].data.duration_ms == duration_ms
