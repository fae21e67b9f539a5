"""Break real input, many times: `python -m tests.fuzz --cases 10000000 --seed N`.

With `--judged` only histories in which some events are broken, held against the second judge.

Exit code 0: nothing was raised; 1: something was, and its line says how to see it again.
"""

import argparse
import contextlib
import multiprocessing
import random
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from bench.machine import commit
from tests.fuzz.run import CHUNK_CASES, Result, Run, empty_result, run_chunk, run_judged

TOLD_EVERY_S = 10.0
SHOWN_MAX = 5


def main(arguments: list[str]) -> int:
    asked = _asked(arguments)
    seed = random.SystemRandom().getrandbits(32) if asked.seed is None else asked.seed
    started_s = time.monotonic()
    run = run_judged if asked.judged else run_chunk
    if asked.chunk is not None:
        result = run(seed, asked.chunk, watched=True)
    else:
        _say(f"seed {seed}")
        count = -(-asked.cases // CHUNK_CASES)
        result = empty_result()
        told_s = started_s
        stopped = threading.Event()  # what was found until Ctrl-C is shown
        signal.signal(signal.SIGINT, lambda _number, _frame: stopped.set())
        with _results(asked.processes, partial(run, seed, watched=True), range(count)) as results:
            for one in results:
                result.add(one)
                for failure in one.failures:  # an hour may still be to go
                    _say(f"{failure.command} (case {failure.case}): {failure.error}")
                if time.monotonic() - told_s > TOLD_EVERY_S:
                    told_s = time.monotonic()
                    _say(_line(result, asked.cases, told_s - started_s))
                if stopped.is_set():
                    break
    seconds = time.monotonic() - started_s
    _show(result, seconds)
    if asked.json is not None:
        kept = Run(
            commit(), seed, round(seconds, 1), result.cases, result.by_reason, result.failed,
            result.failures,
        )  # fmt: skip
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(kept)) + b"\n")
    return bool(result.failed)


def _asked(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="how many inputs (100,000)")
    parser.add_argument("--judged", action="store_true", help="histories for the second judge")
    parser.add_argument("--seed", type=int, help="of everything; shown where it is left out")
    parser.add_argument("--chunk", type=int, help="run this chunk of a seed alone")
    parser.add_argument("--processes", type=int, default=1, help="run in so many at once (1)")
    parser.add_argument("--json", type=Path, help="write the result to a file")
    return parser.parse_args(arguments)


@contextlib.contextmanager
def _results(
    processes: int, run: "partial[Result]", chunks: Iterable[int]
) -> Iterator[Iterable[Result]]:
    if processes == 1:
        yield map(run, chunks)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield pool.imap_unordered(run, chunks)


def _line(result: Result, cases: int, seconds: float) -> str:
    rate = result.cases / seconds
    left_min = max(0.0, cases - result.cases) / rate / 60
    return (
        f"{result.cases:,} of {cases:,} cases, {rate:,.0f} a second, "
        f"{left_min:.0f} min left, {result.failed} defects"
    )


def _show(result: Result, seconds: float) -> None:
    _say(f"{result.cases:,} cases in {seconds:.0f} s; the slowest took {result.slowest_ms:.0f} ms")
    for reason, count in result.by_reason.most_common():
        _say(f"{count:12,} {reason}")
    _say(f"{result.failed:12,} raised something")
    for failure in result.failures[:SHOWN_MAX]:
        _say(f"{failure.command} (case {failure.case}): {failure.error}\n    {failure.input}")


def _say(line: str) -> None:
    # Whatever was broken is shown, also where the terminal cannot.
    sys.stdout.buffer.write(f"{line}\n".encode(errors="backslashreplace"))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
