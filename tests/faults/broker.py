"""A broker that can only be reached through proxies, whatever ports it has after a restart."""

import contextlib
import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from streams.local.broker import KafkaBroker
from streams.local.ports import HOST, free_ports
from streams.local.private import write_private
from tests.faults.proxy import Proxy

# The broker's own bounds are made for production: no session below 6 s, and a look for transactions
# that have run out of time every 10 s.
SHORT = {
    "group.min.session.timeout.ms": "500",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    # Compaction, also of a small log, within the time of a test.
    "log.cleaner.backoff.ms": "500",
}


class ProxiedBroker(KafkaBroker):
    """Has a listener for each proxy, and sends those who come through it back through it."""

    def __init__(self, folder: Path, proxies: Sequence[str]) -> None:
        super().__init__(folder)
        self._ports: dict[str, int] = {}
        self.proxies = {name: Proxy(functools.partial(self._ports.get, name)) for name in proxies}

    def servers(self, proxy: str) -> str:
        """Return where clients of a proxy begin."""
        return f"{HOST}:{self.proxies[proxy].port}"

    def _write_settings(self, port: int, controller_port: int) -> None:
        super()._write_settings(port, controller_port)
        self._ports.clear()
        self._ports |= zip(self.proxies, free_ports(len(self.proxies)), strict=True)
        own = f"BROKER://{HOST}:{port}"
        listeners = [own, f"CONTROLLER://{HOST}:{controller_port}"]
        advertised = [own]
        protocols = ["BROKER:PLAINTEXT", "CONTROLLER:PLAINTEXT"]
        for name, proxy in self.proxies.items():
            listeners.append(f"{name.upper()}://{HOST}:{self._ports[name]}")
            advertised.append(f"{name.upper()}://{HOST}:{proxy.port}")
            protocols.append(f"{name.upper()}:PLAINTEXT")
        self._add(
            SHORT
            | {
                "listeners": ",".join(listeners),
                "advertised.listeners": ",".join(advertised),
                "listener.security.protocol.map": ",".join(protocols),
            }
        )

    def _add(self, settings: Mapping[str, str]) -> None:
        """Add to the file of the broker: of a name that is there twice, the last counts."""
        written = self._properties.read_text()
        more = "".join(f"{name}={value}\n" for name, value in settings.items())
        write_private(self._properties, written + more)


@contextlib.asynccontextmanager
async def proxied_broker(folder: Path, *proxies: str) -> AsyncIterator[ProxiedBroker]:
    """Run a broker behind proxies of these names."""
    broker = ProxiedBroker(folder, proxies)
    async with contextlib.AsyncExitStack() as stack:
        for proxy in broker.proxies.values():
            await stack.enter_async_context(proxy)
        await stack.enter_async_context(broker)
        yield broker
