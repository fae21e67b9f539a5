"""One real Kafka broker, its own controller (KRaft), on 127.0.0.1."""

import asyncio
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

import aiokafka.errors
from aiokafka.admin import AIOKafkaAdminClient

from schemas.errors import InvalidFieldError, UnavailableError
from streams.local.ports import HOST, free_ports, is_free
from streams.local.private import FOLDER_MODE, read_from, write_private
from streams.local.process import ServerProcess, tail
from streams.local.runtime import Archiving, KafkaRuntime, kafka_runtime
from streams.local.settings import LOG4J2_PROPERTIES, SERVER_PROPERTIES, property_value
from streams.local.storage import NODE_ID, format_storage

READY_WITHIN_S = 60.0
# 1.4 to 3 s on an idle machine; a test run that compiles beside it has taken 8.
STARTS = 3
# A free port can be taken by another process before Kafka has it; then with others again.


class KafkaBroker:
    """A broker whose data lives in `folder`. Not bound to an event loop.

    Started again on the same folder it has its data and, if it is free, its port again.
    """

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = folder.absolute()
        self.log = self.folder / "kafka.log"
        self.port = port
        self._fixed_port = port
        self._process: ServerProcess | None = None
        self._archiving: Archiving | None = None

    def __repr__(self) -> str:
        return f"<KafkaBroker {self.folder} port={self.port} {self._process}>"

    @property
    def bootstrap_servers(self) -> str:
        """Where clients begin, such as 127.0.0.1:41234; known once started."""
        assert self.port is not None
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the Java process."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives; a broker can also have died by itself."""
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
        """Start the broker; returns when it answers.

        Raises:
            InvalidFieldError: Kafka cannot have its data in a folder of that name.
            UnavailableError: Kafka or Java cannot be had, the port is taken, or the broker died
                or does not answer; it says which, with the end of the log.
        """
        assert not self.running, "already started"
        runtime = await kafka_runtime()
        self._prepare_folder()
        await asyncio.to_thread(format_storage, runtime, self._data, log4j2=self._log4j2)
        for left in range(STARTS - 1, -1, -1):
            self.port, controller_port = self._choose_ports()
            self._write_settings(self.port, controller_port)
            logged_bytes = self.log.stat().st_size if self.log.exists() else 0
            try:
                await self._run(runtime)
                await self._wait_until_it_answers()
            except BaseException as error:
                await self.kill()
                lost_its_port = b"Address already in use" in read_from(self.log, logged_bytes)
                if isinstance(error, UnavailableError) and lost_its_port and left:
                    continue
                raise
            break
        if self._archiving is not None:
            await self._archiving.start()

    async def stop(self) -> None:
        """Stop the broker in order, its data complete on disk; SIGKILL after a deadline."""
        if self._process is not None:
            await self._process.stop()
        if self._archiving is not None:
            await self._archiving.finish()

    async def kill(self) -> None:
        """Kill the broker with SIGKILL, for tests of what then happens."""
        if self._process is not None:
            await self._process.kill()
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

    async def _run(self, runtime: KafkaRuntime) -> None:
        self._archiving = None if runtime.archive.exists() else Archiving(runtime, self._temporary)
        command = runtime.command(
            "kafka.Kafka",
            str(self._properties),
            temporary=self._temporary,
            log4j2=self._log4j2,
            options=self._archiving.options if self._archiving is not None else (),
        )
        self._process = await ServerProcess.start("kafka", command, output=self._output)

    async def _wait_until_it_answers(self) -> None:
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                while not await self._answers():
                    if not self.running:
                        raise UnavailableError(f"kafka ended at its start; {self._why()}")
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise UnavailableError(
                f"kafka does not answer after {READY_WITHIN_S:.0f} s; {self._why()}"
            ) from None

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

    def _why(self) -> str:
        return tail(self.log, self._output)
