"""Redis as the view writes it: everything that one read changes, in one step.

Two views of one system do no harm. Each time that one has written is a turn, and only who knows the last
one may write (`apply.lua`): whoever comes second changes nothing, learns of it, and stands by. A Redis
that has come back older than we left it is found out the same way.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import msgspec
import redis.asyncio
from msgspec import Struct
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from schemas.errors import InvalidFieldError, Remedy, StoplossError, UnavailableError
from streams.view.changes import Command
from streams.view.keys import Keys
from streams.view.meta import (
    BROKEN_OFF,
    CLEARING_PREFIX,
    OTHER_POSITIONS,
    State,
    Step,
    begun,
    is_readable,
    judge,
    standing_fields,
)

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 20.0
SCAN_COUNT = 1_000
ANY_TURN = ""
# A view that lives writes twice a second.
SILENT_S = 3.0
LOOK_EVERY_S = 0.5
WITHIN_SCRIPT = re.compile(r"^.*@user_script: ?\d+: -?| script: \w+, on @user_script:\d+\.?")
# What Redis answers where a key has another type, text in the place of a number, or one that we have
# not counted to.
DAMAGED = (
    "WRONGTYPE",
    "value is not an integer",
    "value is not a valid float",
    "would overflow",
)
# What the script answers where it finds what nobody of us has left.
NOT_OURS = {
    b"meta": "`meta` does not say what the view has written",
    b"positions": OTHER_POSITIONS,
    b"broken off": BROKEN_OFF,
}
_APPLY = files("streams.view").joinpath("apply.lua").read_text("utf-8")


class RedisUnavailableError(UnavailableError):
    """Redis is away, or does not take what we write."""


class DamagedViewError(RedisUnavailableError):
    """Somebody else has written to the view's keys: they cannot be read until they are built anew."""


class OvertakenError(StoplossError):
    """Redis is not where we left it: another view writes, a rebuild has begun, or it has gone back."""

    remedy = Remedy.RESTORE


class DamagedError(OvertakenError):
    """A key is not what we made it: somebody else has written to it."""


class Standing(Struct, frozen=True):
    """Where a view goes on."""

    fence: str
    turn: str
    state: State
    positions: dict[str, int]
    newest_ms: dict[str, int]
    began_ms: int
    at_ms: int
    meta: dict[str, str]
    rebuilds_because: str | None = None


def redis_client(url: str) -> Any:  # noqa: ANN401 - its types take every answer for text or bytes
    """Return a client; it connects when it is used. Every text in an answer is bytes.

    Raises:
        InvalidFieldError: the address is none.
    """
    try:
        return redis.asyncio.Redis.from_url(
            url,
            protocol=2,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=ANSWER_TIMEOUT_S,
            # What has failed is asked anew by whoever knows whether it may have happened.
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise InvalidFieldError("redis_url", shown(url), f"redis://host:port/0 ({error})") from None


def shown(url: str) -> str:
    """Return an address without the password in it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


@contextlib.contextmanager
def answering(url: str) -> Iterator[None]:
    """Have a Redis that does not answer, or refuses, raise what the rest of us knows.

    Raises:
        RedisUnavailableError: it is away, still loads, is full, or only a replica.
    """
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        # Where in the script it was is different each time, and says nothing to whoever reads it.
        why = WITHIN_SCRIPT.sub("", str(error)) or type(error).__name__
        raise RedisUnavailableError(f"Redis at {shown(url)}: {why}") from error


@contextlib.contextmanager
def damaged() -> Iterator[None]:
    """Have what only somebody else can have written raise what a rebuild mends.

    Raises:
        DamagedError: a key has another type than ours, or no number where we keep one.
    """
    try:
        yield
    except ResponseError as error:
        if not any(said in str(error) for said in DAMAGED):
            raise
        raise DamagedError("a key has another type than we gave it") from error
    except (ValueError, KeyError) as error:
        raise DamagedError(f"a key holds what we did not write ({error})") from error


class Store:
    """One system's keys in one Redis."""

    def __init__(self, url: str, keys: Keys) -> None:
        self._url, self.keys = url, keys
        self._redis = redis_client(url)
        self._apply = self._redis.register_script(_APPLY)
        self._watched = (keys.meta, keys.positions, keys.progress)
        self._cluster = ""
        # Of the last time that we wrote: the fence, the turn, which only who knows it may write, and
        # what else is in meta.
        self._fence, self._turn = "", ""
        self._meta: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Store {shown(self._url)} {self.keys.root}>"

    async def close(self) -> None:
        """Let go of the connections."""
        await self._redis.aclose()

    async def begin(self, cluster: str, now_ms: int, wanted: str | None = None) -> Standing:
        """Return where to go on; keys that are not ours, or too old, are deleted first.

        Args:
            cluster: the id of the Kafka cluster that is read.
            now_ms: milliseconds since 1970.
            wanted: why there has to be a rebuild, where there has to.

        Raises:
            OvertakenError: another view did the same at the same time.
            DamagedError: what it says of where it is cannot be read.
            RedisUnavailableError: Redis is away, or a view of another cluster is at work there.
        """
        with answering(self._url), damaged():
            meta = await self._found()
            if self._is_as_we_left_it(meta, cluster) and meta.get("cluster") != cluster:
                # No view of another cluster has written that: it would have put up a fence.
                wanted = wanted or f"`meta` names Kafka cluster {meta.get('cluster')}"
                meta["cluster"] = cluster
            verdict = judge(meta, cluster, now_ms, wanted)
            if verdict.step is Step.LEAVE:
                raise RedisUnavailableError(
                    f"Redis at {shown(self._url)}: {verdict.why}; "
                    f"give one of them another Redis, or another topic_prefix"
                )
            fence = meta.get("fence", "")
            if verdict.step is Step.REBUILD:
                change = begun(meta, cluster, now_ms, verdict.why)
                # Whoever else begins at this moment has seen the same fence: one of us comes second.
                await self._done(fence, ANY_TURN, [_hset(self.keys.meta, change)])
                fence = change["fence"]
            if verdict.step is not Step.FOLLOW:
                fence = await self._clear(fence)
            standing = await self._standing(fence, verdict.why or None)
            self._cluster, self._fence, self._turn = cluster, fence, standing.turn
            self._meta = standing_fields(standing.meta)
            return standing

    def _is_as_we_left_it(self, meta: Mapping[str, str], cluster: str) -> bool:
        ours = (self._fence, self._turn, self._cluster)
        return (meta.get("fence"), meta.get("turn"), cluster) == ours

    async def _found(self) -> dict[str, str]:
        """Return the fields of `meta`; where nobody can read them, it goes, and there are none."""
        meta: dict[str, str] | None = None
        with contextlib.suppress(DamagedError), damaged():
            meta = _texts(await self._redis.hgetall(self.keys.meta))
        if meta is not None and is_readable(meta):
            return meta
        await self._redis.unlink(self.keys.meta)
        return {}

    async def _standing(self, fence: str, why: str | None) -> Standing:
        meta = _texts(await self._redis.hgetall(self.keys.meta))
        if meta.get("fence") != fence:
            raise OvertakenError("another view has begun")
        positions = _texts(await self._redis.hgetall(self.keys.positions))
        progress = _texts(await self._redis.hgetall(self.keys.progress))
        return Standing(
            fence=fence,
            turn=meta["turn"],
            state=State(meta["state"]),
            positions={place: int(offset) for place, offset in positions.items()},
            newest_ms={place: told_newest_ms(told) for place, told in progress.items()},
            began_ms=int(meta["began_ms"]),
            at_ms=int(meta["at_ms"]),
            meta=meta,
            rebuilds_because=why,
        )

    async def _clear(self, fence: str) -> str:
        """Delete all keys but `meta`, and open the rest for writing; return the fence from then on."""
        async for some in self._scanned():
            await self._done(fence, ANY_TURN, [[b"UNLINK", *some]])
        opened = fence.removeprefix(CLEARING_PREFIX)
        change = _hset(self.keys.meta, {"fence": opened, "state": State.REBUILDING})
        await self._done(fence, ANY_TURN, [change])
        return opened

    async def _scanned(self) -> AsyncIterator[list[bytes]]:
        cursor = 0
        while True:
            cursor, found = await self._redis.scan(
                cursor, match=f"{self.keys.root}*", count=SCAN_COUNT
            )
            if some := [key for key in found if key != self.keys.meta]:
                yield some
            if cursor == 0:
                return

    async def look_up(self, wanted: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
        """Return fields of hashes.

        Raises:
            DamagedError: a key is none.
            RedisUnavailableError: Redis is away.
        """
        if not wanted:
            return []
        with answering(self._url), damaged():
            pipe = self._redis.pipeline(transaction=False)
            for key, field in wanted:
                pipe.hget(key, field)
            found: list[bytes | None] = await pipe.execute()
            return found

    async def apply(
        self, fence: str, commands: Iterable[Command], told: Mapping[bytes, Mapping[str, str]]
    ) -> None:
        """Do all of it in one step.

        Where it fails in the middle, since a key is not what we made it, what came before stays, and
        a mark with it: whoever writes next is told that the keys are damaged.

        Args:
            fence: of the standing that this view began with.
            commands: of `Changes`.
            told: by key, the fields of meta, positions and progress that change.

        Raises:
            OvertakenError: Redis is not where we left it.
            DamagedError: nor are its keys.
            RedisUnavailableError: Redis is away; whether it happened, the positions tell.
        """
        fields = [_hset(key, changed) for key, changed in told.items() if changed]
        with answering(self._url):
            self._turn = await self._done(fence, self._turn, [*commands, *fields])
        self._meta |= standing_fields(told.get(self.keys.meta, {}))

    async def until_silent(self) -> None:
        """Wait until nobody else has written for a while.

        Raises:
            RedisUnavailableError: Redis is away.
        """
        last, silent_s = b"", 0.0
        while silent_s < SILENT_S:
            await asyncio.sleep(LOOK_EVERY_S)
            with answering(self._url):
                turn = await self._redis.hget(self.keys.meta, "turn") or b""
            silent_s = silent_s + LOOK_EVERY_S if turn == last else 0.0
            last = turn

    async def _done(self, fence: str, turn: str, commands: Sequence[Command]) -> str:
        """Run the script; return the turn afterwards."""
        arguments: list[str | bytes] = [
            fence,
            turn,
            msgspec.msgpack.encode([[len(each) for each in command] for command in commands]),
            b"".join(each for command in commands for each in command),
            msgspec.msgpack.encode(self._meta),
        ]
        with damaged():
            answer = await self._apply(keys=list(self._watched), args=arguments)
        if (why := NOT_OURS.get(answer)) is not None:
            raise DamagedError(why)
        if isinstance(answer, bytes):
            raise OvertakenError(f"Redis is not where we left it ({answer.decode()})")
        return str(answer)


def told_newest_ms(told: str) -> int:
    """Return the time of the newest record shown, of a field of `progress`."""
    return int(told.partition(" ")[2])


def _hset(key: bytes, fields: Mapping[str, str]) -> Command:
    return [b"HSET", key, *(each.encode() for pair in fields.items() for each in pair)]


def _texts(found: Mapping[bytes, bytes]) -> dict[str, str]:
    return {field.decode(): value.decode() for field, value in found.items()}
