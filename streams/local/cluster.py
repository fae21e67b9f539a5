"""Kafka and Redis of one data folder: started together, found by every other command."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from schemas.errors import Remedy, StoplossError, UnavailableError
from streams.local.broker import KafkaBroker
from streams.local.cache import FileLock
from streams.local.folder import ClusterState, DataFolder, ProcessMark
from streams.local.process import STOPPED_AFTER_S
from streams.local.redis import RedisServer
from streams.local.server import Server

LAST_ONE_ENDED_WITHIN_S = STOPPED_AFTER_S + 10.0
# The servers outlive a starter that was killed by as long as their orderly end takes.
assert LAST_ONE_ENDED_WITHIN_S > STOPPED_AFTER_S

JOINED_WITHIN_S = 600.0
# Another process may be starting this folder, and downloading Kafka for it.


class AlreadyRunningError(StoplossError):
    """Another process runs this folder's cluster, or is starting it."""

    remedy = Remedy.WAIT

    def __init__(self, folder: DataFolder, state: ClusterState | None) -> None:
        what = (
            f"its Kafka runs at {state.bootstrap_servers}, started by process {state.starter.pid}"
            if state is not None
            else "another process is starting or stopping its Kafka"
        )
        super().__init__(f"{folder.path}: {what}; stop that one first or use another --dir")
        self.state = state


class Endpoints(msgspec.Struct, frozen=True):
    """Where clients connect."""

    bootstrap_servers: str
    redis_url: str | None


class LocalCluster:
    """A Kafka, and a Redis unless left out, of one data folder. They end with this process.

    Raises (on entry):
        AlreadyRunningError: another process has the folder.
        InvalidFieldError: the folder cannot be used.
        UnavailableError: a server cannot be had or started.
    """

    def __init__(self, folder: Path, *, redis: bool = True) -> None:
        self.folder = DataFolder(folder)
        self.broker = KafkaBroker(self.folder.kafka)
        self.redis = RedisServer(self.folder.redis) if redis else None
        self._lock = FileLock(self.folder.lock)

    @property
    def bootstrap_servers(self) -> str:
        """Where clients of Kafka begin; known once started."""
        return self.broker.bootstrap_servers

    @property
    def redis_url(self) -> str | None:
        """Where clients of Redis connect, None where it was left out; known once started."""
        return self.redis.url if self.redis is not None else None

    @property
    def endpoints(self) -> Endpoints:
        """Both."""
        return Endpoints(self.bootstrap_servers, self.redis_url)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.folder.make)
        if not self._lock.take():
            raise AlreadyRunningError(self.folder, self.folder.running())
        try:
            await self._until_the_last_one_has_ended()
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stop()

    @property
    def _servers(self) -> list[Server]:
        return [self.broker, *([self.redis] if self.redis is not None else [])]

    async def _start(self) -> None:
        started = await asyncio.gather(
            *(server.start() for server in self._servers), return_exceptions=True
        )
        for failure in started:
            if failure is not None:
                raise failure
        kafka = ProcessMark.of(self.broker.pid)
        self.folder.write_state(
            ClusterState(
                bootstrap_servers=self.bootstrap_servers,
                redis_url=self.redis_url,
                kafka=kafka,
                redis=ProcessMark.of(self.redis.pid) if self.redis is not None else None,
                starter=ProcessMark.of(os.getpid()),
                started=datetime.fromtimestamp(kafka.created_unix_s, UTC),
            )
        )

    async def _stop(self) -> None:
        try:
            self.folder.remove_state()  # first: nobody joins what is about to end
            await asyncio.gather(*(server.stop() for server in self._servers))
        finally:
            self._lock.free()

    async def _until_the_last_one_has_ended(self) -> None:
        state = self.folder.state()
        try:
            async with asyncio.timeout(LAST_ONE_ENDED_WITHIN_S):
                while state is not None and any(each.lives for each in state.processes):  # noqa: ASYNC110 - not our children
                    await asyncio.sleep(0.05)
        except TimeoutError:
            assert state is not None
            pids = ", ".join(str(each.pid) for each in state.processes if each.lives)
            raise UnavailableError(
                f"{self.folder.path}: servers of an earlier run do not end; end process {pids}"
            ) from None


@contextlib.asynccontextmanager
async def connect(
    folder: Path, *, redis: bool = True, environ: Mapping[str, str] = os.environ
) -> AsyncIterator[Endpoints]:
    """Give the Kafka to work with: a named one, else the folder's that runs, else start it.

    What was started here ends with the block; what was found goes on.

    Args:
        folder: looked at only where `STOPLOSS_BOOTSTRAP_SERVERS` names no Kafka.
        redis: start one as well, where something has to be started.

    Raises:
        NoDataFolderError: nothing is named, and there is no such folder.
        UnavailableError: it does not run and cannot be started.
    """
    if servers := environ.get("STOPLOSS_BOOTSTRAP_SERVERS"):
        yield Endpoints(servers, environ.get("STOPLOSS_REDIS_URL"))
        return
    data = DataFolder(folder)
    data.require()
    async with contextlib.AsyncExitStack() as stack:
        yield await _found_or_started(data, stack, redis=redis)


async def _found_or_started(
    data: DataFolder, stack: contextlib.AsyncExitStack, *, redis: bool
) -> Endpoints:
    try:
        async with asyncio.timeout(JOINED_WITHIN_S):
            while True:
                if (state := data.running()) is not None:
                    return Endpoints(state.bootstrap_servers, state.redis_url)
                with contextlib.suppress(AlreadyRunningError):  # it is being started, or stopped
                    cluster = LocalCluster(data.path, redis=redis)
                    return (await stack.enter_async_context(cluster)).endpoints
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AlreadyRunningError(data, None) from None
