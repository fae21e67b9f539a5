"""A TCP proxy that can be cut or made to stall, and knows whether that hit anybody."""

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from streams.local.ports import HOST

READ_BYTES = 64 * 1024


class Fault(enum.Enum):
    """What can be done to everybody who goes through."""

    CUT = "cut"  # connections are reset, new ones are refused
    STALL = "stall"  # connections stay and nothing passes; then all of it does
    SILENCE = "silence"  # what is asked passes, the answers do not; then they do


@dataclass
class Met:
    """What a fault has done: it is none if there was nobody to feel it."""

    reset: int = 0
    refused: int = 0
    stalled_bytes: int = 0

    def happened(self) -> bool:
        return bool(self.reset or self.stalled_bytes)


class Proxy:
    """Listens on a port of its own, which stays the same, whatever becomes of the other end."""

    def __init__(self, upstream_port: Callable[[], int | None]) -> None:
        self._upstream_port = upstream_port
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}
        self._open = asyncio.Event()
        self._open.set()
        self._fault: Fault | None = None
        self._met = Met()
        self.port = 0

    def __repr__(self) -> str:
        return f"<Proxy {self.port} → {self._upstream_port()} connections={self.connections}>"

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def faulty(self, fault: Fault) -> AsyncIterator[Met]:
        """Have `fault` until the end of the block; what it yields says what came of it."""
        assert self._fault is None
        self._fault, self._met = fault, Met()
        if fault is Fault.CUT:
            self._met.reset = self.reset()
        else:
            self._open.clear()
        try:
            yield self._met
        finally:
            self._fault = None
            self._open.set()

    def reset(self) -> int:
        """End all connections, and what they hold back; return how many there were."""
        for writers in self._connections.values():
            for writer in writers:
                writer.transport.abort()
        return self.connections

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self._upstream_port()
        if self._fault is Fault.CUT or port is None:
            self._met.refused += 1
            writer.transport.abort()
            return
        try:
            there_reader, there_writer = await asyncio.open_connection(HOST, port)
        except OSError:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = (writer, there_writer)
        try:
            # Whichever direction ends first ends both: no client of Kafka half-closes.
            async with asyncio.TaskGroup() as group:
                ways = [
                    group.create_task(self._pass_on(reader, there_writer, Fault.STALL)),
                    group.create_task(
                        self._pass_on(there_reader, writer, Fault.STALL, Fault.SILENCE)
                    ),
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
        finally:
            del self._connections[task]
            writer.transport.abort()
            there_writer.transport.abort()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *held_by: Fault
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                if self._fault in held_by:
                    self._met.stalled_bytes += len(data)
                    await self._open.wait()
                writer.write(data)
                await writer.drain()
