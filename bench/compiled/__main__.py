"""`make compiled`: build the compiled copy, and hold what it gives against the sources."""

import os
import subprocess
import sys
from collections.abc import Sequence

import msgspec

from bench.compiled.build import build
from bench.compiled.measure import Measured
from bench.compiled.sources import FOLDER, MADE_OF, ROOT, digest

TESTS = ("tests/unit/budget",)
PROVEN = FOLDER / "proven"  # the digest of the sources that it was held against, once all is well
ROUNDS = 3  # taken in turn: on a busy machine the shortest of each can be compared


def main() -> int:
    """Return 0 where both give the same bytes and the compiled one passes the tests."""
    if PROVEN.is_file() and PROVEN.read_text() == digest():
        print(f"{FOLDER.relative_to(ROOT)} is current")
        return 0
    print(f"{len(build())} modules are compiled, in {FOLDER.relative_to(ROOT)}", flush=True)
    rounds = [(_measured(compiled=False), _measured(compiled=True)) for _ in range(ROUNDS)]
    plain = min((one for one, _ in rounds), key=lambda one: one.fold_us)
    ours = min((one for _, one in rounds), key=lambda one: one.fold_us)
    if (plain.is_compiled, ours.is_compiled) != (False, True):
        return _refused("the copy that was imported is not the one that was asked for")
    if len({one.digest for pair in rounds for one in pair}) > 1:
        return _refused("the compiled fold gives other bytes than its sources")
    print(
        f"same bytes; {plain.fold_us:.1f} µs per event from the sources, {ours.fold_us:.1f} compiled"
    )
    sys.stdout.flush()
    tested = _run(["-m", "pytest", "--quiet", "-p", "no:cacheprovider", *TESTS]).returncode
    if tested == 0:
        PROVEN.write_text((FOLDER / MADE_OF).read_text())
    return tested


def _measured(*, compiled: bool) -> Measured:
    done = _run(["-m", "bench.compiled.measure"], compiled=compiled, stdout=subprocess.PIPE)
    done.check_returncode()
    return msgspec.json.decode(done.stdout, type=Measured)


def _run(
    arguments: Sequence[str], *, compiled: bool = True, stdout: int | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a module of ours; -P, for the folder it is started in comes before PYTHONPATH else."""
    path = os.pathsep.join(map(str, (FOLDER, ROOT) if compiled else (ROOT,)))
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdout=stdout,
        timeout=600,
        check=False,
    )


def _refused(why: str) -> int:
    sys.stderr.write(f"compiled: {why}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
