"""One real Kafka broker, its own controller (KRaft), on 127.0.0.1."""

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import aiokafka.errors
from aiokafka.admin import AIOKafkaAdminClient

from schemas.errors import UnavailableError
from streams.local.cache import cache_folder
from streams.local.jars import KAFKA_VERSION, kafka_jars
from streams.local.java import Java, find_java
from streams.local.ports import HOST, free_ports, is_free
from streams.local.process import ServerProcess, tail

READY_AFTER_S = 60.0
# Two shared cores, a cold disk and no class archive yet: seen up to 8 s.
FORMATTED_AFTER_S = 60.0
STARTS = 3
# A free port can be taken by another process before Kafka has it; then with others again.

CLUSTER_ID = "c3RvcGxvc3MtbG9jYWwtMQ"  # 16 bytes in base64, as Kafka wants them: stoploss-local-1
AUTO_ARCHIVE_MAJOR = 19  # the first Java that keeps class archives in a form we use
NATIVE_ACCESS_MAJOR = 24  # from here on Java warns of native libraries that nobody allowed

SERVER_PROPERTIES = """\
# Written anew at each start; changes are lost.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
controller.listener.names=CONTROLLER
listeners=BROKER://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=BROKER://{host}:{port}
inter.broker.listener.name=BROKER
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}

# One node: nothing can be replicated.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# Few partitions and threads: less to open at each start.
num.partitions=4
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=1
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.dedupe.buffer.size=16777216

group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
# A dead letter carries a record of 1 MiB in base64.
message.max.bytes=4194304
replica.fetch.max.bytes=4194304
"""

LOG4J2_PROPERTIES = """\
status=error
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={log}
appender.file.filePattern={log}.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d %p %m (%c)%n
appender.file.policies.type=Policies
appender.file.policies.size.type=SizeBasedTriggeringPolicy
appender.file.policies.size.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=2
rootLogger.level=info
rootLogger.appenderRef.file.ref=file
# It says all 300 settings at each start.
logger.config.name=org.apache.kafka.common.config
logger.config.level=warn
"""


class KafkaBroker:
    """A broker whose data lives in `folder`. Not bound to an event loop.

    Started again on the same folder it has its data and, if it is free, its port again.
    """

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = folder.absolute()
        self.port = port
        self._port_is_fixed = port is not None
        self._process: ServerProcess | None = None
        self._new_archive: tuple[Path, Path] | None = None  # where Java writes it, where it goes

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
            UnavailableError: Kafka or Java cannot be had, the port is taken, or the broker died
                or does not answer; it says which, with the end of the log.
        """
        assert not self.running, "already started"
        java, jars = await find_java(), await kafka_jars()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(self._temporary, ignore_errors=True)  # left by a broker that was killed
        self._temporary.mkdir(mode=0o700)
        for left in range(STARTS - 1, -1, -1):
            self._choose_ports()
            await self._format(java, jars)
            await self._run(java, jars)
            try:
                await self._wait_until_it_answers()
            except BaseException:
                await self._end_now()
                if left and self._lost_its_port():
                    continue
                raise
            return

    async def stop(self) -> None:
        """Stop the broker in order, its data complete on disk; SIGKILL after a deadline."""
        if self._process is not None:
            await self._process.stop()
            self._keep_archive()

    async def kill(self) -> None:
        """Kill the broker with SIGKILL, for tests of what then happens."""
        if self._process is not None:
            await self._process.kill()

    # How it is started

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
    def log(self) -> Path:
        """What the broker logs."""
        return self.folder / "kafka.log"

    @property
    def output(self) -> Path:
        """What the Java process prints; mostly nothing."""
        return self.folder / "kafka.out"

    def _choose_ports(self) -> None:
        """Keep the last start's port where it is free: clients then find the broker again."""
        if self._port_is_fixed:
            assert self.port is not None
            if not is_free(self.port):
                raise UnavailableError(f"port {self.port} of {HOST} is taken; use another one")
            self._controller_port = free_ports(1)[0]
            return
        self.port, self._controller_port = free_ports(2)
        last = self._last_port()
        if last is not None and is_free(last):
            self.port = last

    def _last_port(self) -> int | None:
        with contextlib.suppress(OSError):
            found = re.search(
                rf"^advertised\.listeners=BROKER://{re.escape(HOST)}:(\d+)$",
                self._properties.read_text(),
                re.MULTILINE,
            )
            return int(found[1]) if found else None
        return None

    async def _format(self, java: Java, jars: list[Path]) -> None:
        """Write the settings, and make the data folder a formatted one."""
        self._properties.write_text(
            SERVER_PROPERTIES.format(
                host=HOST, port=self.port, controller_port=self._controller_port, data=self._data
            )
        )
        self._log4j2.write_text(LOG4J2_PROPERTIES.format(log=self.log))
        if (self._data / "meta.properties").exists():
            return
        command = [
            *self._java_command(java, jars, archive=self._archive(java)),
            *("kafka.tools.StorageTool", "format", "--config", str(self._properties)),
            *("--cluster-id", CLUSTER_ID, "--ignore-formatted"),
        ]
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            capture_output=True,
            text=True,
            timeout=FORMATTED_AFTER_S,
            check=False,
        )
        if done.returncode:
            raise UnavailableError(f"{self._data}: cannot be formatted: {done.stderr[-500:]!r}")

    @property
    def _log4j2(self) -> Path:
        return self.folder / "log4j2.properties"

    def _archive(self, java: Java) -> Path:
        """Return where this Java keeps Kafka's classes in the form they have in memory."""
        return cache_folder() / f"kafka-{KAFKA_VERSION}-java-{java.version}.jsa"

    def _java_command(self, java: Java, jars: list[Path], *, archive: Path | None) -> list[str]:
        command = [
            str(java.path),
            "-Xms64m",
            "-Xmx512m",
            "-XX:+UseSerialGC",  # the others keep threads and memory that one small node never needs
            "-XX:-UsePerfData",  # a file in /tmp for each Java process
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            f"-Djava.io.tmpdir={self._temporary}",  # native libraries are unpacked there
            f"-Dlog4j2.configurationFile={self._log4j2}",
            "-Xlog:disable",
            "-Xlog:all=error:stderr",
        ]
        if java.major >= NATIVE_ACCESS_MAJOR:
            command.append("--enable-native-access=ALL-UNNAMED")
        if archive is not None and archive.exists():
            command += ["-Xshare:auto", f"-XX:SharedArchiveFile={archive}"]
        return [*command, "-cp", os.pathsep.join(map(str, jars))]

    async def _run(self, java: Java, jars: list[Path]) -> None:
        archive = self._archive(java)
        command = self._java_command(java, jars, archive=archive)
        self._new_archive = None
        if java.major >= AUTO_ARCHIVE_MAJOR and not archive.exists():
            self._new_archive = self._temporary / "classes.jsa", archive
            command.insert(1, f"-XX:ArchiveClassesAtExit={self._new_archive[0]}")
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self._process = await ServerProcess.start(
            "kafka",
            [*command, "kafka.Kafka", str(self._properties)],
            output=self.output,
            environ=os.environ,
        )

    def _keep_archive(self) -> None:
        """Move the class archive that the ending Java wrote to where the next start looks."""
        if self._new_archive is not None and self._new_archive[0].exists():
            with contextlib.suppress(OSError):
                shutil.move(*self._new_archive)

    async def _wait_until_it_answers(self) -> None:
        try:
            async with asyncio.timeout(READY_AFTER_S):
                while not await self._answers():
                    if not self.running:
                        raise UnavailableError(f"kafka ended at its start; {self._why()}")
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise UnavailableError(
                f"kafka does not answer after {READY_AFTER_S:.0f} s; {self._why()}"
            ) from None

    async def _answers(self) -> bool:
        """Whether the broker answers a request of a client: it knows itself as a live broker."""
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
        return tail(self.log, self.output)

    def _lost_its_port(self) -> bool:
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(self._log_start)
            return b"Address already in use" in log.read()
        return False

    async def _end_now(self) -> None:
        if self._process is not None:
            await self._process.kill()
