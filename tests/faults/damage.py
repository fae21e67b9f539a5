"""Faults of those who read what the ledgers write: agents, the view, and the Redis of the view.

What is done to Redis is one of two. What the view has to find out is seen to be found out: its own line
says so. What nothing can find out, a key that is gone or holds another value, is mended on command, and
is held against a view made anew after that (`shown`).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import psutil

from streams.view.keys import Keys
from streams.view.store import redis_client
from tests.faults.arena import CALM, Arena

# Agents take seconds to begin, and half a minute where the machine has other work.
BEGINS_WITHIN_S = 90.0
FOUND_OUT_WITHIN_S = 90.0
KEYS_MAX = 12
KILLED = "worker ended with -9"
# What these two send follows from one record each, whatever else is in its batch: who dies when it is sent
# sends it once more. Of baselines and reports a batch sends the last word alone.
SAY_AGAIN = ("alerts", "governance")
GARBAGE = b"\xff\x00 nothing of ours"


async def kill_agent(arena: Arena) -> bool:
    """Kill the worker of an agent at whatever it is doing; its supervisor begins the next."""
    with _one_alone(arena, list(arena.onlookers.agents)) as name:
        agent = arena.onlookers.agents[name]
        await arena.until(lambda: bool(agent.workers()), BEGINS_WITHIN_S)
        await asyncio.sleep(arena.random.random())
        before = agent.said(KILLED)
        for worker in agent.workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        return await arena.until(lambda: agent.said(KILLED) > before, FOUND_OUT_WITHIN_S)


async def kill_agents(arena: Arena) -> bool:
    """Kill all agents at once, at whatever they are doing."""
    agents = arena.onlookers.agents
    await arena.until(lambda: all(each.workers() for each in agents.values()), BEGINS_WITHIN_S)
    await asyncio.sleep(arena.random.random())
    killed = await asyncio.gather(*(each.kill() for each in agents.values()))
    for name in list(agents):
        await arena.onlookers.start_agent(name)
    return all(killed)


async def kill_agent_at(arena: Arena, point: str) -> bool:
    """Have an agent die at a named point, and go on from there."""
    onlookers = arena.onlookers
    names = SAY_AGAIN if point == "agent_after_outputs" else list(onlookers.agents)
    with _one_alone(arena, names) as name:
        await onlookers.agents[name].kill()
        times = 1 if point == "agent_after_restore" else arena.random.randint(1, 4)
        armed = await onlookers.start_agent(name, f"{point}:{times}")
        await arena.until(lambda: armed.died_at[point] > 0, BEGINS_WITHIN_S)
        await armed.kill()
        await onlookers.start_agent(name)
        return armed.died_at[point] > 0


@contextlib.contextmanager
def _one_alone(arena: Arena, names: Sequence[str]) -> Iterator[str]:
    """Give an agent to which nothing else is done meanwhile."""
    taken = arena.onlookers.taken
    name = arena.random.choice([each for each in names if each not in taken])
    taken.add(name)
    try:
        yield name
    finally:
        taken.discard(name)


async def kill_view(arena: Arena) -> bool:
    """Kill the view at whatever it is doing."""
    view = arena.onlookers.view
    await arena.until(lambda: view.said("view: follows") > 0, BEGINS_WITHIN_S)
    await asyncio.sleep(arena.random.random())
    was_alive = await view.kill()
    await arena.onlookers.start_view()
    return was_alive


async def kill_redis(arena: Arena) -> bool:
    """Kill Redis, and start it again on what it left; the view has to go on."""
    redis = arena.onlookers.redis
    pid, url = redis.pid, redis.url
    async with _shown(arena) as (client, keys):
        if await _has_come_to(client, keys, 1) is None:
            return False
    await redis.kill()
    await asyncio.sleep(arena.random.random())
    await redis.start()
    if redis.url != url:  # somebody has taken its port meanwhile
        await arena.onlookers.view.kill()
        await arena.onlookers.start_view()
    async with _shown(arena) as (client, keys):
        at = await _turn(client, keys)
        gone_on = await _has_come_to(client, keys, at + 1)
    return redis.pid != pid and gone_on is not None


async def flush_redis(arena: Arena) -> bool:
    """Empty Redis; the view has to find that out, and fill it again."""

    async def empty(client: Any, _keys: Keys) -> None:  # noqa: ANN401 - redis has no types
        await client.flushall()

    return await _found_out(arena, empty, "view: rebuilds: Redis has nothing of these topics")


async def set_positions_back(arena: Arena) -> bool:
    """Set back what Redis says of how far it is; the view has to find that out, and begin anew."""

    async def set_back(client: Any, keys: Keys) -> None:  # noqa: ANN401 - redis has no types
        positions = await client.hgetall(keys.positions)
        moved = [place for place, at in sorted(positions.items()) if int(at) > 0]
        for place in arena.random.sample(moved, -(-len(moved) // 2)):
            await client.hset(keys.positions, place, arena.random.randrange(int(positions[place])))

    return await _found_out(arena, set_back, "view: rebuilds: the positions are not those")


async def set_turn_back(arena: Arena) -> bool:
    """Set back the mark of who wrote last; the view has to find that out, and go on from there."""

    async def set_back(client: Any, keys: Keys) -> None:  # noqa: ANN401 - redis has no types
        await client.hincrby(keys.meta, "turn", -arena.random.randint(1, 1_000))

    return await _found_out(arena, set_back, "view: stands by")


async def damage_meta(arena: Arena) -> bool:
    """Put something else where the view says whose the keys are; it has to find that out."""

    async def overwrite(client: Any, keys: Keys) -> None:  # noqa: ANN401 - redis has no types
        if arena.random.random() < 0.5:
            await client.hset(keys.meta, "at_ms", GARBAGE)
            await client.hset(keys.meta, "turn", GARBAGE)
        else:
            await client.set(keys.meta, GARBAGE)

    return await _found_out(arena, overwrite, "view: rebuilds: ")


async def delete_keys(arena: Arena) -> bool:
    """Delete some keys; nothing finds that out."""

    async def delete(client: Any, name: bytes) -> None:  # noqa: ANN401 - redis has no types
        await client.unlink(name)

    return await _damaged(arena, delete)


async def overwrite_keys(arena: Arena) -> bool:
    """Have some keys hold what is not ours, of another type or of their own.

    One of another type is found out when the view writes it next, and the others never.
    """

    async def overwrite(client: Any, name: bytes) -> None:  # noqa: ANN401 - redis has no types
        kind = (await client.type(name)).decode()
        if arena.random.random() < 0.5:
            await client.unlink(name)
            await (client.rpush if kind == "string" else client.set)(name, GARBAGE)
        elif kind == "hash":
            fields = sorted(await client.hkeys(name))
            await client.hset(name, arena.random.choice(fields), GARBAGE)
        elif kind == "zset":
            await client.zadd(name, {GARBAGE: 1})
        elif kind == "set":
            await client.sadd(name, GARBAGE)
        elif kind == "list":
            await client.lset(name, 0, GARBAGE)
        else:
            await client.set(name, GARBAGE)

    return await _damaged(arena, overwrite)


async def _found_out(
    arena: Arena,
    damage: Callable[[Any, Keys], Awaitable[None]],
    says: str,
) -> bool:
    """Damage what is there; whether the view has said that it found out."""
    onlookers = arena.onlookers
    async with _shown(arena) as (client, keys):
        if await _has_come_to(client, keys, 1) is None:
            return False
        before = onlookers.said(says)
        await damage(client, keys)
    return await arena.until(lambda: onlookers.said(says) > before, FOUND_OUT_WITHIN_S)


async def _damaged(arena: Arena, damage: Callable[[Any, bytes], Awaitable[None]]) -> bool:
    """Damage some of the keys in which people look."""
    async with _shown(arena) as (client, keys):
        if await _has_come_to(client, keys, 1) is None:
            return False
        own = {keys.meta, keys.positions, keys.progress}
        found = [key async for key in client.scan_iter(match=f"{keys.root}*", count=1_000)]
        names = sorted(set(found) - own)
        chosen = arena.random.sample(names, min(KEYS_MAX, len(names)))
        for name in chosen:
            await damage(client, name)
    arena.onlookers.damaged = arena.onlookers.damaged or bool(chosen)
    return bool(chosen)


@contextlib.asynccontextmanager
async def _shown(arena: Arena) -> AsyncIterator[tuple[Any, Keys]]:
    """Give a client of the Redis, and the names of the keys."""
    client = redis_client(arena.onlookers.redis.url)
    try:
        yield client, Keys(arena.settings(CALM).topic_prefix)
    finally:
        await client.aclose()


async def _turn(client: Any, keys: Keys) -> int:  # noqa: ANN401 - redis has no types
    return int(await client.hget(keys.meta, "turn") or 0)


async def _has_come_to(client: Any, keys: Keys, turn: int) -> int | None:  # noqa: ANN401 - as above
    """Wait until the view has written so often; None where it did not in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FOUND_OUT_WITHIN_S):
            while True:
                # A rebuild begins by deleting, and what it has deleted cannot be damaged.
                if (at := await _turn(client, keys)) >= turn and await client.exists(keys.tasks):
                    return at
                await asyncio.sleep(0.1)
    return None
