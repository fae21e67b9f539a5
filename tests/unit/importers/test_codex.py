"""Rollouts of Codex, and what they do wrong."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.importers.logs import (
    codex_answer,
    codex_meta,
    codex_model,
    codex_null,
    codex_tool,
    codex_usage,
    ends,
    imported,
    starts,
    tokens_by_task,
    usages,
    write,
)

Line = dict[str, Any]


def inputs(path: Path, *more: Path) -> list[int | None]:
    """The input of each call; None where its usage is unknown."""
    return [event.data.input_tokens for event in usages(imported("codex", path, *more)[0])]


@pytest.mark.parametrize(
    ("lines", "calls"),
    [
        pytest.param([codex_null(), codex_usage(100, 100)], [100], id="null before: rate limits"),
        pytest.param(
            [codex_null(), codex_null(), codex_null()], [], id="nothing but rate limits: no call"
        ),
        pytest.param(
            [codex_usage(100, 100), codex_null(), codex_usage(300, 200)],
            [100, None, 200],
            id="null later: a call of unknown usage",
        ),
        pytest.param(
            [codex_usage(100, 100), codex_usage(100, 100), codex_usage(100, 100)],
            [100],
            id="the same total again: a repeat, however often",
        ),
        pytest.param(
            [codex_usage(100, 100), codex_usage(300, 200), codex_usage(100, 100)],
            [100, 200],
            id="an earlier total again: a repeat too",
        ),
        pytest.param(
            [codex_usage(100, 100), codex_usage(600, 200)],
            [100, 500],
            id="a report was lost: what the total grew by counts",
        ),
        pytest.param(
            [codex_usage(500, 500), codex_usage(200, 200), codex_usage(500, 300)],
            [500, 200, 300],
            id="the total falls, and passes a total from before",
        ),
        pytest.param(
            [codex_usage(500, 500), codex_usage(200, 200), codex_usage(600, 400)],
            [500, 200, 400],
            id="the total falls: the call's own numbers count, then growth again",
        ),
        pytest.param(
            [codex_usage(500, 500), codex_usage(200, None)],
            [500, None],
            id="the total falls, no numbers of its own: unknown",
        ),
        pytest.param([codex_usage(100, None)], [100], id="a first total without own numbers"),
        pytest.param([codex_usage(0, 0)], [], id="zeros are no call"),
    ],
)
def test_what_counts_as_a_call(tmp_path: Path, lines: list[Line], calls: list[int | None]) -> None:
    assert inputs(write(tmp_path / "r.jsonl", [codex_meta(), *lines])) == calls


def test_a_total_that_falls_is_told_in_the_summary(tmp_path: Path) -> None:
    lines = [codex_meta(), codex_usage(500, 500), codex_usage(200, 200), codex_usage(200, 200)]
    _, summary = imported("codex", write(tmp_path / "r.jsonl", lines))
    assert (summary.counter_resets, summary.repeats) == (1, 1)


def test_unknown_usage_is_a_call_without_numbers_and_without_a_price(tmp_path: Path) -> None:
    lines = [codex_meta(), codex_model("gpt-5-codex"), codex_usage(100, 100), codex_null()]
    events, summary = imported("codex", write(tmp_path / "r.jsonl", lines))
    data = usages(events)[1].data
    assert data.usage_known is False
    assert (data.input_tokens, data.cost_usd, data.model_calls) == (None, None, 1)
    assert (summary.calls, summary.unknown_usage) == (2, 1)
    assert summary.calls_priced_by_model == {"gpt-5-codex": 1}


def test_the_model_is_that_of_the_turn(tmp_path: Path) -> None:
    lines = [codex_meta(), codex_model("gpt-5-codex"), codex_usage(100, 100)]
    lines += [codex_model("gpt-5.2-codex"), codex_usage(300, 200)]
    events, _ = imported("codex", write(tmp_path / "r.jsonl", lines))
    assert [event.data.model for event in usages(events)] == ["gpt-5-codex", "gpt-5.2-codex"]


BEFORE, AFTER = "2026-01-05T09:00:10Z", "2026-01-05T09:00:13Z"


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(
            [
                *(codex_usage(100, 100), codex_tool("shell", {"command": ["bash", "-lc", "ls"]})),
                *(codex_answer(), codex_usage(100, 100)),
                *(codex_usage(300, 200), codex_tool("apply_patch", {}), codex_answer()),
            ],
            id="tools after the report, and a repeat",
        ),
        pytest.param(
            [
                *(codex_usage(100, 100), codex_tool("shell", {"command": ["cat", "a"]})),
                *(codex_answer(), codex_usage(300, 200)),
                *(codex_tool("apply_patch", {}), codex_answer()),
            ],
            id="tools after the report, no repeat",
        ),
        pytest.param(
            [
                *(codex_tool("exec_command", {"cmd": "rg x"}), codex_usage(100, 100)),
                *(codex_answer(), codex_tool("apply_patch", {}), codex_usage(300, 200)),
                codex_answer(),
            ],
            id="tools before the report, as newer versions write it",
        ),
    ],
)
def test_tools_belong_to_the_call_that_used_them(tmp_path: Path, lines: list[Line]) -> None:
    events, _ = imported("codex", write(tmp_path / "r.jsonl", [codex_meta(), *lines]))
    told = [(event.data.phase, event.data.tool_calls) for event in usages(events)]
    assert told == [("THINK", 1), ("IMPLEMENT", 1)]


def test_a_call_takes_from_its_question_to_its_first_report(tmp_path: Path) -> None:
    question = {
        "timestamp": "2026-01-05T09:00:03Z",
        "type": "event_msg",
        "payload": {"type": "user_message", "message": "secret text"},
    }
    lines = [codex_meta(), question, codex_usage(100, 100), codex_usage(100, 100, AFTER)]
    events, _ = imported("codex", write(tmp_path / "r.jsonl", lines))
    assert [event.data.duration_ms for event in usages(events)] == [7_000]


@pytest.mark.parametrize(
    ("second", "jumps"),
    [
        pytest.param("2026-01-05T08:58:42Z", 1, id="88 s back"),
        pytest.param("2026-01-06T02:48:00Z", 0, id="17.8 h forward"),
    ],
)
def test_a_clock_that_jumps_changes_no_order_and_measures_nothing(
    tmp_path: Path, second: str, jumps: int
) -> None:
    lines = [codex_meta(), codex_model("m"), codex_usage(100, 100)]
    lines += [codex_answer(), codex_usage(300, 200, second)]
    events, summary = imported("codex", write(tmp_path / "r.jsonl", lines))
    assert inputs(tmp_path / "r.jsonl") == [100, 200]
    assert usages(events)[1].data.duration_ms is None
    assert f"{usages(events)[1].time:%H:%M:%S}" == second[11:19]
    assert summary.clock_jumps == jumps


def spawned(child_lines: list[Line], **meta: object) -> list[Line]:
    return [codex_meta("CHILD", "2026-01-05T10:00:00Z", **meta), *child_lines]


NOW, LATER = "2026-01-05T10:00:00.200Z", "2026-01-05T10:00:20Z"
SPAWN = {"source": {"subagent": {"thread_spawn": {"parent_thread_id": "PARENT", "depth": 1}}}}


@pytest.mark.parametrize(
    ("copied_at", "with_parent"),
    [
        pytest.param(NOW, True, id="stamped anew, parent there"),
        pytest.param(NOW, False, id="stamped anew, parent not there"),
        pytest.param(LATER, True, id="stamped late, parent there"),
        pytest.param("2026-01-05T09:00:10Z", False, id="old stamps, parent not there"),
    ],
)
def test_a_parents_history_in_a_spawned_session_is_not_counted_again(
    tmp_path: Path, copied_at: str, *, with_parent: bool
) -> None:
    history = [codex_usage(1_000, 1_000, copied_at), codex_usage(3_000, 2_000, copied_at)]
    own = [codex_usage(3_500, 500, LATER), codex_usage(3_500, 500, LATER)]
    child = write(tmp_path / "a-child.jsonl", spawned(history + own, **SPAWN))
    files = [child]
    if with_parent:
        lines = [codex_meta("PARENT"), codex_usage(1_000, 1_000), codex_usage(3_000, 2_000)]
        files.append(write(tmp_path / "b-parent.jsonl", lines))
    events, _ = imported("codex", *files)
    parent = {"codex/PARENT": 3_030} if with_parent else {}
    assert tokens_by_task(events) == parent | {"codex/CHILD": 505}


def test_a_spawned_session_is_a_child_and_a_forked_one_is_not(tmp_path: Path) -> None:
    lines = [codex_usage(100, 100, LATER)]
    child = write(tmp_path / "child.jsonl", spawned(lines, parent_thread_id="PARENT"))
    fork = [codex_meta("FORK", "2026-01-05T11:00:00Z", forked_from_id="PARENT"), *lines]
    forked = write(tmp_path / "fork.jsonl", fork)
    parent = write(tmp_path / "parent.jsonl", [codex_meta("PARENT"), codex_usage(100, 100)])
    events, summary = imported("codex", child, forked, parent)
    told = [(s.subject, s.data.parent_task_id, s.partitionkey) for s in starts(events)]
    assert told == [
        ("codex/PARENT", None, None),
        ("codex/CHILD", "codex/PARENT", "codex/PARENT"),
        ("codex/FORK", None, None),
    ]
    assert summary.subagents == 1


def test_a_log_that_has_grown_gives_its_old_events_again_and_its_new_ones(tmp_path: Path) -> None:
    lines = [codex_meta(), codex_usage(100, 100)]
    young = imported("codex", write(tmp_path / "r.jsonl", lines))[0]
    grown = imported("codex", write(tmp_path / "r.jsonl", [*lines, codex_usage(300, 200)]))[0]
    assert grown[: len(young) - 1] == young[:-1]
    assert [event.sequence for event in grown] == ["0", "1", "2", None]
    assert ends(grown)[0].id == ends(young)[0].id


def test_an_id_that_looks_like_a_path_is_hidden(tmp_path: Path) -> None:
    lines = [codex_meta("/home/somebody/project"), codex_usage(100, 100)]
    events, _ = imported("codex", write(tmp_path / "r.jsonl", lines))
    assert all("somebody" not in event.subject + event.id for event in events)
    assert len({event.subject for event in events}) == 1


def test_sessions_in_one_file_are_told_apart(tmp_path: Path) -> None:
    lines = [codex_meta("A"), codex_usage(100, 100), codex_meta("B"), codex_usage(300, 300)]
    lines += [codex_meta("A"), codex_usage(100, 100), codex_usage(600, 500)]
    events, _ = imported("codex", write(tmp_path / "all.jsonl", lines))
    assert tokens_by_task(events) == {"codex/A": 606, "codex/B": 303}
    assert len(starts(events)) == len(ends(events)) == 2


def test_a_session_that_goes_on_in_a_second_file_is_one_task(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", [codex_meta("A"), codex_usage(100, 100)])
    lines = [codex_meta("A"), codex_usage(100, 100), codex_usage(300, 200)]
    second = write(tmp_path / "b.jsonl", lines)
    events, _ = imported("codex", second, first)
    assert tokens_by_task(events) == {"codex/A": 303}
    assert [event.sequence for event in events] == ["0", "1", "2", None]
