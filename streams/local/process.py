"""One server process of ours, under its guard: started, asked, stopped, killed."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from schemas.errors import UnavailableError
from streams.local import guard
from streams.local.private import open_private

GRACE_S = 20.0
# A broker writes its offsets and closes its segments first; cut short, the next start has to
# recover them.
STOPPED_AFTER_S = GRACE_S + 10.0
assert STOPPED_AFTER_S > GRACE_S  # the guard's own SIGKILL comes before ours

TAIL_LINES = 15
TAIL_BYTES_MAX = 64 * 1024

# What a server sees of our environment. JAVA_TOOL_OPTIONS and its like are set in many containers;
# a second collector in there, and Java refuses to start.
ENVIRON = ("PATH", "HOME", "TZ", "LD_LIBRARY_PATH")
# In the C locale, which cron and containers have, Java opens no file whose name is not ASCII.
LOCALE = {"LC_ALL": "C.UTF-8"}


def server_environ() -> dict[str, str]:
    """Return the environment of every server process."""
    return {name: os.environ[name] for name in ENVIRON if name in os.environ} | LOCALE


class ServerProcess:
    """A server that ends with us. Bound to no event loop: any loop may stop it."""

    def __init__(
        self, name: str, process: "subprocess.Popen[bytes]", pid: int, output: Path
    ) -> None:
        self.name, self.pid, self.output = name, pid, output
        self._process = process

    @classmethod
    async def start(cls, name: str, command: Sequence[str], *, output: Path) -> Self:
        """Start `command`; what it prints is appended to `output`.

        Raises:
            UnavailableError: the command cannot be run at all.
        """
        # In a thread: fork and exec of a large parent take tens of milliseconds.
        return await asyncio.to_thread(cls._start, name, list(command), output)

    @classmethod
    def _start(cls, name: str, command: list[str], output: Path) -> Self:
        with open_private(output) as log:
            process = subprocess.Popen(  # noqa: S603 - our own guard and a server we chose
                [sys.executable, "-I", "-S", guard.__file__, str(GRACE_S), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=server_environ(),
                umask=0o077,  # what the servers write is its user's
                start_new_session=True,  # Ctrl-C is for us; we stop the servers last, in order
            )
        assert process.stdout is not None
        line = process.stdout.readline()
        process.stdout.close()
        if not line:
            process.wait()
            _close(process)
            raise UnavailableError(f"{name}: {command[0]} cannot be run; {tail(output)}")
        return cls(name, process, int(line), output)

    def __repr__(self) -> str:
        state = "running" if self.running else f"ended with {self._process.returncode}"
        return f"<{self.name} {self.pid} {state}>"

    @property
    def running(self) -> bool:
        """Whether the server has not ended yet."""
        return self._process.poll() is None

    async def ended_within(self, deadline_s: float) -> int | None:
        """Wait until the server ends by itself; return its exit code, None after the deadline."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while self.running:  # noqa: ASYNC110 - a process's end is no event of any loop
                    await asyncio.sleep(0.02)
            _close(self._process)
        return self._process.returncode

    async def stop(self) -> None:
        """End the server in order: SIGTERM, a deadline, SIGKILL. Nothing happens if it has ended."""
        await self._end(b"stop")

    async def kill(self) -> None:
        """End the server with SIGKILL, as a power cut would; returns when it is gone."""
        await self._end(b"kill")

    async def _end(self, word: bytes) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):  # it has ended by itself
                self._process.stdin.write(word)
                self._process.stdin.flush()
        deadline = asyncio.timeout(STOPPED_AFTER_S)
        try:
            async with deadline:
                while self.running:  # noqa: ASYNC110 - a process's end is no event of any loop
                    await asyncio.sleep(0.01)
        finally:
            if self.running and deadline.expired():
                self._process.kill()
                self._process.wait()
            _close(self._process)


def _close(process: "subprocess.Popen[bytes]") -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def tail(*logs: Path) -> str:
    """Return the last lines of `logs`, the last log first, on one line."""
    for log in logs:
        with contextlib.suppress(OSError), log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES_MAX))
            lines = file.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
            if lines:
                return f"{log} ends with: " + " | ".join(line.strip() for line in lines)
    return "nothing was logged"
