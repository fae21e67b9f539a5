"""Apache Kafka's jars: which they are, and where they lie in our cache.

They and their digests stand in `kafka.lock` beside this file. So a first start fetches 46 files
and no POM (10 s less), and runs what was tested or nothing.
"""

import asyncio
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec

from schemas.errors import InvalidFieldError
from streams.local.cache import cache_folder, locked

KAFKA_VERSION = "4.1.1"
LOCK = Path(__file__).with_name("kafka.lock")

RESOLVED_WITHIN_S = 600.0
# How long a second process waits while the first one downloads.


class Jar(msgspec.Struct, frozen=True):
    """One line of `kafka.lock`."""

    sha256: str
    size_bytes: int
    coordinate: str  # group:artifact:version

    @property
    def filename(self) -> str:
        """The file's name in Maven's layout."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def locked_jars() -> list[Jar]:
    """Return the jars of `kafka.lock`, in the order of the class path."""
    lines = (line.split() for line in LOCK.read_text().splitlines() if not line.startswith("#"))
    return [Jar(sha256, int(size), coordinate) for sha256, size, coordinate in lines]


async def kafka_jars(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the files of Kafka's class path; downloads them when the cache lacks them.

    `STOPLOSS_MAVEN_REPOSITORY` names a mirror of Maven Central.

    Raises:
        InvalidFieldError: `STOPLOSS_MAVEN_REPOSITORY` is no URL.
        UnavailableError: they are not cached, and the repository cannot be reached.
        StoplossError: the repository has other files under these names.
    """
    jars = locked_jars()
    folder = cache_folder(environ) / f"kafka-{KAFKA_VERSION}"
    if not _is_complete(folder, jars):
        from streams.local.download import download  # noqa: PLC0415 - 0.2 s

        lock, purpose = folder.with_name(f"{folder.name}.lock"), "downloading Kafka"
        async with locked(lock, deadline_s=RESOLVED_WITHIN_S, purpose=purpose):
            if not _is_complete(folder, jars):  # by the one that held the lock before us
                repository = _repository(environ)
                abandoned = threading.Event()
                try:
                    await asyncio.to_thread(
                        download, jars, folder, repository, abandoned=abandoned.is_set
                    )
                finally:
                    abandoned.set()  # Ctrl-C: the thread would go on to the last jar
    return [folder / jar.filename for jar in jars]


def _repository(environ: Mapping[str, str]) -> str | None:
    named = environ.get("STOPLOSS_MAVEN_REPOSITORY") or None
    if named is not None and not named.startswith(("http://", "https://")):
        allowed = "a URL that begins with https:// or http://"
        raise InvalidFieldError("STOPLOSS_MAVEN_REPOSITORY", named, allowed)
    return named


def _is_complete(folder: Path, jars: list[Jar]) -> bool:
    try:
        return all((folder / jar.filename).stat().st_size == jar.size_bytes for jar in jars)
    except OSError:
        return False
