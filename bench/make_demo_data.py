"""Make the sessions of `stoploss demo` from a folder of usage lines.

    python bench/make_demo_data.py FOLDER [OUT]

FOLDER holds `codex.jsonl.gz`, `claude_code.jsonl.gz` and `mini_swe_agent.jsonl.gz`. Tokens, dollars
and the order of calls stay as they were recorded. What changes: sessions recorded over months begin
one after the other within an hour, pauses over five minutes become five minutes, tool names become
their number, and the source is the agent's name alone.
"""

import argparse
import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

Row = dict[str, Any]

OUT = Path(__file__).parent.parent / "streams" / "importers" / "data" / "demo.jsonl.gz"
BEGIN = datetime(2026, 1, 5, 9, tzinfo=UTC)
BEGIN_EVERY = timedelta(seconds=80)
PAUSE_MAX = timedelta(minutes=5)
# Up to twice the default budget of a whole task a session is not blocked, and more telling.
SMALL_TOKENS = 46_800
SMALL_SESSIONS_MAX = {"codex": 6, "claude_code": 0, "mini_swe_agent": 10}
LARGER_SESSIONS = {"codex": 10, "claude_code": 6, "mini_swe_agent": 10}
KEPT = (
    *("source", "session", "parent_session", "call", "model", "raw_duplicate"),
    *("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens"),
    *("reasoning_tokens", "cum_total_tokens", "cost_usd"),
    *("tool_kinds", "files_read", "output_chars"),
)


def families(path: Path) -> list[list[Row]]:
    """Return sessions with their sub-agents, each family's lines in the order of the file.

    A sub-agent whose parent's session is not in the file is left out.
    """
    found: dict[str, list[Row]] = defaultdict(list)
    roots = set()
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            parent = row.get("parent_session")
            if parent is None:
                roots.add(row["session"])
            found[parent or row["session"]].append(row)
    return [rows for root, rows in found.items() if root in roots]


def metered(rows: list[Row]) -> float:
    """Return what a family would be charged under the default weights."""
    counted = [row for row in rows if not row["raw_duplicate"]]
    whole = sum(int(row["input_tokens"]) + int(row["output_tokens"]) for row in counted)
    return whole + 0.1 * sum(int(row["cached_input_tokens"]) for row in counted)


def chosen(agent: str, all_families: list[list[Row]]) -> list[list[Row]]:
    """Return the small families, and larger ones in even steps up to the largest of all."""
    by_size = sorted(all_families, key=metered)
    small = [rows for rows in by_size if metered(rows) < SMALL_TOKENS]
    large = by_size[len(small) :]
    count = min(LARGER_SESSIONS[agent], len(large))
    steps = [round(index * (len(large) - 1) / max(count - 1, 1)) for index in range(count)]
    return small[-SMALL_SESSIONS_MAX[agent] or len(small) :] + [large[step] for step in steps]


def moved(rows: list[Row], begin: datetime) -> Iterator[tuple[datetime, Row]]:
    """Yield the lines of a family with times from `begin` on, in the order of their recorded times."""
    clock, before = begin, None
    timed = sorted(rows, key=lambda row: row["ts"])  # stable: a session's own order stays
    last = {row["session"]: index for index, row in enumerate(timed)}
    for index, row in enumerate(timed):
        recorded = datetime.fromisoformat(row["ts"])
        if before is not None:
            clock += min(max(recorded - before, timedelta()), PAUSE_MAX)
        before = recorded
        yield clock, slim(row, clock, ended=last[row["session"]] == index)


def slim(row: Row, time: datetime, *, ended: bool) -> Row:
    """Return the line with numbers only; what is null or false is left out."""
    kept = {name: value for name in KEPT if not is_empty(value := row.get(name))}
    kept["source"] = row["source"].partition(":")[0]
    kept["tool_calls"] = len(row["tool_calls"])
    kept["ts"] = time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return kept | ({"session_ended": True} if ended else {})


def is_empty(value: object) -> bool:
    """Whether a field may be left out; zero may not, it is a known number."""
    return value is None or value is False or value == []


def main() -> None:
    """Write the file; the same folder gives the same bytes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=OUT)
    arguments = parser.parse_args()
    picked = [
        rows
        for agent in LARGER_SESSIONS
        for rows in chosen(agent, families(arguments.folder / f"{agent}.jsonl.gz"))
    ]
    # Agents and sizes mixed, and always in the same way.
    picked.sort(key=lambda rows: rows[0]["session"])
    lines = [
        line
        for index, rows in enumerate(picked)
        for line in moved(rows, BEGIN + index * BEGIN_EVERY)
    ]
    lines.sort(key=lambda line: line[0])
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for _, row in lines)
    packed = gzip.compress(text.encode(), compresslevel=9, mtime=0)
    arguments.out.write_bytes(packed)
    print(f"{arguments.out.name}: {len(picked)} sessions, {len(lines)} lines, {len(packed)} bytes")


if __name__ == "__main__":
    main()
