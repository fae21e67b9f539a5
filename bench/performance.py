"""All figures one after the other, kept, and the page that holds them against the goals.

    python -m bench.performance [--run [MEASURE …]]

With `--run`, each measure (all of them, or those that are named) runs as a command of its own, and
what it prints is kept in `docs/performance/MEASURE.txt` with the commit and the machine. Then, and
without `--run` at once, `docs/performance.md` is written from what is kept. A figure is worth
something only where nothing else runs: the load before each is noted.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from bench import command
from bench.goals import GOALS
from bench.machine import commit, machine
from bench.runs import Line, Lines

DOCS = Path(__file__).parent.parent / "docs"
KEPT, PAGE = DOCS / "performance", DOCS / "performance.md"

MEASURES = {
    "throughput": "Throughput beside the peers",
    "scaling": "Throughput by partitions and processes",
    "latency": "Event → decision",
    "restore": "A restart",
    "crowd": "A million open tasks",
    "gap": "After kill -9",
    "client_stress": "The client, under stress",
    "emitter": "The caller's time",
    "view": "The view in Redis",
    "alerts": "Breach → alert",
    "report_time": "A report",
    "task_size": "The size of a task",
    "import_log": "Import of a log",
}
WITHIN_S = 3_600.0

INTRODUCTION = """\
# Performance

Written by `python -m bench.performance` from the outputs in [performance/](performance/); changes made
here are lost. `--run` measures anew, one after the other. What each figure means, what its peers do and
do not do, and how to repeat one alone is in [bench/README.md](../bench/README.md). Broker, load and
processor share the cores of one machine: ratios of one run compare, single numbers of different
days do not.
"""


def run(measure: str, ran_commit: str) -> None:
    """Measure and keep what was printed; what was kept before stays where it fails.

    Raises:
        SystemExit: the measure failed, or took more than an hour; nothing of it runs any more.
    """
    print(f"{measure} …", file=sys.stderr)
    head = json.dumps({"figure": "machine", **msgspec.to_builtins(machine(ran_commit))})
    started_s = time.monotonic()
    try:
        ended = command.run([sys.executable, "-m", f"bench.{measure}"], WITHIN_S)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{measure}: not done after {WITHIN_S:.0f} s") from None
    if ended.code != 0:
        raise SystemExit(f"{measure}: exit code {ended.code}\n{ended.printed}")
    KEPT.mkdir(exist_ok=True)
    (KEPT / f"{measure}.txt").write_text(f"{head}\n{ended.printed}")
    print(f"{measure}: {time.monotonic() - started_s:.0f} s", file=sys.stderr)


def kept() -> dict[str, str]:
    """Return the outputs that are kept, in the order of the page."""
    paths = {measure: KEPT / f"{measure}.txt" for measure in MEASURES}
    return {measure: path.read_text() for measure, path in paths.items() if path.exists()}


def page(outputs: Mapping[str, str]) -> str:
    """Return `docs/performance.md`."""
    lines = {measure: list(_lines(output)) for measure, output in outputs.items()}
    parts = [INTRODUCTION, "## Goals\n", *_goals(lines)]
    for measure, output in outputs.items():
        parts += [
            f"\n## {MEASURES[measure]}\n",
            f"`python -m bench.{measure}`{_where(lines[measure])}\n",
        ]
        parts.append(_printed(output))
    return "\n".join(parts).rstrip() + "\n"


def _goals(lines: Mapping[str, Lines]) -> Iterator[str]:
    yield "| measure | goal | seen | |"
    yield "|---|---|---|---|"
    for goal in GOALS:
        found = goal.seen(lines.get(goal.measure, []))
        if found is None:
            yield f"| {goal.what} | {goal.wanted} | not measured | |"
        else:
            yield f"| {goal.what} | {goal.wanted} | {found.shown} | {'met' if found.is_met else '**missed**'} |"


def _where(lines: Lines) -> str:
    for line in lines:
        if line.get("figure") == "machine":
            return (
                f" at {line['commit']}, {line['date']}, {line['cores']} cores,"
                f" Python {line['python']}, load before {line['load_1m']}"
            )
    return ""


def _printed(output: str) -> str:
    """Return what a measure printed for people: its tables, and other text as it stood."""
    shown = [line for line in output.splitlines() if not line.startswith("{")]
    if any(line.startswith("|") for line in shown):
        return "\n".join(shown).strip() + "\n"
    if not any(shown):
        shown = [line for line in output.splitlines() if '"figure"' not in line]
    return "\n".join(["```", *shown, "```"]) + "\n" if shown else ""


def _lines(output: str) -> Iterator[Line]:
    for line in output.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def main() -> None:
    """Measure what was asked for, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.performance", description=__doc__)
    parser.add_argument(
        "--run", nargs="*", choices=list(MEASURES), metavar="MEASURE",
        help=f"of {', '.join(MEASURES)}; all of them where none is named",
    )  # fmt: skip
    asked = parser.parse_args()
    if asked.run is not None:
        ran_commit = commit()  # before what is kept of the first makes it another one
        for measure in asked.run or MEASURES:
            run(measure, ran_commit)
            PAGE.write_text(page(kept()))
    PAGE.write_text(page(kept()))


if __name__ == "__main__":
    main()
