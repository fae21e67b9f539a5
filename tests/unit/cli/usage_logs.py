"""Small logs of usage, made up: so many sessions, each with known amounts."""

import json
from collections.abc import Iterable
from pathlib import Path


def write_sessions(
    file: Path, tokens: Iterable[int], *, agent: str = "robot", kind: str = "read"
) -> Path:
    """A session of one call for each amount; a second later it is over."""
    lines = []
    for number, amount in enumerate(tokens):
        for second, used in ((0, 0), (1, amount)):
            row = {
                "source": f"{agent}:made/up",
                "session": f"s{number}",
                "ts": f"2026-03-02T10:{number // 60 % 60:02d}:{second:02d}Z",
                "model": "gpt-5-codex",
                "input_tokens": used,
                "output_tokens": 0,
                "tool_kinds": [kind],
                "session_ended": second == 1,
            }
            lines.append(json.dumps(row))
    file.write_text("\n".join(lines) + "\n")
    return file
