"""How fast a log is imported, and in how much memory: real lines, repeated to any size.

    python -m bench.import_log [--megabytes 1000] [--folder /tmp] [KIND ...]

Each import runs in a process of its own, so that its peak of memory is its own.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.command import leaving_when_told

SAMPLES = Path(__file__).parent.parent / "tests" / "data" / "raw_samples"
_CHILD = """
import resource, sys
from pathlib import Path

from bench.command import leaving_when_told
from schemas.encode import encode_event
from streams.importers.base import import_events
events = import_events(sys.argv[1], [Path(sys.argv[2])])
written = sum(len(encode_event(event)) for event in events)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
found = events.summary
print(found.lines, found.calls, found.unreadable, written, peak)
"""


def codex_lines() -> Iterator[str]:
    """Yield one endless rollout: the sample again and again, its totals going on."""
    lines = (SAMPLES / "codex_0.46_rollout.jsonl").read_text().splitlines(keepends=True)
    yield lines[0]
    base: dict[str, int] = {}
    while True:
        total: dict[str, int] = {}
        for line in lines[1:]:
            read = json.loads(line)
            info = (
                read["payload"].get("info")
                if read["payload"].get("type") == "token_count"
                else None
            )
            if info:
                own = info["total_token_usage"]
                total = {name: base.get(name, 0) + count for name, count in own.items()}
                info["total_token_usage"] = total
                yield json.dumps(read, separators=(",", ":")) + "\n"
            else:
                yield line
        base = total


def claude_lines() -> Iterator[str]:
    """Yield one endless transcript: the sample again and again, with new message ids."""
    text = (SAMPLES / "claude_2.1.1x_session.jsonl").read_text()
    lines = text.splitlines(keepends=True)
    turn = 0
    while True:
        turn += 1
        for line in lines:
            yield re.sub(r'"msg_(\w{8})\w{12}"', rf'"msg_\g<1>{turn:012d}"', line)


def usage_lines() -> Iterator[str]:
    """Yield 50 sessions at a time, interleaved, of 200 calls each."""
    alike = {
        "source": "codex:bench",
        "ts": "2026-01-05T09:00:00.000Z",
        "model": "gpt-5-codex",
        "cached_input_tokens": 30_000,
        "output_tokens": 120,
        "tool_kinds": ["read"],
        "raw_duplicate": False,
    }
    group = 0
    while True:
        group += 1
        for index in range(200 * 50):
            row = alike | {"session": f"{group}-{index % 50}", "input_tokens": 900 + index}
            yield json.dumps(row, separators=(",", ":")) + "\n"


LOGS: dict[str, Callable[[], Iterator[str]]] = {
    "codex": codex_lines,
    "claude-code": claude_lines,
    "usage-jsonl": usage_lines,
}


def write_log(path: Path, kind: str, size_bytes: int) -> None:
    """Write a log of at least `size_bytes`."""
    written = 0
    with path.open("w") as out:
        for line in LOGS[kind]():
            written += out.write(line)
            if written >= size_bytes:
                return


def measure(path: Path, kind: str) -> str:
    """Import `path` in another process; return what was seen, as one line."""
    began = time.perf_counter()
    command = [sys.executable, "-c", _CHILD, kind, str(path)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    seconds = time.perf_counter() - began
    megabytes = path.stat().st_size / 1e6
    lines, calls, unreadable, written, peak = (int(word) for word in told)
    return (
        f"{kind:12} {megabytes:6.0f} MB {lines:9,} lines {calls:9,} calls {unreadable} unreadable"
        f" {written / 1e6:5.0f} MB of events {seconds:6.1f} s {megabytes / seconds:5.0f} MB/s"
        f" {peak} MB peak"
    )


def main() -> None:
    """Print a line for each kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(LOGS)}")
    parser.add_argument("--megabytes", type=int, default=1_000)
    parser.add_argument(
        "--folder", type=Path, help="where the log is written, for the time it takes"
    )
    arguments = parser.parse_args()
    for kind in arguments.kinds or LOGS:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            path = Path(folder) / "log.jsonl"
            write_log(path, kind, arguments.megabytes * 1_000_000)
            print(measure(path, kind), flush=True)


if __name__ == "__main__":
    with leaving_when_told():  # or a gigabyte stays behind
        main()
