"""The real samples: totals against a second count that shares nothing with the importers."""

import json
import re
from pathlib import Path

import pytest

from schemas.decode import decode_event
from schemas.encode import encode_event
from streams.importers.base import import_events
from streams.importers.demo import DEMO_KIND, demo_path
from tests.unit.importers.logs import (
    CLAUDE_SAMPLE,
    CLAUDE_SUBAGENT_SAMPLE,
    CODEX_SAMPLE,
    ends,
    imported,
    starts,
    tokens_by_task,
    usages,
)

CODEX_SESSION = "19e0bb6e-78d8-b787-c538-ac8434e6d67c"
CLAUDE_SESSION = "255d8b48-0b99-41b8-e207-b386205c9b5c"
SUBAGENT = "71e7b6348693a3ee18ce"


def last_number(text: str, name: str) -> int:
    return int(re.findall(rf'"{name}":(\d+)', text)[-1])


def claude_counts(path: Path) -> dict[str, int]:
    """Sum the last line of each message, by plain dictionaries."""
    last = {}
    for text in path.read_text().splitlines():
        message = json.loads(text).get("message") or {}
        if "usage" in message:
            last[message["id"]] = message["usage"]
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    counts = {name: sum(usage[name] for usage in last.values()) for name in names}
    output = sum(usage["output_tokens"] for usage in last.values())
    return counts | {"output": output, "calls": len(last)}


def test_a_codex_session_sums_up_to_its_last_cumulative_total() -> None:
    text = CODEX_SAMPLE.read_text().split('"total_token_usage":')[-1].split("}")[0]
    events, summary = imported("codex", CODEX_SAMPLE)
    assert tokens_by_task(events) == {f"codex/{CODEX_SESSION}": last_number(text, "total_tokens")}
    assert tokens_by_task(events) == {f"codex/{CODEX_SESSION}": 662_298}
    assert summary.tokens.cache_read == last_number(text, "cached_input_tokens") == 624_128
    assert summary.tokens.output == last_number(text, "output_tokens") == 6_000
    assert summary.tokens.reasoning == last_number(text, "reasoning_output_tokens") == 3_008


def test_a_codex_call_is_counted_once_although_it_is_reported_twice() -> None:
    totals = re.findall(r'"total_token_usage":(\{[^}]*\})', CODEX_SAMPLE.read_text())
    _, summary = imported("codex", CODEX_SAMPLE)
    assert (summary.calls, summary.repeats) == (len(set(totals)), len(totals) - len(set(totals)))
    assert (summary.calls, summary.repeats, summary.unknown_usage) == (36, 36, 0)


def test_a_claude_session_sums_up_to_the_last_lines_of_its_messages() -> None:
    main, sub = claude_counts(CLAUDE_SAMPLE), claude_counts(CLAUDE_SUBAGENT_SAMPLE)
    events, summary = imported("claude-code", CLAUDE_SUBAGENT_SAMPLE, CLAUDE_SAMPLE)
    counted = summary.tokens
    assert summary.calls == main["calls"] + sub["calls"] == 13
    assert counted.uncached_input == main["input_tokens"] + sub["input_tokens"] == 76
    name = "cache_read_input_tokens"
    assert counted.cache_read == main[name] + sub[name] == 203_310
    name = "cache_creation_input_tokens"
    assert counted.cache_write == main[name] + sub[name] == 56_411
    assert counted.output == main["output"] + sub["output"] == 36
    root = f"claude-code/{CLAUDE_SESSION}"
    assert tokens_by_task(events) == {root: 240_979, f"{root}/{SUBAGENT}": 18_854}


def test_a_subagent_is_a_child_that_starts_after_its_parent_and_ends_before_it() -> None:
    events, _ = imported("claude-code", CLAUDE_SUBAGENT_SAMPLE, CLAUDE_SAMPLE)
    root, child = f"claude-code/{CLAUDE_SESSION}", f"claude-code/{CLAUDE_SESSION}/{SUBAGENT}"
    assert [event.subject for event in starts(events)] == [root, child]
    assert [event.subject for event in ends(events)] == [child, root]
    assert [start.data.parent_task_id for start in starts(events)] == [None, root]
    assert {event.partitionkey for event in events if event.subject == child} == {root}
    assert {event.partitionkey for event in events if event.subject == root} == {None}


ALL_LOGS = [
    pytest.param("codex", (CODEX_SAMPLE,), id="codex"),
    pytest.param("claude-code", (CLAUDE_SAMPLE, CLAUDE_SUBAGENT_SAMPLE), id="claude-code"),
    pytest.param(DEMO_KIND, (demo_path(),), id="usage-jsonl"),
]


@pytest.mark.parametrize(("kind", "paths"), ALL_LOGS)
def test_a_second_import_gives_the_same_events(kind: str, paths: tuple[Path, ...]) -> None:
    assert imported(kind, *paths)[0] == imported(kind, *reversed(paths))[0]


@pytest.mark.parametrize(("kind", "paths"), ALL_LOGS)
def test_every_event_is_accepted_by_the_wire_contract(kind: str, paths: tuple[Path, ...]) -> None:
    for event in import_events(kind, paths):
        assert decode_event(encode_event(event)) == event


@pytest.mark.parametrize(("kind", "paths"), ALL_LOGS)
def test_sequences_grow_strictly_within_a_source(kind: str, paths: tuple[Path, ...]) -> None:
    highest: dict[str, int] = {}
    for event in import_events(kind, paths):
        if event.sequence is not None:
            assert int(event.sequence) > highest.get(event.source, -1)
            highest[event.source] = int(event.sequence)
    assert highest


@pytest.mark.parametrize(("kind", "paths"), ALL_LOGS)
def test_no_text_of_a_log_gets_into_an_event(kind: str, paths: tuple[Path, ...]) -> None:
    """In the samples every text is masked to x, and every path begins with /h/."""
    for event in import_events(kind, paths):
        line = encode_event(event).decode()
        assert "xx" not in line
        assert "/h/" not in line


@pytest.mark.parametrize(("kind", "paths"), ALL_LOGS)
def test_parts_are_never_larger_than_their_whole(kind: str, paths: tuple[Path, ...]) -> None:
    for event in usages(list(import_events(kind, paths))):
        data = event.data
        cached = (data.cache_read_tokens or 0) + (data.cache_write_tokens or 0)
        assert cached <= (data.input_tokens or 0)
        assert (data.reasoning_tokens or 0) <= (data.output_tokens or 0)
