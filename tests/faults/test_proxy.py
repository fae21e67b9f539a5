"""The proxy: what passes, what does not, and that it says whether anybody felt it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from streams.local.ports import HOST
from tests.faults.proxy import Fault, Proxy

WITHIN_S = 10.0


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1024):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(_echo, HOST, 0)
    port: int = server.sockets[0].getsockname()[1]
    async with Proxy(lambda: port) as made:
        yield made
    server.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, proxy: Proxy) -> "Client":
        return cls(*await asyncio.open_connection(HOST, proxy.port))

    def say(self, data: bytes) -> None:
        self._writer.write(data)

    async def hears(self) -> bytes:
        """Return what comes next; nothing at the end of the connection."""
        async with asyncio.timeout(WITHIN_S):
            try:
                return await self._reader.read(1024)
            except ConnectionError:
                return b""

    def leave(self) -> None:
        self._writer.close()


async def test_what_is_said_passes_both_ways(proxy: Proxy) -> None:
    client = await Client.connect(proxy)
    client.say(b"hello")
    assert await client.hears() == b"hello"
    assert proxy.connections == 1
    client.leave()


async def test_a_cut_ends_who_is_there_and_refuses_who_comes(proxy: Proxy) -> None:
    client = await Client.connect(proxy)
    client.say(b"hello")
    await client.hears()
    async with proxy.faulty(Fault.CUT) as met:
        assert await client.hears() == b""
        late = await Client.connect(proxy)
        assert await late.hears() == b""
        late.leave()
    assert (met.reset, met.refused, met.happened()) == (1, 1, True)
    again = await Client.connect(proxy)
    again.say(b"again")
    assert await again.hears() == b"again"
    again.leave()
    client.leave()


@pytest.mark.parametrize("fault", [Fault.STALL, Fault.SILENCE])
async def test_what_is_held_back_comes_later_and_whole(proxy: Proxy, fault: Fault) -> None:
    client = await Client.connect(proxy)
    client.say(b"hello")
    await client.hears()
    async with proxy.faulty(fault) as met:
        client.say(b"later")
        async with asyncio.timeout(WITHIN_S):
            while not met.happened():  # noqa: ASYNC110 - of the proxy's own
                await asyncio.sleep(0.01)
    assert met.stalled_bytes == 5
    assert await client.hears() == b"later"
    client.leave()


@pytest.mark.parametrize("fault", Fault)
async def test_a_fault_that_nobody_felt_has_not_happened(proxy: Proxy, fault: Fault) -> None:
    async with proxy.faulty(fault) as met:
        pass
    assert not met.happened()
