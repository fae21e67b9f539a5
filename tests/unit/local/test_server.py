"""What every server of a data folder does, with a small one in Python."""

import asyncio
import sys
from pathlib import Path

import pytest

from schemas.errors import UnavailableError
from streams.local.ports import HOST, free_ports
from streams.local.server import STARTS, Server

# Listens at its port, unless it is told that the port is taken.
PROGRAM = """
import signal, socket, sys
if sys.argv[2] == "taken":
    sys.exit("Address already in use")
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
signal.pause()
"""


class Listener(Server):
    """Loses its first ports to somebody else, as many as it is told."""

    name = "listener"
    ready_within_s = 30.0
    look_every_s = 0.01

    def __init__(self, folder: Path, *, lost: int = 0) -> None:
        super().__init__(folder)
        self.lost = lost
        self.ports: list[int] = []

    async def _prepare(self) -> None:
        self.folder.mkdir(exist_ok=True)

    def _configure(self) -> tuple[int, list[str]]:
        (port,) = free_ports(1)
        self.ports.append(port)
        told = "taken" if len(self.ports) <= self.lost else "free"
        return port, [sys.executable, "-I", "-S", "-c", PROGRAM, str(port), told]

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        writer.close()
        return True


async def test_a_server_runs_until_the_end_of_its_block(tmp_path: Path) -> None:
    async with Listener(tmp_path / "data") as server:
        ran = [server.running]
        assert repr(server).startswith(f"<Listener {tmp_path}/data port={server.port} <listener ")
    ran.append(server.running)
    await server.start()  # again, on the same folder
    ran.append(server.running)
    await server.kill()
    assert [*ran, server.running] == [True, False, True, False]


async def test_a_port_that_is_lost_is_exchanged_for_another(tmp_path: Path) -> None:
    async with Listener(tmp_path, lost=STARTS - 1) as server:
        assert len(server.ports) == STARTS
        assert server.port == server.ports[-1]


async def test_a_port_that_is_lost_again_and_again_is_said_with_the_end_of_the_log(
    tmp_path: Path,
) -> None:
    server = Listener(tmp_path, lost=STARTS)
    said = r"listener ended at its start; .*listener\.log ends with: .*Address already in use"
    with pytest.raises(UnavailableError, match=said):
        await server.start()
    assert len(server.ports) == STARTS
    assert not server.running


async def test_a_server_that_does_not_answer_in_time_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Listener, "ready_within_s", 0.0)
    server = Listener(tmp_path)
    with pytest.raises(UnavailableError, match="listener does not answer after 0 s"):
        await server.start()
    assert not server.running
    assert len(server.ports) == 1
