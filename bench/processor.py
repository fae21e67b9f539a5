"""A processor under measurement: a process with its children, watched from outside, ended at last."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from streams.kafka.settings import Settings

ENDED_WITHIN_S = 30.0
TAIL_BYTES = 2_000


class Processor:
    """Runs while its block runs; what it says goes to `log`.

    Raises (from `check`):
        SystemExit: it has ended by itself; with the end of its log.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.log = name, log
        self._command, self._env = list(command), dict(env or {})
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=os.environ | self._env,
                stdout=log,
                stderr=log,
                start_new_session=True,  # its children end with it
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """Of the process itself, which is also that of its group."""
        assert self._process is not None
        return self._process.pid

    @property
    def cpu_s(self) -> float:
        """User and system time of all of them, those that have ended included."""
        seconds = 0.0
        for process in self._tree():
            times = process.cpu_times()
            seconds += times.user + times.system
            if process.pid == self.pid:
                seconds += times.children_user + times.children_system
        return seconds

    @property
    def rss_mb(self) -> float:
        """Resident memory of all of them now, in MB."""
        return sum(process.memory_info().rss for process in self._tree()) / 1e6

    @property
    def peak_mb(self) -> float:
        """The highest resident memory that each of them ever had, added, in MB."""
        return sum(_peak_bytes(process) for process in self._tree()) / 1e6

    def check(self) -> None:
        """Fail with the end of its log if it has ended."""
        assert self._process is not None
        if self._process.returncode is not None:
            said = self.log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
            raise SystemExit(f"{self.name} ended with {self._process.returncode}: {said}")

    def kill(self) -> None:
        """Kill all of them with SIGKILL, as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """End it in order; kill what is left after a deadline."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(ENDED_WITHIN_S):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            self.kill()  # a child can outlive its parent
            await self._process.wait()

    def _tree(self) -> Iterator[psutil.Process]:
        """Yield those that live."""
        try:
            root = psutil.Process(self.pid)
            processes = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    yield process


def ledger(
    settings: Settings, folder: Path, *, workers: int = 1, name: str = "ledger"
) -> Processor:
    """Return a ledger on `settings`, not started yet."""
    env = {
        "STOPLOSS_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "STOPLOSS_TOPIC_PREFIX": settings.topic_prefix,
    }
    command = [sys.executable, "-m", "streams.cli.main", "ledger", "--workers", str(workers)]
    return Processor(name, command, folder / f"{name}.log", env)


def _peak_bytes(process: psutil.Process) -> int:
    """Return the kernel's own high-water mark; where there is none, what is used now."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return int(process.memory_info().rss)
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
