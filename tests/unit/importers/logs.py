"""Small logs, told line by line."""

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.events import Event, PhaseUsage, TaskEnded, TaskStarted
from streams.importers.base import import_events
from streams.importers.summary import ImportSummary

SAMPLES = Path(__file__).parents[2] / "data" / "raw_samples"
CODEX_SAMPLE = SAMPLES / "codex_0.46_rollout.jsonl"
CLAUDE_SAMPLE = SAMPLES / "claude_2.1.1x_session.jsonl"
CLAUDE_SUBAGENT_SAMPLE = SAMPLES / "claude_2.1.1x_subagent.jsonl"

Json = dict[str, Any]
_NUMBER = itertools.count()


def write(path: Path, lines: Sequence[Json | bytes], *, cut: int = 0) -> Path:
    """Write lines, objects as JSON; the last `cut` bytes are missing."""
    text = b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )
    path.write_bytes(text[: len(text) - cut])
    return path


def imported(
    kind: str, *paths: Path, phase: str | None = None, task_type: str | None = None
) -> tuple[list[Event], ImportSummary]:
    events = import_events(kind, paths, phase=phase, task_type=task_type)
    return list(events), events.summary


def starts(events: Sequence[Event]) -> list[TaskStarted]:
    return [event for event in events if isinstance(event, TaskStarted)]


def usages(events: Sequence[Event]) -> list[PhaseUsage]:
    return [event for event in events if isinstance(event, PhaseUsage)]


def ends(events: Sequence[Event]) -> list[TaskEnded]:
    return [event for event in events if isinstance(event, TaskEnded)]


def tokens_by_task(events: Sequence[Event]) -> dict[str, int]:
    """All input and output of each task, as the events tell it."""
    totals: Counter[str] = Counter()
    for event in usages(events):
        totals[event.subject] += (event.data.input_tokens or 0) + (event.data.output_tokens or 0)
    return dict(totals)


# ---- Codex


def codex_meta(session: str = "S", at: str = "2026-01-05T09:00:00Z", **more: object) -> Json:
    payload = {"id": session, "timestamp": at, "cwd": "/somewhere"} | more
    return {"timestamp": at, "type": "session_meta", "payload": payload}


def codex_model(model: str, at: str = "2026-01-05T09:00:00Z") -> Json:
    return {"timestamp": at, "type": "turn_context", "payload": {"model": model}}


def codex_usage(total: int, last: int | None, at: str = "2026-01-05T09:00:10Z") -> Json:
    """A report: `total` and `last` count input; each call has one token of output per 100 of it."""
    info = {"total_token_usage": codex_counts(total)}
    if last is not None:
        info["last_token_usage"] = codex_counts(last)
    payload = {"type": "token_count", "info": info, "rate_limits": None}
    return {"timestamp": at, "type": "event_msg", "payload": payload}


def codex_counts(input_tokens: int) -> dict[str, int]:
    output = input_tokens // 100
    return {
        "input_tokens": input_tokens,
        "cached_input_tokens": input_tokens // 2,
        "output_tokens": output,
        "reasoning_output_tokens": 0,
        "total_tokens": input_tokens + output,
    }


def codex_null(at: str = "2026-01-05T09:00:10Z") -> Json:
    return {"timestamp": at, "type": "event_msg", "payload": {"type": "token_count", "info": None}}


def codex_tool(name: str, arguments: Json, at: str = "2026-01-05T09:00:11Z") -> Json:
    payload = {"type": "function_call", "name": name, "arguments": json.dumps(arguments)}
    return {"timestamp": at, "type": "response_item", "payload": payload}


def codex_answer(at: str = "2026-01-05T09:00:12Z") -> Json:
    payload = {"type": "function_call_output", "output": "secret text"}
    return {"timestamp": at, "type": "response_item", "payload": payload}


# ---- Claude Code


def claude_line(
    message: str,
    output: int,
    *,
    at: str = "2026-01-05T09:00:10Z",
    agent: str | None = None,
    sidechain: bool = False,
    session: str = "S",
    model: str = "claude-opus-4-6",
    tool: tuple[str, Json] | None = None,
    usage: Json | None = None,
) -> Json:
    """One content block of a message: 10 input, 100 read from the cache, 20 written to it."""
    counts = {
        "input_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 20,
        "output_tokens": output,
    }
    block: Json = {"type": "text", "text": "secret text"}
    if tool is not None:
        block = {
            "type": "tool_use",
            "id": f"toolu_{next(_NUMBER)}",
            "name": tool[0],
            "input": tool[1],
        }
    body = {"id": message, "model": model, "content": [block], "usage": usage or counts}
    line: Json = {"type": "assistant", "sessionId": session, "timestamp": at, "message": body}
    line |= {"isSidechain": sidechain or agent is not None, "cwd": "/somewhere", "uuid": "u"}
    return line | ({"agentId": agent} if agent is not None else {})


def claude_user(at: str = "2026-01-05T09:00:00Z", session: str = "S") -> Json:
    body = {"role": "user", "content": "secret text"}
    line = {"type": "user", "sessionId": session, "timestamp": at, "message": body}
    return line | {"isSidechain": False}


def claude_progress(
    message: str, output: int, agent: str, at: str = "2026-01-05T09:00:20Z"
) -> Json:
    """A line of a session that carries a sub-agent's message again."""
    inner = claude_line(message, output, at=at)
    inner = {name: inner[name] for name in ("type", "timestamp", "uuid", "message")}
    data = {"type": "agent_progress", "agentId": agent, "message": inner}
    line: Json = {"type": "progress", "sessionId": "S", "timestamp": at, "isSidechain": False}
    return line | {"data": data}


# ---- usage lines


def usage_row(session: str = "S", input_tokens: object = 100, **more: object) -> Json:
    row: Json = {"source": "codex:owner/secret", "session": session, "model": "gpt-5-codex"}
    row |= {"ts": "2026-01-05T09:00:00Z", "input_tokens": input_tokens, "output_tokens": 10}
    return row | {"cached_input_tokens": 50, "raw_duplicate": False, "tool_kinds": []} | more
