"""A server of a data folder: what Kafka and Redis have in common around their process."""

import abc
import asyncio
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from schemas.errors import UnavailableError
from streams.local.private import read_from
from streams.local.process import ServerProcess, tail

STARTS = 3
# A free port can be taken by another process before the server has it; then with others again.


class Server(abc.ABC):
    """A server whose data lives in `folder`. Not bound to an event loop.

    Started again on the same folder it has its data and, if it is free, its port again.
    """

    name: ClassVar[str]
    ready_within_s: ClassVar[float]
    look_every_s: ClassVar[float]

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.log = self.folder / f"{self.name}.log"
        self.port: int | None = None
        self._process: ServerProcess | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.folder} port={self.port} {self._process}>"

    @property
    def pid(self) -> int:
        """The process id of the server itself."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives; a server can also have died by itself."""
        return self._process is not None and self._process.running

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the server; returns when it answers.

        Raises:
            InvalidFieldError: it cannot have its data in a folder of that name.
            UnavailableError: the server cannot be had, its port is taken, or it died or does not
                answer; it says which, with the end of the log.
        """
        assert not self.running, "already started"
        await self._prepare()
        for left in range(STARTS - 1, -1, -1):
            logged_bytes = self.log.stat().st_size if self.log.exists() else 0
            try:
                self.port, command = self._configure()
                self._process = await ServerProcess.start(self.name, command, output=self._output)
                await self._wait_until_it_answers()
            except BaseException as error:
                await self.kill()
                lost_its_port = b"Address already in use" in read_from(self.log, logged_bytes)
                if isinstance(error, UnavailableError) and lost_its_port and left:
                    continue
                raise
            return

    async def stop(self) -> None:
        """Stop the server in order, its data complete on disk; SIGKILL after a deadline."""
        if self._process is not None:
            await self._process.stop()

    async def kill(self) -> None:
        """Kill the server with SIGKILL, for tests of what then happens."""
        if self._process is not None:
            await self._process.kill()

    @property
    def _output(self) -> Path:
        """Where what the process prints goes: its log, unless it writes that itself."""
        return self.log

    @abc.abstractmethod
    async def _prepare(self) -> None:
        """Find the program and make the folder, once for all starts."""

    @abc.abstractmethod
    def _configure(self) -> tuple[int, list[str]]:
        """Choose a port and write the settings; return the port and the command."""

    @abc.abstractmethod
    async def _answers(self) -> bool:
        """Whether the server answers a client at `port`."""

    async def _wait_until_it_answers(self) -> None:
        try:
            async with asyncio.timeout(self.ready_within_s):
                while not await self._answers():
                    if not self.running:
                        raise UnavailableError(f"{self.name} ended at its start; {self._why()}")
                    await asyncio.sleep(self.look_every_s)
        except TimeoutError:
            raise UnavailableError(
                f"{self.name} does not answer after {self.ready_within_s:.0f} s; {self._why()}"
            ) from None

    def _why(self) -> str:
        return tail(*dict.fromkeys([self.log, self._output]))
