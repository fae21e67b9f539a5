"""Real input, to be broken: our golden events, those of recorded sessions, logs and policies."""

import base64
import gzip
import json
from functools import cache
from importlib import resources
from pathlib import Path

from schemas.encode import encode_event
from streams.importers.base import import_events
from streams.importers.demo import demo_path, demo_policy_path
from tests.unit.importers.logs import CLAUDE_SAMPLE, CLAUDE_SUBAGENT_SAMPLE, CODEX_SAMPLE

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "events.jsonl"
IMPORTED_MAX = 400  # of each kind; the rest of a session looks like its beginning
LINES_MAX = 40


@cache
def events() -> tuple[bytes, ...]:
    """Return records of `events`: every type, and usage as real agents report it."""
    golden = [
        base64.b64decode(json.loads(line)["value"]) for line in GOLDEN.read_text().splitlines()
    ]
    imported = [
        encode_event(event)
        for kind, paths in _LOGS.items()
        for _, event in zip(range(IMPORTED_MAX), import_events(kind, paths), strict=False)
    ]
    return (*golden, *imported)


@cache
def logs() -> dict[str, bytes]:
    """Return the beginning of a log of each agent, and of a file of our own events."""
    own = b"".join(record + b"\n" for record in events()[-LINES_MAX:])
    found = {kind: b"".join(_lines(paths[0])[:LINES_MAX]) for kind, paths in _LOGS.items()}
    return found | {"events": own}


@cache
def policies() -> tuple[bytes, ...]:
    """Return policy files."""
    builtin = resources.files("streams.budget").joinpath("builtin.toml").read_bytes()
    return (builtin, demo_policy_path().read_bytes(), _SMALL)


def _lines(path: Path) -> list[bytes]:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    return content.splitlines(keepends=True)


_LOGS = {
    "codex": [CODEX_SAMPLE],
    "claude-code": [CLAUDE_SAMPLE, CLAUDE_SUBAGENT_SAMPLE],
    "usage-jsonl": [demo_path()],
}
_SMALL = b"""version = "small"
closing_phases = []
[phases.A]
tokens = 100
latency_ms = 60_000
weight = 1.5
cost_usd = 0.1
[phases.default]
tokens = 10
latency_ms = 5_000
weight = 1
[ladders.phase.tokens]
block = 4.0
"""
