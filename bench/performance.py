"""All figures one after the other, kept, and the page that holds them against the goals.

    python -m bench.performance [--run [MEASURE …]]

With `--run`, each measure (all of them, or those that are named) runs as a command of its own, in the
order of the page, and what it prints is kept in `docs/performance/MEASURE.txt` with the commit, the
machine, the load before it and how long it took. One that fails is told and leaves what was kept of it
before; the others are measured all the same, and the exit code is 1. After each, and without `--run`
at once, `docs/performance.md` is written from what is kept. A figure is worth something only where
nothing else runs.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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


class MeasureError(Exception):
    """A measure has come to nothing."""


INTRODUCTION = """\
# Performance

Written by `python -m bench.performance` from the outputs in [performance/](performance/); changes made
here are lost. `--run` measures anew, one after the other. What each figure means, what its peers do and
do not do, and how to repeat one alone is in [bench/README.md](../bench/README.md). Broker, load and
processor share the cores of one machine: ratios of one run compare, single numbers of different
days do not.

Goals with two stages have a row for each, "first" and "then". Those in seconds, milliseconds or KB were set
on another machine, on which Kafka Streams took 2.4 to 3.4 s of CPU for a million events: where the same is
held against a peer in the same run as well, that row says more.
"""


def run(measure: str, ran_commit: str) -> None:
    """Measure and keep what was printed; what was kept before stays where it fails.

    Raises:
        MeasureError: the measure failed, or took more than an hour; nothing of it runs any more.
    """
    head = {"figure": "machine", **msgspec.to_builtins(machine(ran_commit))}
    began_s = time.monotonic()
    try:
        ended = command.run([sys.executable, "-m", f"bench.{measure}"], WITHIN_S)
    except subprocess.TimeoutExpired:
        raise MeasureError(f"not done after {WITHIN_S:.0f} s") from None
    if ended.code != 0:
        raise MeasureError(f"exit code {ended.code}\n{ended.printed}")
    head["took_s"] = round(time.monotonic() - began_s)
    KEPT.mkdir(exist_ok=True)
    (KEPT / f"{measure}.txt").write_text(f"{json.dumps(head)}\n{ended.printed}")


def run_all(measures: Sequence[str], run_one: Callable[[str], None]) -> list[str]:
    """Measure one after the other, whatever becomes of each; return those that failed.

    Args:
        measures: which ones.
        run_one: measures and keeps one; raises MeasureError.
    """
    failed = []
    all_began_s = time.monotonic()
    for number, measure in enumerate(measures, 1):
        _say(f"{measure}, {number} of {len(measures)} …")
        began_s = time.monotonic()
        try:
            run_one(measure)
        except MeasureError as error:
            failed.append(measure)
            _say(f"{measure}: {error}")
        _say(f"{measure}: {time.monotonic() - began_s:.0f} s")
    _say(f"all of it: {(time.monotonic() - all_began_s) / 60:.0f} min")
    if failed:
        _say(f"not measured, and as kept before: {', '.join(failed)}")
    return failed


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


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
                f"{_took(line)}"
            )
    return ""


def _took(line: Line) -> str:
    return f", took {line['took_s']:,} s" if "took_s" in line else ""


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

        def run_one(measure: str) -> None:
            run(measure, ran_commit)
            PAGE.write_text(page(kept()))

        if run_all(asked.run or list(MEASURES), run_one):
            sys.exit(1)
    PAGE.write_text(page(kept()))


if __name__ == "__main__":
    main()
