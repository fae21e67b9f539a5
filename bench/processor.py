"""A processor under measurement: a process with its children, watched from outside, ended at last."""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from streams.kafka.settings import Settings
from streams.local.process import ServerProcess, tail


class Processor:
    """Runs while its block runs, and never longer than we; what it says goes to `log`."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.log = name, log
        # A server sees little of our environment; what it is to see is put in front of it.
        self._command = ["env", *(f"{key}={value}" for key, value in (env or {}).items()), *command]
        self._server: ServerProcess | None = None

    async def __aenter__(self) -> Self:
        self._server = await ServerProcess.start(self.name, self._command, output=self.log)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.server.stop()

    @property
    def server(self) -> ServerProcess:
        """The process itself; known once started."""
        assert self._server is not None
        return self._server

    @property
    def cpu_s(self) -> float:
        """User and system time of all of them, those that have ended included."""
        seconds = 0.0
        for process in self._tree():
            times = process.cpu_times()
            seconds += times.user + times.system
            if process.pid == self.server.pid:
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
        """See that it runs.

        Raises:
            SystemExit: it has ended by itself; with the end of its log.
        """
        if not self.server.running:
            raise SystemExit(f"{self.server}: {tail(self.log)}")

    def _tree(self) -> Iterator[psutil.Process]:
        """Yield those that live."""
        try:
            root = psutil.Process(self.server.pid)
            processes = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    yield process


PATIENT = {"STOPLOSS_SESSION_TIMEOUT_MS": "600000", "STOPLOSS_REQUEST_TIMEOUT_MS": "600000"}
"""Of a ledger that nobody thinks dead while it restores more than it can in its session."""


def ledger(
    settings: Settings,
    folder: Path,
    *,
    workers: int = 1,
    name: str = "ledger",
    changed: Mapping[str, str] | None = None,
) -> Processor:
    """Return a ledger on `settings`, not started yet; `changed` are more variables."""
    env = {
        "STOPLOSS_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "STOPLOSS_TOPIC_PREFIX": settings.topic_prefix,
        "STOPLOSS_DRIVER": settings.driver,
        **(changed or {}),
    }
    # -P: what PYTHONPATH names comes before the folder we are in.
    command = [sys.executable, "-P", "-m", "streams.cli.main", "ledger", "--workers", str(workers)]
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
