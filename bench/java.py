"""Kafka Streams on this machine: the jars, the job compiled, the command that runs it.

The Java runtime is the local broker's, which has no compiler; so Eclipse's comes as one more jar.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from streams.local.cache import locked
from streams.local.download import download
from streams.local.jars import KAFKA_VERSION, Jar
from streams.local.runtime import SILENT, WARNS_FROM_MAJOR, KafkaRuntime, kafka_runtime

PEERS = Path(__file__).with_name("peers")
LOCK = PEERS / "streams.lock"
SOURCE = PEERS / "StreamsApp.java"
COMPILED_WITHIN_S = 120.0
DOWNLOADED_WITHIN_S = 600.0

LOG4J2_PROPERTIES = """\
status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %m (%c)%n
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
"""


async def streams_command(
    folder: Path, settings: Mapping[str, str], options: tuple[str, ...] = ()
) -> list[str]:
    """Return the command that runs StreamsApp; what it needs is put into `folder`.

    Args:
        settings: of Kafka Streams, and our own, which begin with `bench.`.
        options: for Java.

    Raises:
        UnavailableError: Java or a jar cannot be had.
        SystemExit: the job does not compile.
    """
    runtime = await kafka_runtime()
    streams, compiler = await _jars(runtime)
    _write_settings(folder, settings)
    jars = [str(jar) for jar in (streams, *runtime.jars)]
    await _compile(runtime, compiler, jars, folder)
    return [
        str(runtime.java.path),
        "-XX:-UsePerfData",
        *(SILENT if runtime.java.major >= WARNS_FROM_MAJOR else ()),
        f"-Djava.io.tmpdir={folder}",
        f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
        *options,
        "-cp",
        os.pathsep.join([str(folder), *jars]),
        SOURCE.stem,
        str(folder / "streams.properties"),
    ]


def _write_settings(folder: Path, settings: Mapping[str, str]) -> None:
    folder.mkdir()
    (folder / "log4j2.properties").write_text(LOG4J2_PROPERTIES)
    lines = (f"{name}={value}\n" for name, value in settings.items())
    (folder / "streams.properties").write_text("".join(lines))


async def _jars(runtime: KafkaRuntime) -> list[Path]:
    """Return what `LOCK` names, in its order; downloads it when the cache lacks it."""
    lines = (line.split() for line in LOCK.read_text().splitlines() if not line.startswith("#"))
    jars = [Jar(sha256, int(size), coordinate) for sha256, size, coordinate in lines]
    folder = runtime.cache / f"kafka-streams-{KAFKA_VERSION}"
    paths = [folder / jar.filename for jar in jars]
    # Kafka's own lock: a download removes what another one has left half done.
    lock = runtime.cache / f"kafka-{KAFKA_VERSION}.lock"
    async with locked(lock, deadline_s=DOWNLOADED_WITHIN_S, purpose="downloading Kafka"):
        if not all(path.exists() for path in paths):
            repository = os.environ.get("STOPLOSS_MAVEN_REPOSITORY")
            await asyncio.to_thread(download, jars, folder, repository)
    return paths


async def _compile(runtime: KafkaRuntime, compiler: Path, jars: list[str], folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        str(runtime.java.path), "-jar", str(compiler), "-17", "-proc:none",
        "-cp", os.pathsep.join(jars), "-d", str(folder), str(SOURCE),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(COMPILED_WITHIN_S):
        said, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"{SOURCE.name} does not compile: {said.decode(errors='replace')}")
