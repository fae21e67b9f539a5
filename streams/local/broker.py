"""One real Kafka broker, its own controller (KRaft), on 127.0.0.1."""

import asyncio
import re
import shutil
from pathlib import Path

import aiokafka.errors
from aiokafka.admin import AIOKafkaAdminClient

from schemas.errors import InvalidFieldError, UnavailableError
from streams.local.ports import HOST, free_ports, is_free
from streams.local.private import FOLDER_MODE, read_from, write_private
from streams.local.runtime import Archiving, KafkaRuntime, kafka_runtime
from streams.local.server import Server
from streams.local.settings import LOG4J2_PROPERTIES, SERVER_PROPERTIES, property_value
from streams.local.storage import NODE_ID, format_storage


class KafkaBroker(Server):
    """A broker; see `Server`. It has its port again unless another one is asked for."""

    name = "kafka"
    ready_within_s = 60.0
    # 1.4 to 3 s on an idle machine; a test run that compiles beside it has taken 8.
    look_every_s = 0.03

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        super().__init__(folder)
        self.port = port
        self._fixed_port = port
        self._runtime: KafkaRuntime | None = None
        self._archiving: Archiving | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Where clients begin, such as 127.0.0.1:41234; known once started."""
        assert self.port is not None
        return f"{HOST}:{self.port}"

    async def start(self) -> None:
        """Start the broker; see `Server`."""
        await super().start()
        if self._archiving is not None:
            await self._archiving.start()

    async def stop(self) -> None:
        """Stop the broker; see `Server`."""
        await super().stop()
        if self._archiving is not None:
            await self._archiving.finish()

    async def kill(self) -> None:
        """Kill the broker; see `Server`."""
        await super().kill()
        if self._archiving is not None:
            await self._archiving.abandon()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _log4j2(self) -> Path:
        return self.folder / "log4j2.properties"

    @property
    def _output(self) -> Path:
        return self.folder / "kafka.out"

    async def _prepare(self) -> None:
        self._runtime = await kafka_runtime()
        self._prepare_folder()
        await asyncio.to_thread(format_storage, self._runtime, self._data, log4j2=self._log4j2)

    def _configure(self) -> tuple[int, list[str]]:
        assert self._runtime is not None, "prepared first"
        port, controller_port = self._choose_ports()
        self._write_settings(port, controller_port)
        self._archiving = (
            None if self._runtime.archive.exists() else Archiving(self._runtime, self._temporary)
        )
        return port, self._runtime.command(
            "kafka.Kafka",
            str(self._properties),
            temporary=self._temporary,
            log4j2=self._log4j2,
            options=self._archiving.options if self._archiving is not None else (),
        )

    def _prepare_folder(self) -> None:
        if "," in str(self.folder):
            raise InvalidFieldError("--dir", str(self.folder), "a path without commas, for Kafka")
        self.folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        shutil.rmtree(self._temporary, ignore_errors=True)  # left by a broker that was killed
        self._temporary.mkdir(mode=FOLDER_MODE)
        write_private(self._log4j2, LOG4J2_PROPERTIES.format(log=property_value(self.log)))

    def _choose_ports(self) -> tuple[int, int]:
        """Return a port for clients, the last start's where it is free, and one for the controller.

        Raises:
            UnavailableError: the port that was asked for is taken.
        """
        port, controller_port = free_ports(2)
        if self._fixed_port is not None:
            if not is_free(self._fixed_port):
                raise UnavailableError(f"port {self._fixed_port} of {HOST} is taken; use another")
            return self._fixed_port, controller_port
        last = self._last_port()
        return last if last is not None and is_free(last) else port, controller_port

    def _last_port(self) -> int | None:
        settings = read_from(self._properties, 0).decode()
        found = re.search(r"^advertised\.listeners=BROKER://.+:(\d+)$", settings, re.MULTILINE)
        return int(found[1]) if found else None

    def _write_settings(self, port: int, controller_port: int) -> None:
        settings = SERVER_PROPERTIES.format(
            node_id=NODE_ID,
            host=HOST,
            port=port,
            controller_port=controller_port,
            data=property_value(self._data),
        )
        write_private(self._properties, settings)

    async def _answers(self) -> bool:
        """Whether the broker answers a client's request: it knows itself as a live broker."""
        try:
            _, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        writer.close()
        admin = AIOKafkaAdminClient(
            bootstrap_servers=self.bootstrap_servers, request_timeout_ms=5_000
        )
        try:
            await admin.start()
            return bool((await admin.describe_cluster())["brokers"])
        except (aiokafka.errors.KafkaError, OSError):
            return False
        finally:
            await admin.close()
