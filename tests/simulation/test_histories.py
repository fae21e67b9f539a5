"""The ledger on a simulated log: short histories, each with faults of its own.

A failure names its seed; `python -m tests.simulation --seed N --trace` shows that history again.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.simulation.broken import BROKEN, ChunkLost, RecordLost
from tests.simulation.conftest import SAID
from tests.simulation.faults import ANYWHERE, IN_DOUBT, Fault
from tests.simulation.history import Outcome, run_history
from tests.simulation.links import Link
from tests.simulation.tally import Tally

ROOT = Path(__file__).parents[2]
SEEDS = 500
SEEDS_TO_FIND = 300
REFUSED = ": AssertionError("  # of the fold, which says what is missing
LONG = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def outcomes(pytestconfig: pytest.Config) -> list[Outcome]:
    begun_s = time.monotonic()
    tally = Tally()
    found = []
    for seed in range(SEEDS):
        outcome = run_history(seed)
        tally.add(outcome)
        found.append(outcome)
    pytestconfig.stash[SAID] = [tally.line(time.monotonic() - begun_s)]
    return found


@LONG
def test_whatever_happens_every_input_has_its_output_once(outcomes: list[Outcome]) -> None:
    problems = [
        f"python -m tests.simulation --seed {outcome.seed} --trace: {outcome.problems[0]}"
        for outcome in outcomes
        if outcome.problems
    ]
    assert problems == []


@LONG
def test_every_fault_has_really_happened(outcomes: list[Outcome]) -> None:
    tally = Tally()
    for outcome in outcomes:
        tally.add(outcome)
    met = tally.met
    assert [fault.value for fault in Fault if not met.faults[fault]] == []
    assert met.fenced > 0
    assert tally.simulated_s > 1_800
    assert [place for place in (*IN_DOUBT, ANYWHERE) if not met.crashes[place]] == []


@LONG
@pytest.mark.parametrize("broken", BROKEN, ids=lambda link: link.__name__)
def test_a_broken_promise_is_found_out(broken: type[Link]) -> None:
    if not any(run_history(seed, broken).problems for seed in range(SEEDS_TO_FIND)):
        pytest.fail(f"{broken.__doc__} Nobody has noticed it in {SEEDS_TO_FIND} histories")


@LONG
@pytest.mark.parametrize("broken", [ChunkLost, RecordLost], ids=lambda link: link.__name__)
def test_what_a_reader_has_lost_is_refused_and_read_again(broken: type[Link]) -> None:
    """No judge finds anything: it comes to light before it is folded."""
    histories = [run_history(seed, broken).problems for seed in range(SEEDS_TO_FIND // 5)]
    assert any(histories), "else none was lost"
    others = [one for problems in histories for one in problems if REFUSED not in one]
    assert others == []


def test_a_seed_is_the_same_history_in_every_process() -> None:
    seed = 17
    digest = run_history(seed).digest
    assert run_history(seed, tell=lambda _: None).digest == digest, "looking at it changes it"
    assert run_history(seed + 1).digest != digest
    for hash_seed in ("1", "2"):
        shown = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", str(seed)],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert shown.stdout.splitlines() == [f"seed {seed}: all is well", f"digest {digest}"]
