"""Runs one server and ends it with its starter, also when that is killed with -9.

A process of its own, because nothing inside a killed process can act. It holds one end of a pipe;
the system closes the other end when the starter is gone, however it went. A death signal (prctl)
from the starter would not do: Linux only, and sent when the *thread* that forked ends.

    python -I -S guard.py GRACE_S COMMAND…      stdin: `stop` or `kill`, or its end

Prints the server's pid, sends the server's output to its own stderr, and exits as the server did
(128 + signal). Standard library only, and run as a file: it is up in some 20 ms.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable

ASK_S = 1.0
# How often the starter's id is looked at. The end of the pipe tells at once, unless a fork of the
# starter (multiprocessing) still holds the pipe open.

PR_SET_PDEATHSIG = 1
CANNOT_RUN = 127  # as shells say it


def main() -> int:
    """Run the command until it ends, or until the starter says so or is gone."""
    starter_pid = os.getppid()
    grace_s, command = float(sys.argv[1]), sys.argv[2:]
    ended = _wake_when_a_child_ends()
    try:
        server = subprocess.Popen(  # noqa: S603 - the command is our starter's
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            preexec_fn=_die_with_the_guard(),  # noqa: PLW1509 - this process has one thread
        )
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201 - it is the log
        return CANNOT_RUN
    print(server.pid, flush=True)  # noqa: T201 - the starter reads it
    match _wait(server, ended, starter_pid):
        case "kill":
            server.kill()
        case "stop":
            _stop(server, grace_s)
        case _:
            pass
    code = server.wait()
    return code if code >= 0 else 128 - code


def _wake_when_a_child_ends() -> int:
    """Return a file descriptor that can be read once a child has ended."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return readable


def _die_with_the_guard() -> Callable[[], object] | None:
    """Return what the server does before it begins: ask to be ended, should the guard be killed."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # loaded here: not between fork and exec
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait(server: "subprocess.Popen[bytes]", ended: int, starter_pid: int) -> str:
    """Return `stop` or `kill`, or `ended` when the server has ended by itself."""
    while server.poll() is None:
        readable, _, _ = select.select([0, ended], [], [], ASK_S)
        if 0 in readable:
            return os.read(0, 64).decode().strip() or "stop"
        if os.getppid() != starter_pid:
            return "stop"
    return "ended"


def _stop(server: "subprocess.Popen[bytes]", grace_s: float) -> None:
    server.terminate()
    try:
        server.wait(grace_s)
    except subprocess.TimeoutExpired:
        server.kill()


if __name__ == "__main__":
    sys.exit(main())
