"""Many broken inputs, in chunks: each chunk follows from the seed and its number alone."""

import contextlib
import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from tests.fuzz import corpus
from tests.fuzz.judged import BROKEN_COUNT, take_history
from tests.fuzz.mutate import Broken, Mutator
from tests.fuzz.target import PartitionTarget, take_log, take_policy_event, take_policy_file

Take = Callable[[Mutator, random.Random, Path], str]
# How often a chunk takes each: a file costs as much as a hundred records.
FILES: tuple[tuple[Take, int], ...] = (
    (take_policy_file, 4),
    (take_policy_event, 8),
    (take_log, 8),
    (take_history, 2),
)
CHUNK_CASES = 2_000
CHUNK_RECORDS = CHUNK_CASES - sum(count for _, count in FILES)
JUDGED_HISTORIES = CHUNK_CASES // BROKEN_COUNT
HANGS_AFTER_S = 30
FAILURES_KEPT_MAX = 20
SHOWN_BYTES_MAX = 2_000


class Failure(Struct, frozen=True):
    """Something that was raised; `command` sees it again."""

    command: str
    case: int
    error: str
    input: str


class Result(Struct):
    """What a number of cases came to."""

    cases: int
    by_reason: Counter[str]
    failures: list[Failure]
    failed: int = 0
    slowest_ms: float = 0.0

    def add(self, other: "Result") -> None:
        self.cases += other.cases
        self.by_reason += other.by_reason
        self.failed += other.failed
        self.failures = (self.failures + other.failures)[:FAILURES_KEPT_MAX]
        self.slowest_ms = max(self.slowest_ms, other.slowest_ms)


class Run(Struct, frozen=True):
    """A long run as it is kept: of what commit and seed, and what it came to."""

    commit: str
    seed: int
    seconds: float
    cases: int
    by_reason: dict[str, int]
    failed: int
    failures: list[Failure]


def empty_result() -> Result:
    return Result(cases=0, by_reason=Counter(), failures=[])


class _HangError(Exception):
    pass


def run_chunk(seed: int, chunk: int, *, watched: bool = False) -> Result:
    """Run one chunk; what is raised is a failure, and the chunk goes on.

    Args:
        watched: whether a case that hangs is a failure as well; takes the process's alarm.
    """
    if watched:
        signal.signal(signal.SIGALRM, _hang)
    chance = random.Random(f"{seed}-{chunk}")
    mutator = Mutator(chance, corpus.events())
    running = _Chunk(seed, chunk, HANGS_AFTER_S if watched else 0)
    target = PartitionTarget(chance)
    for _ in range(CHUNK_RECORDS):
        broken = mutator.record()
        with running.case(broken):
            running.result.by_reason[target.take(broken)] += 1
        if running.has_failed:
            target = PartitionTarget(chance)  # nobody knows what state the other one is in
    with running.case("the state in the end", counts=0):
        target.check_restore()
        target.take_good()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for take, count in FILES:
            for _ in range(count):
                with running.case(folder):
                    running.result.by_reason[take(mutator, chance, folder)] += 1
    return running.result


def run_judged(
    seed: int, chunk: int, *, watched: bool = False, histories: int = JUDGED_HISTORIES
) -> Result:
    """Run one chunk of histories for the second judge alone; each event that is broken is a case."""
    if watched:
        signal.signal(signal.SIGALRM, _hang)
    chance = random.Random(f"{seed}-{chunk}")
    mutator = Mutator(chance, corpus.events())
    running = _Chunk(seed, chunk, HANGS_AFTER_S if watched else 0, "--judged ")
    for _ in range(histories):
        with running.case("a history", counts=BROKEN_COUNT):
            running.result.by_reason[take_history(mutator, chance, Path())] += BROKEN_COUNT
    return running.result


class _Chunk:
    def __init__(self, seed: int, chunk: int, hangs_after_s: float, option: str = "") -> None:
        self._hangs_after_s = hangs_after_s
        self.result = empty_result()
        self.has_failed = False
        self._command = f"python -m tests.fuzz {option}--seed {seed} --chunk {chunk}"

    @contextlib.contextmanager
    def case(self, given: Broken | Path | str, *, counts: int = 1) -> Iterator[None]:
        """Run a case; note how long it took, and what it raised."""
        result = self.result
        result.cases += counts
        self.has_failed = False
        started_s = time.perf_counter()
        if self._hangs_after_s:
            signal.setitimer(signal.ITIMER_REAL, self._hangs_after_s)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - that nothing is raised is the property
            self.has_failed = True
            result.failed += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
            shown = _shown(given)
            if len(result.failures) < FAILURES_KEPT_MAX:
                result.failures.append(Failure(self._command, result.cases, said[:500], shown))
        finally:
            if self._hangs_after_s:
                signal.setitimer(signal.ITIMER_REAL, 0)
        result.slowest_ms = max(result.slowest_ms, (time.perf_counter() - started_s) * 1000)


def _shown(given: Broken | Path | str) -> str:
    if isinstance(given, Path):
        files = [
            f"{file.name}: {file.read_bytes()[:SHOWN_BYTES_MAX]!r}" for file in given.iterdir()
        ]
        return "; ".join(sorted(files))
    if isinstance(given, Broken):
        return (
            f"{None if given.value is None else given.value[:SHOWN_BYTES_MAX]!r} {given.headers!r}"
        )
    return given


def _hang(_number: int, _frame: object) -> None:
    raise _HangError(f"no answer after {HANGS_AFTER_S} s")
