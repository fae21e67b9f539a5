"""Which Kafka a command works with: a named one, else the one of a data folder, started if need be."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec

from schemas.errors import UnavailableError
from schemas.topics import PARTITIONS_LOCAL
from streams.cli.exits import say
from streams.kafka.reader import start_client
from streams.kafka.settings import Settings, load_settings, named_settings
from streams.local.cluster import connect
from streams.local.folder import DataFolder

RUN_FOLDERS = "demo-*"
RETRY_EVERY_S = 0.25


class Place(msgspec.Struct, frozen=True):
    """Where everything is; `folder` is None for a Kafka of somebody else's."""

    settings: Settings
    folder: Path | None = None
    redis_url: str | None = None


@contextlib.asynccontextmanager
async def kafka_of(folder: Path, timeout_s: float) -> AsyncIterator[Place]:
    """Give the Kafka to read from or write to; it answered.

    Raises:
        InvalidFieldError: a setting is wrong.
        NoDataFolderError: none is named, and there is no such folder.
        UnavailableError: it does not answer in time, or cannot be started.
    """
    if kafka_is_named():
        place = Place(settings=load_settings())
        await _answers(place.settings, timeout_s)
        yield place
        return
    chosen = run_folder(folder)
    if DataFolder(chosen).exists and DataFolder(chosen).running() is None:
        say(f"starting the Kafka of {chosen}")
    async with connect(chosen, redis=False, environ={}) as endpoints:
        settings = local_settings(endpoints.bootstrap_servers)
        await _answers(settings, timeout_s)
        yield Place(settings=settings, folder=chosen, redis_url=endpoints.redis_url)


def kafka_is_named(environ: Mapping[str, str] | None = None) -> bool:
    """Whether a variable or `stoploss.toml` says where Kafka is."""
    return "bootstrap_servers" in named_settings(environ)


def local_settings(bootstrap_servers: str) -> Settings:
    """Return the settings for a Kafka of ours on this machine: what is for others' is left out."""
    named = named_settings()
    return load_settings(
        bootstrap_servers=bootstrap_servers,
        security_protocol="PLAINTEXT",
        partitions=None if "partitions" in named else PARTITIONS_LOCAL,
        replication=1,
    )


def run_folder(folder: Path) -> Path:
    """Return `folder` itself, or the run folder of a demo below it: what runs, else the newest."""
    folders = [folder, *sorted(folder.glob(RUN_FOLDERS))]
    running = [each for each in folders if DataFolder(each).running() is not None]
    if running:
        return running[0] if running[0] == folder else running[-1]
    used = [(started, each) for each in folders if (started := _last_start(each)) is not None]
    return max(used)[1] if used else folder


def _last_start(folder: Path) -> float | None:
    with contextlib.suppress(OSError):
        return os.stat(DataFolder(folder).kafka / "server.properties").st_mtime  # noqa: PTH116
    return None


async def _answers(settings: Settings, timeout_s: float) -> None:
    """Wait until a broker answers: it may be starting, or choosing another leader.

    Raises:
        UnavailableError: none does within `timeout_s`.
    """
    why = "no answer"
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    client = await start_client(settings, [], "cli")
                except UnavailableError as error:
                    why = repr(error.__cause__)
                else:
                    await client.close()
                    return
                await asyncio.sleep(RETRY_EVERY_S)
    except TimeoutError:
        raise UnavailableError(
            f"Kafka at {settings.bootstrap_servers} does not answer within {timeout_s:g} s ({why})"
        ) from None
