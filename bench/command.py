"""A command that runs to its end, and ends with everything that it has started."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from types import FrameType

import msgspec
import psutil

GRACE_S = 60.0
# A measure that is told to end stops its ledgers and then its broker, each of which has 20 s; cut
# short, it leaves gigabytes in a temporary folder.
KILLED_WITHIN_S = 10.0
POLL_S = 0.02


class Ended(msgspec.Struct, frozen=True):
    """How a command ended by itself, and what it printed on stdout."""

    code: int
    printed: str


def run(command: Sequence[str], within_s: float, grace_s: float = GRACE_S) -> Ended:
    """Run a command in a session of its own; however this ends, nothing of that session is left.

    SIGTERM ends us as Ctrl-C does meanwhile: neither would reach another session by itself.

    Args:
        command: what to run.
        within_s: how long it may take.
        grace_s: how long it may take to end when it is told to, before it is killed.

    Raises:
        subprocess.TimeoutExpired: it did not end by itself.
    """
    with (
        leaving_when_told(),
        subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as process,
    ):
        try:
            printed, _ = process.communicate(timeout=within_s)
        finally:
            _end(process.pid, grace_s)
    return Ended(process.returncode, printed)


@contextlib.contextmanager
def leaving_when_told() -> Iterator[None]:
    """Have SIGTERM end this block as Ctrl-C does: in order, with what it has started and written."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(session: int, grace_s: float) -> None:
    """Tell all of a session to end, wait, and kill whoever is left, also where we are interrupted.

    Servers have sessions of their own: whoever has started one stops it, or its guard does. They
    are waited for, and are killed only with the others.
    """
    family = _family(session)
    try:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(session, signal.SIGTERM)
        _wait(family, grace_s)
    finally:
        family |= _family(session)
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        _wait(family, KILLED_WITHIN_S)


def _family(session: int) -> set[psutil.Process]:
    """Return those of a session that live, with their descendants in other sessions."""
    family: set[psutil.Process] = set()
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(one.pid) == session and _lives(one):
                family |= {one, *one.children(recursive=True)}
    return family


def _wait(family: Iterable[psutil.Process], within_s: float) -> None:
    deadline_s = time.monotonic() + within_s
    while any(map(_lives, family)) and time.monotonic() < deadline_s:
        time.sleep(POLL_S)  # noqa: TID251 - a grandchild's end is told to nobody here


def _lives(one: psutil.Process) -> bool:
    """Whether it still runs; it may wait for long until whoever inherited it takes note."""
    try:
        return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
