"""The sessions that come with the package."""

import gzip
import json
from collections import defaultdict
from typing import Any

from streams.importers.demo import DEMO_KIND, demo_path
from tests.unit.importers.logs import ends, imported, starts, tokens_by_task


def rows() -> list[dict[str, Any]]:
    with gzip.open(demo_path(), "rt") as lines:
        return [json.loads(line) for line in lines]


def test_codex_sessions_sum_up_to_their_last_cumulative_totals() -> None:
    told = {
        f"codex/{row['session']}": row["cum_total_tokens"]
        for row in rows()
        if row["source"] == "codex"
    }
    events, _ = imported(DEMO_KIND, demo_path())
    counted = tokens_by_task(events)
    assert {task: counted[task] for task in told} == told
    assert len(told) >= 10


def test_other_sessions_sum_up_to_the_rows_that_are_no_repeats() -> None:
    told: dict[str, int] = defaultdict(int)
    for row in rows():
        if row["source"] != "codex" and not row.get("raw_duplicate"):
            agent = row["source"].replace("_", "-")
            tokens = row["input_tokens"] + row.get("cached_input_tokens", 0) + row["output_tokens"]
            told[f"{agent}/{row['session']}"] += tokens
    counted = tokens_by_task(imported(DEMO_KIND, demo_path())[0])
    assert {task: counted[task] for task in told} == told


def test_it_is_a_mix_of_three_agents_with_subagents_and_small() -> None:
    events, summary = imported(DEMO_KIND, demo_path())
    agents = {start.data.task_type for start in starts(events)}
    assert agents == {"codex", "claude-code", "mini-swe-agent"}
    assert 35 <= summary.sessions - summary.subagents <= 50
    assert summary.subagents >= 5
    assert demo_path().stat().st_size < 300_000


def test_every_task_starts_once_and_ends_once_after_its_last_call() -> None:
    events, _ = imported(DEMO_KIND, demo_path())
    assert len({event.subject for event in starts(events)}) == len(starts(events))
    assert len(starts(events)) == len(ends(events))
    last = {event.subject: event for event in events}
    assert set(map(id, ends(events))) == set(map(id, last.values()))


def test_every_call_has_a_price() -> None:
    _, summary = imported(DEMO_KIND, demo_path())
    assert summary.calls_unpriced_by_model == {}
    assert sum(summary.calls_priced_by_model.values()) == summary.calls


def test_the_data_hold_numbers_and_short_words_only() -> None:
    allowed = {"read", "search", "edit", "run", "test", "plan", "other"}
    for row in rows():
        assert set(row.get("tool_kinds", ())) <= allowed
        assert isinstance(row["tool_calls"], int)
        assert ":" not in row["source"]
