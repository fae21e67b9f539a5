"""Transcripts of Claude Code, and what they do wrong."""

from pathlib import Path

import pytest

from streams.importers.claude_code import FAMILIES_OPEN_MAX, FILES_OPEN_MAX, OPEN_MESSAGES_MAX
from tests.unit.importers.logs import (
    claude_line,
    claude_progress,
    claude_user,
    ends,
    imported,
    starts,
    usages,
    write,
)


def outputs(*paths: Path) -> list[tuple[str, int | None]]:
    """Task and output tokens of each call."""
    events = usages(imported("claude-code", *paths)[0])
    return [
        (event.subject.removeprefix("claude-code/"), event.data.output_tokens) for event in events
    ]


def test_the_last_line_of_a_message_counts(tmp_path: Path) -> None:
    lines = [claude_user(), *(claude_line("m1", output) for output in (2, 2, 31, 407))]
    path = write(tmp_path / "s.jsonl", lines)
    assert outputs(path) == [("S", 407)]
    assert imported("claude-code", path)[1].repeats == 3


def test_input_is_all_input_with_the_cache_inside(tmp_path: Path) -> None:
    events, _ = imported("claude-code", write(tmp_path / "s.jsonl", [claude_line("m1", 5)]))
    data = usages(events)[0].data
    assert (data.input_tokens, data.cache_read_tokens, data.cache_write_tokens) == (130, 100, 20)


def test_tools_of_all_blocks_of_a_message_are_those_of_one_call(tmp_path: Path) -> None:
    lines = [
        claude_line("m1", 1, tool=("Read", {"file_path": "/secret"})),
        claude_line("m1", 1, tool=("Read", {"file_path": "/secret"})),
        claude_line("m1", 9, tool=("Bash", {"command": "cd x && npm test"})),
    ]
    data = usages(imported("claude-code", write(tmp_path / "s.jsonl", lines))[0])[0].data
    assert (data.phase, data.tool_calls, data.files_read) == ("VERIFY", 3, 2)


@pytest.mark.parametrize(
    ("told", "counted"),
    [
        pytest.param([("a", 1), ("a", 5), ("b", 2)], [5, 2], id="one after the other"),
        pytest.param([("a", 1), ("b", 2), ("a", 5), ("b", 7)], [5, 7], id="interleaved"),
        pytest.param(
            [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("a", 5)],
            [5, 2, 3, 4],
            id="three others in between: still open",
        ),
        pytest.param(
            [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 6), ("a", 5)],
            [1, 2, 3, 4, 6],
            id="too late: a repeat, never a second call",
        ),
    ],
)
def test_blocks_of_several_messages_may_be_mixed(
    tmp_path: Path, told: list[tuple[str, int]], counted: list[int]
) -> None:
    assert OPEN_MESSAGES_MAX == 4
    path = write(tmp_path / "s.jsonl", [claude_line(name, output) for name, output in told])
    assert [output for _, output in outputs(path)] == counted
    assert imported("claude-code", path)[1].repeats == len(told) - len(counted)


def test_each_agent_has_its_own_open_messages(tmp_path: Path) -> None:
    lines = [claude_line("m", 1)]
    lines += [claude_line(f"k{index}", 2, agent="A") for index in range(20)]
    lines += [claude_line("m", 50)]
    assert ("S", 50) in outputs(write(tmp_path / "s.jsonl", lines))


def test_a_message_that_a_resumed_session_copied_counts_once(tmp_path: Path) -> None:
    first = write(tmp_path / "b.jsonl", [claude_user(), claude_line("m1", 5)])
    copied = [claude_line("m1", 5, session="T"), claude_line("m2", 7, session="T")]
    resumed = write(tmp_path / "a.jsonl", copied)
    assert outputs(resumed, first) == [("S", 5), ("T", 7)]


@pytest.mark.parametrize(
    ("agent", "child"),
    [
        pytest.param("A", "S/A", id="agentId"),
        pytest.param(None, "S/sidechain", id="isSidechain alone, in older versions"),
    ],
)
def test_sidechain_lines_in_the_sessions_own_file_are_a_child(
    tmp_path: Path, agent: str | None, child: str
) -> None:
    lines = [claude_line("m1", 5), claude_line("m2", 6, agent=agent, sidechain=True)]
    path = write(tmp_path / "s.jsonl", lines)
    assert outputs(path) == [(child, 6), ("S", 5)]
    events, summary = imported("claude-code", path)
    assert starts(events)[1].data.parent_task_id == "claude-code/S"
    assert summary.subagents == 1


def test_a_subagents_message_in_both_files_counts_once(tmp_path: Path) -> None:
    main = write(tmp_path / "s.jsonl", [claude_line("m1", 5), claude_line("m2", 6, agent="A")])
    own = [claude_line("m2", 6, agent="A"), claude_line("m3", 7, agent="A")]
    sub = write(tmp_path / "agent-A.jsonl", own)
    assert sorted(outputs(main, sub)) == [("S", 5), ("S/A", 6), ("S/A", 7)]


@pytest.mark.parametrize("own", ["file", "lines", "later lines"])
def test_progress_of_a_subagent_with_lines_of_its_own_adds_nothing(
    tmp_path: Path, own: str
) -> None:
    progress = [claude_progress("m2", 2, "A"), claude_progress("m2", 6, "A")]
    lines = [claude_line("m1", 5)]
    mine = claude_line("m2", 6, agent="A")
    lines += {"file": progress, "lines": [mine, *progress], "later lines": [*progress, mine]}[own]
    files = [write(tmp_path / "s.jsonl", lines)]
    if own == "file":
        files.append(write(tmp_path / "agent-A.jsonl", [mine]))
    events, summary = imported("claude-code", *files)
    assert sorted(outputs(*files)) == [("S", 5), ("S/A", 6)]
    assert [start.data.labels for start in starts(events)] == [{"phases": "inferred"}] * 2
    assert summary.subagents_seen_in_progress == 0
    assert summary.repeats == 2


def test_a_subagent_seen_only_in_progress_is_a_child_and_says_so(tmp_path: Path) -> None:
    lines = [claude_line("m1", 5)]
    lines += [claude_progress("m2", output, "A") for output in (1, 1, 9)]
    lines += [claude_progress("m3", 4, "B"), claude_line("m4", 8)]
    path = write(tmp_path / "s.jsonl", lines)
    events, summary = imported("claude-code", path)
    assert sorted(outputs(path)) == [("S", 5), ("S", 8), ("S/A", 9), ("S/B", 4)]
    children = starts(events)[1:]
    assert {child.data.parent_task_id for child in children} == {"claude-code/S"}
    told = {"phases": "inferred", "seen_in": "progress"}
    assert [child.data.labels for child in children] == [told, told]
    assert (summary.subagents, summary.subagents_seen_in_progress) == (2, 2)
    assert ends(events)[-1].subject == events[-1].subject == "claude-code/S"


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(
            claude_line("m1", 0, model="<synthetic>"), id="a message of the program's own"
        ),
        pytest.param(claude_user(), id="a user's line"),
    ],
)
def test_what_is_no_call(tmp_path: Path, line: dict[str, object]) -> None:
    assert outputs(write(tmp_path / "s.jsonl", [claude_user(), line])) == []


def test_a_message_without_counts_is_unknown_usage(tmp_path: Path) -> None:
    line = claude_line("m1", 0, usage={"service_tier": "standard"})
    _, summary = imported("claude-code", write(tmp_path / "s.jsonl", [line]))
    assert (summary.calls, summary.unknown_usage) == (1, 1)


def test_a_call_takes_from_the_question_to_its_last_block(tmp_path: Path) -> None:
    lines = [claude_user("2026-01-05T09:00:00Z")]
    lines += [claude_line("m1", 1, at=f"2026-01-05T09:00:{second:02}Z") for second in (4, 9)]
    data = usages(imported("claude-code", write(tmp_path / "s.jsonl", lines))[0])[0].data
    assert data.duration_ms == 9_000


def test_a_subagents_file_alone_still_names_its_parent(tmp_path: Path) -> None:
    path = write(tmp_path / "agent-A.jsonl", [claude_line("m1", 5, agent="A")])
    events, _ = imported("claude-code", path)
    assert {event.subject for event in events} == {"claude-code/S/A"}
    assert starts(events)[0].data.parent_task_id == "claude-code/S"


def test_sessions_in_one_file_are_told_apart(tmp_path: Path) -> None:
    lines = [claude_line(f"m{index}", 1, session=f"S{index % 3}") for index in range(30)]
    events, summary = imported("claude-code", write(tmp_path / "all.jsonl", lines))
    assert sorted({event.subject for event in events}) == [f"claude-code/S{n}" for n in range(3)]
    assert (summary.sessions, summary.calls) == (3, 30)


def test_open_sessions_are_bounded_and_one_that_comes_back_goes_on(tmp_path: Path) -> None:
    names = ["BACK", *(f"S{index}" for index in range(FAMILIES_OPEN_MAX)), "BACK"]
    lines = [claude_line(f"m{index}", 1, session=name) for index, name in enumerate(names)]
    events, _ = imported("claude-code", write(tmp_path / "all.jsonl", lines))
    back = [event.sequence for event in usages(events) if event.subject == "claude-code/BACK"]
    assert back == ["1", "2"]


def test_a_subagents_calls_come_between_those_of_its_parent(tmp_path: Path) -> None:
    def at(second: int) -> str:
        return f"2026-01-05T09:00:{second:02}Z"

    main = [claude_line(f"m{second}", 1, at=at(second)) for second in range(0, 60, 5)]
    own = [claude_line(f"a{second}", 1, at=at(second), agent="A") for second in range(20, 40, 2)]
    sub = write(tmp_path / "agent-A.jsonl", own)
    events, _ = imported("claude-code", sub, write(tmp_path / "s.jsonl", main))
    order = "".join("a" if event.subject.endswith("/A") else "s" for event in events)
    # Start and call of the session, … each told when four newer messages have begun.
    assert order.startswith("ss")
    assert order.endswith("s")
    assert "s" in order.strip("s")


def test_many_subagents_are_read_with_few_open_files(tmp_path: Path) -> None:
    files = [write(tmp_path / "s.jsonl", [claude_line("m", 1)])]
    for index in range(FILES_OPEN_MAX * 3):
        line = claude_line(f"a{index}", 1, agent=f"A{index}")
        files.append(write(tmp_path / f"agent-A{index}.jsonl", [line]))
    _, summary = imported("claude-code", *files)
    assert (summary.subagents, summary.calls) == (FILES_OPEN_MAX * 3, FILES_OPEN_MAX * 3 + 1)
