"""`stoploss ledger` as processes, and what their own logs say of what became of them."""

import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from streams.kafka import failpoints

OWNS = re.compile(r"ledger: owns partitions \[(.*)\]$")
GIVES_BACK = re.compile(r"ledger: gives back partitions \[(.*)\]$")
RESTORED = re.compile(r"ledger: partition (\d+): \d+ tasks restored in ")
LOST = re.compile(r"ledger: partition (\d+): a batch is not confirmed")
FENCED = re.compile(r"ledger: partition (\d+): another owner has taken over")
DIED = re.compile(r"failpoint: (\w+): killed$")
# What no fault of ours explains: a defect, whose traceback follows, or a record it cannot take.
MISTAKE = re.compile(r"ledger: partition \d+$|partition \d+ stands still")
MISTAKES_MAX = 20
END_WITHIN_S = 30.0


class Ledger:
    """One process. `restored` is what it owns now, with the time at which it had restored it."""

    def __init__(self, name: str, proxy: str, failpoint: str | None) -> None:
        self.name, self.proxy, self.failpoint = name, proxy, failpoint
        self.restored: dict[int, float] = {}
        self.owned_count = 0  # how often the group gave it partitions
        self.given_back_count = 0
        self.fenced_count = 0
        self.lost_count = 0  # batches of which it does not know
        self.died_at: str | None = None
        self.mistakes: list[str] = []
        self._told_to_end = False
        self._process: asyncio.subprocess.Process | None = None

    def __repr__(self) -> str:
        return f"<{self.name} via {self.proxy} {sorted(self.restored)} exit={self.exit_code}>"

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.returncode

    @property
    def alive(self) -> bool:
        return self._process is not None and self.exit_code is None

    @property
    def is_stopped(self) -> bool:
        """Whether it lives and does nothing, by whoever's signal."""
        if not self.alive:
            return False
        assert self._process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED
        return False

    async def start(self, env: Mapping[str, str], log: Path) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "streams.cli.main", "ledger"),
            env=dict(env),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        self._log = log

    async def follow(self) -> None:
        """Read what it says until it ends."""
        assert self._process is not None
        assert self._process.stderr is not None
        with self._log.open("ab") as log:
            async for line in self._process.stderr:
                log.write(line)
                log.flush()
                self._hear(line.decode(errors="replace").rstrip())
        code = await self._process.wait()
        self.restored.clear()
        if not self._told_to_end and self.died_at is None:
            self.mistakes.append(f"{self.name} ended by itself with {code}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it lives."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            self._told_to_end = True

    async def ended(self, within_s: float = END_WITHIN_S) -> int | None:
        """Return the exit code, or None if it has not ended by then."""
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._process.wait()
        return self.exit_code

    async def kill(self) -> bool:
        """Kill it; whether it was alive until then."""
        was_alive = self.alive
        self.signal(signal.SIGKILL)
        return await self.ended() == -signal.SIGKILL and was_alive and self.died_at is None

    async def leave(self) -> int | None:
        """Have it end in order; return its exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    def _hear(self, line: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if owns := OWNS.search(line):
            self.owned_count += bool(owns[1])
        elif gives_back := GIVES_BACK.search(line):
            self.given_back_count += 1
            for partition in gives_back[1].split(", "):
                self.restored.pop(int(partition), None)
        elif restored := RESTORED.search(line):
            self.restored[int(restored[1])] = now_s
        elif fenced := FENCED.search(line):
            self.fenced_count += 1
            self.restored.pop(int(fenced[1]), None)
        elif LOST.search(line):
            self.lost_count += 1
        elif died := DIED.search(line):
            self.died_at = died[1]
        elif MISTAKE.search(line) and len(self.mistakes) < MISTAKES_MAX:
            self.mistakes.append(f"{self.name}: {line}")


class Ledgers:
    """All ledgers of one group; each goes through one of the proxies."""

    def __init__(
        self,
        environ_of: Callable[[str], Mapping[str, str]],
        logs: Path,
        group: asyncio.TaskGroup,
    ) -> None:
        self._environ_of, self._logs, self._group = environ_of, logs, group
        self._all: list[Ledger] = []
        self.started = 0
        self.mistakes: list[str] = []
        self._fenced_before = 0  # of those that live no more

    @property
    def fenced(self) -> int:
        """How often one was told by Kafka, in a transaction, that another owns the partition."""
        return self._fenced_before + sum(ledger.fenced_count for ledger in self._all)

    @property
    def alive(self) -> list[Ledger]:
        """Those that live; what the dead had to say is kept."""
        for ledger in self._all:
            if not ledger.alive:
                self.mistakes += ledger.mistakes
                self._fenced_before += ledger.fenced_count
        self._all = [ledger for ledger in self._all if ledger.alive]
        return list(self._all)

    def owners(self, partition: int) -> list[Ledger]:
        return [ledger for ledger in self.alive if partition in ledger.restored]

    async def start(self, proxy: str, failpoint: str | None = None) -> Ledger:
        self.started += 1
        ledger = Ledger(f"ledger-{self.started}", proxy, failpoint)
        env = dict(self._environ_of(proxy))
        if failpoint is not None:
            env[failpoints.VARIABLE] = failpoint
        await ledger.start(env, self._logs / f"{ledger.name}.log")
        self._all.append(ledger)
        self._group.create_task(ledger.follow())
        return ledger

    async def end(self) -> list[str]:
        """End all in order; return what was wrong with that."""
        alive = self.alive
        for ledger in alive:
            ledger.signal(signal.SIGCONT)
            ledger.signal(signal.SIGTERM)
        wrong = [
            f"{ledger.name} ended with {code} after SIGTERM"
            for ledger in alive
            if (code := await ledger.ended()) != 0
        ]
        await self.kill()
        return wrong + [mistake for ledger in alive for mistake in ledger.mistakes] + self.mistakes

    async def kill(self) -> None:
        """Leave none, whatever state they are in."""
        for ledger in self._all:
            if ledger.alive:
                ledger.signal(signal.SIGKILL)
                await ledger.ended()
