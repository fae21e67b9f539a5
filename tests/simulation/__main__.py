"""Run histories: `python -m tests.simulation --minutes 30`, or one again, `--seed 123 --trace`.

Exit code 0: all is well; 1: a history has a problem, and its line says how to see it again.
"""

import argparse
import random
import signal
import sys
import threading
import time

from tests.simulation.history import Outcome, run_history
from tests.simulation.tally import Tally

TOLD_EVERY_S = 10.0
PROBLEMS_SHOWN_MAX = 3


def main(arguments: list[str]) -> int:
    asked = _asked(arguments)
    if asked.minutes is None:
        outcome = run_history(asked.seed or 0, tell=_say if asked.trace else None)
        _show(outcome)
        _say(f"digest {outcome.digest}")
        return bool(outcome.problems)
    tally = Tally()
    # Not the seeds that the tests run, unless they are asked for.
    seed = random.SystemRandom().getrandbits(40) if asked.seed is None else asked.seed
    _say(f"seeds from {seed}")
    begun_s = told_s = time.monotonic()
    end_s = begun_s + asked.minutes * 60
    stopped = threading.Event()  # what was found until Ctrl-C is shown
    signal.signal(signal.SIGINT, lambda _number, _frame: stopped.set())
    while time.monotonic() < end_s and not stopped.is_set():
        outcome = run_history(seed)
        tally.add(outcome)
        if outcome.problems:
            _show(outcome)
        if time.monotonic() - told_s > TOLD_EVERY_S:
            told_s = time.monotonic()
            _say(tally.line(time.monotonic() - begun_s))
        seed += 1
    for line in tally.lines(time.monotonic() - begun_s):
        _say(line)
    return bool(tally.failed)


def _asked(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="the history to run; with --minutes, the first")
    parser.add_argument("--trace", action="store_true", help="show what happens")
    parser.add_argument("--minutes", type=float, help="run one history after the other")
    return parser.parse_args(arguments)


def _show(outcome: Outcome) -> None:
    if not outcome.problems:
        _say(f"seed {outcome.seed}: all is well")
        return
    _say(f"seed {outcome.seed}: python -m tests.simulation --seed {outcome.seed} --trace")
    for problem in outcome.problems[:PROBLEMS_SHOWN_MAX]:
        _say(f"    {problem}")
    if left := len(outcome.problems) - PROBLEMS_SHOWN_MAX:
        _say(f"    and {left} more") if left > 0 else None


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
