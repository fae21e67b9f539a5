"""Runs `stoploss` as a process of its own, as people do."""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from streams.kafka.settings import Settings

WITHIN_S = 100.0


@dataclass(frozen=True)
class Ran:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def answer(self) -> Any:  # noqa: ANN401 - any JSON
        """What --json printed: one document and nothing else."""
        return msgspec.json.decode(self.out)


def environ(settings: Settings | None = None, **more: str) -> dict[str, str]:
    """Return the environment of a command, with nothing of ours but what is given."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("STOPLOSS_")}
    cache = os.environ.get("STOPLOSS_CACHE_DIR")
    if cache is not None:
        own["STOPLOSS_CACHE_DIR"] = cache
    if settings is not None:
        own["STOPLOSS_BOOTSTRAP_SERVERS"] = settings.bootstrap_servers
        own["STOPLOSS_TOPIC_PREFIX"] = settings.topic_prefix
        own["STOPLOSS_PARTITIONS"] = str(settings.partitions)
    return own | more


async def start(
    *arguments: str,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdout: int = asyncio.subprocess.PIPE,
) -> asyncio.subprocess.Process:
    """Start a command that runs until it is told to stop."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "streams.cli.main",
        *arguments,
        env=dict(env),
        cwd=cwd,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )


async def stoploss(
    *arguments: str, env: Mapping[str, str], cwd: Path | None = None, within_s: float = WITHIN_S
) -> Ran:
    """Run a command to its end."""
    process = await start(*arguments, env=env, cwd=cwd)
    try:
        async with asyncio.timeout(within_s):
            out, err = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())
