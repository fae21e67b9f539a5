"""Real logs, broken at random: whatever is left gives events that the wire contract accepts."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from schemas.decode import decode_event
from schemas.encode import encode_event
from streams.importers.base import import_events
from streams.importers.demo import demo_path
from tests.unit.importers.logs import CLAUDE_SAMPLE, CLAUDE_SUBAGENT_SAMPLE, CODEX_SAMPLE

ODD = [None, -1, 0, 1.5, "x", [], {}, "", True, 10**30, [[1]], {"a": 1}, 1e308, "2026-01-01"]


def lines_of(kind: str) -> list[bytes]:
    match kind:
        case "codex":
            text = CODEX_SAMPLE.read_bytes()
        case "claude-code":
            text = CLAUDE_SAMPLE.read_bytes() + CLAUDE_SUBAGENT_SAMPLE.read_bytes()
        case _:
            text = gzip.decompress(demo_path().read_bytes())
    return text.splitlines(keepends=True)[:250]


def with_odd_fields(value: Any, chance: random.Random) -> Any:  # noqa: ANN401 - any JSON
    """Return the value with fields left out, and others of a wrong type."""
    if chance.random() < 0.03:
        return chance.choice(ODD)
    if isinstance(value, dict):
        kept = [name for name in value if chance.random() > 0.01]
        return {name: with_odd_fields(value[name], chance) for name in kept}
    if isinstance(value, list):
        return [with_odd_fields(part, chance) for part in value]
    return value


def with_odd_bytes(text: bytes, chance: random.Random) -> bytes:
    broken = bytearray(text)
    for _ in range(chance.randint(1, 200)):
        at = chance.randrange(len(broken))
        broken[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
    return bytes(broken)


@pytest.mark.parametrize("kind", ["codex", "claude-code", "usage-jsonl"])
@pytest.mark.parametrize("seed", range(20), ids="seed-{}".format)
def test_a_broken_log_is_never_fatal(tmp_path: Path, kind: str, seed: int) -> None:
    chance = random.Random(seed)
    lines = lines_of(kind)
    if seed % 2:
        text = with_odd_bytes(b"".join(lines), chance)
    else:
        odd = (with_odd_fields(json.loads(line), chance) for line in lines)
        text = b"".join(json.dumps(line).encode() + b"\n" for line in odd)
    path = tmp_path / "log.jsonl"
    path.write_bytes(text)
    events = import_events(kind, [path])
    for event in events:
        assert decode_event(encode_event(event)) == event
    assert events.summary.unreadable > 0
    assert events.summary.calls > 0
