"""Enforcers as processes of their own: each speaks through the client, with a spool, until killed.

They come one after the other and share a spool folder, as a service does that is started again: the
next one sends what the last has left. What each has said is heard on its standard output, what it
leaves on disk is read when it is dead, and what has arrived is read from `events` at the end.
"""

import asyncio
import contextlib
import signal
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from schemas.topics import Topic
from streams.client.emitter import Emitter
from streams.client.spool import decode_line
from streams.kafka.reader import start_client
from streams.kafka.settings import Settings
from streams.verify.reading import OutputReader
from tests.faults.result import Enforced

TASKS = "KILLED-"
TASKS_COUNT = 8
SAYS_AT_ONCE, EVERY_S = 4, 0.04
# A second is what the client promises; these machines have more to do than they can.
KEPT_AFTER_S = 5.0
ENDS_WITHIN_S = 60.0
DIFFERENCES_MAX = 20


class Said(msgspec.Struct, frozen=True):
    """One event, as far as the ledger tells it from others."""

    source: str
    sequence: int


class _Envelope(msgspec.Struct):
    source: str
    sequence: str


_ENVELOPE = msgspec.json.Decoder(_Envelope)


def _said(value: bytes) -> Said:
    envelope = _ENVELOPE.decode(value)
    return Said(envelope.source, int(envelope.sequence))


class Enforcer:
    """One process. `said` is how many events it has given to its emitter."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.said = 0
        self.kept = 0  # of them, those that must outlive it
        self._heard: deque[tuple[float, int]] = deque()
        self._process: asyncio.subprocess.Process | None = None

    def __repr__(self) -> str:
        return f"<{self.name} said={self.said} alive={self.alive}>"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self, env: Mapping[str, str], spool: Path) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.enforcers", self.name, str(spool)),
            env=dict(env),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # of outages that we make
        )

    async def follow(self) -> None:
        """Hear what it has said until it ends."""
        assert self._process is not None
        assert self._process.stdout is not None
        clock = asyncio.get_running_loop().time
        async for line in self._process.stdout:
            self.said = int(line)
            self._heard.append((clock(), self.said))
            while self._heard[0][0] < clock() - KEPT_AFTER_S:
                self.kept = self._heard.popleft()[1]
        await self._process.wait()

    async def end(self, number: signal.Signals) -> int | None:
        """Send a signal; return the exit code, or None if it did not end in time."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDS_WITHIN_S):
                await self._process.wait()
        return self._process.returncode


class Enforcers:
    """One at a time. `on_disk` is what the dead have left there, each time somebody died."""

    def __init__(
        self, environ: Callable[[], Mapping[str, str]], spool: Path, group: asyncio.TaskGroup
    ) -> None:
        self._environ, self.spool, self._group = environ, spool, group
        self._all: list[Enforcer] = []
        self.on_disk: set[Said] = set()

    @property
    def current(self) -> Enforcer:
        return self._all[-1]

    @property
    def spooled_bytes(self) -> int:
        """How much is on disk now."""
        found = 0
        for path in self.spool.rglob("*.spool"):
            with contextlib.suppress(FileNotFoundError):  # sent meanwhile
                found += path.stat().st_size
        return found

    async def start(self) -> None:
        """Start the next one; it finds what the last has left."""
        enforcer = Enforcer(f"enforcer-{len(self._all)}")
        await enforcer.start(self._environ(), self.spool)
        self._all.append(enforcer)
        self._group.create_task(enforcer.follow())

    async def kill(self) -> tuple[bool, int]:
        """Kill it, and start the next one.

        Returns:
            Whether it was alive, and how many events it left on disk.
        """
        was_alive = self.current.alive
        code = await self.current.end(signal.SIGKILL)
        left = {
            _said(item.value)
            for path in self.spool.rglob("*.spool")
            for line in path.read_bytes().split(b"\n")
            if (item := decode_line(line)) is not None
        }
        self.on_disk |= left
        await self.start()
        return was_alive and code == -signal.SIGKILL, len(left)

    async def leave(self) -> list[str]:
        """End the last one in order, with everything sent; return what was wrong with that."""
        code = await self.current.end(signal.SIGTERM)
        return [] if code == 0 else [f"{self.current.name} ended with {code} after SIGTERM"]

    async def close(self) -> None:
        """Leave none."""
        for enforcer in self._all:
            if enforcer.alive:
                await enforcer.end(signal.SIGKILL)

    async def judge(self, settings: Settings, counted: int) -> tuple[Enforced, list[str]]:
        """Hold what was said against what has arrived, and that against what is counted."""
        arrived: defaultdict[str, set[int]] = defaultdict(set)
        records = 0
        client = await start_client(settings, [settings.topic(Topic.EVENTS)], "enforcers")
        try:
            for partition in range(settings.partitions):
                reader = OutputReader(client, settings.topic(Topic.EVENTS), partition)
                async for record in reader.until_written():
                    if record.value is not None and (record.key or b"").startswith(TASKS.encode()):
                        said = _said(record.value)
                        arrived[said.source].add(said.sequence)
                        records += 1
        finally:
            await client.close()
        distinct = sum(map(len, arrived.values()))
        enforced = Enforced(
            said=sum(enforcer.said for enforcer in self._all),
            arrived=distinct,
            repeated=records - distinct,
            on_disk=len(self.on_disk),
        )
        wrong = self._differences(arrived)
        if counted != distinct:
            wrong.append(f"enforcers: {distinct} events have arrived, {counted} are counted")
        return enforced, wrong[:DIFFERENCES_MAX]

    def _differences(self, arrived: Mapping[str, set[int]]) -> list[str]:
        wrong = []
        lost = [said for said in self.on_disk if said.sequence not in arrived.get(said.source, ())]
        if lost:
            wrong.append(f"enforcers: {len(lost)} events on disk are not sent, {lost[0]} is one")
        by_name = {source.partition("/")[0]: numbers for source, numbers in arrived.items()}
        for enforcer in self._all:
            numbers = by_name.get(enforcer.name, set())
            # What is lost with a process's memory is the end of what it said.
            if len(numbers) != max(numbers, default=0):
                wrong.append(f"{enforcer.name}: of {max(numbers)} events {len(numbers)} arrived")
            kept = enforcer.kept if enforcer is not self.current else enforcer.said
            if len(numbers) < kept:
                wrong.append(f"{enforcer.name}: {len(numbers)} events arrived, {kept} were kept")
        return wrong


def _speak(name: str, spool: Path) -> int:
    """Say usage until told to end; then whether everything was sent."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    said = 0
    with Emitter(source=name, spool_dir=spool) as emitter:
        while not stop.wait(EVERY_S):
            for _ in range(SAYS_AT_ONCE):
                emitter.usage(f"{TASKS}{said % TASKS_COUNT}", "THINK", input_tokens=1)
                said += 1
            sys.stdout.write(f"{said}\n")
            sys.stdout.flush()
        return 0 if emitter.close(ENDS_WITHIN_S / 2) else 1


if __name__ == "__main__":
    sys.exit(_speak(sys.argv[1], Path(sys.argv[2])))
