"""Holds what the view shows against one that reads the topics from their beginning into another Redis.

All keys are compared by what they hold, but `meta` and `progress`: when the view looked, and why it began
anew. When a key ends is not compared: it follows from the records, and the clock of Redis.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from streams.kafka.settings import Settings
from streams.local.redis import RedisServer
from tests.faults.onlookers import Onlookers
from tests.faults.result import Viewed
from tests.integration.kafka_world import World, eventually
from tests.integration.view_world import Shown, differing, running_view, shown

DIFFERENCES_MAX = 20
REBUILDS = "view: rebuilds: "


async def hold(
    settings: Settings, onlookers: Onlookers, folder: Path, within_s: float
) -> tuple[Viewed, list[str]]:
    """Compare, once nothing is written any more.

    Where keys were damaged in a way that nothing finds out, the view is built anew by command as well,
    and only then has to show everything.

    Returns:
        What was compared, and what differs.
    """
    world = World(settings)
    async with (
        _anew(world, folder, within_s) as expected,
        shown(world, onlookers.redis.url) as found,
    ):
        await found.until_all_is_shown(within_s)
        damaged = 0
        if onlookers.damaged:
            damaged = len(differing(expected, await found.dump()))
            await _rebuild(onlookers, found, within_s)
        names = differing(expected, await found.dump())
    viewed = Viewed(keys=len(expected), rebuilds=onlookers.said(REBUILDS), damaged=damaged)
    return viewed, [f"the view: {name} is another one" for name in names[:DIFFERENCES_MAX]]


@contextlib.asynccontextmanager
async def _anew(world: World, folder: Path, within_s: float) -> AsyncIterator[dict[str, Any]]:
    """Give what all keys hold in another Redis, of a view that nothing happens to."""
    async with RedisServer(folder) as server, shown(world, server.url) as undisturbed:
        async with running_view(world, server.url):
            await undisturbed.until_all_is_shown(within_s)
        yield await undisturbed.dump()


async def _rebuild(onlookers: Onlookers, found: Shown, within_s: float) -> None:
    """Do what an operator does who knows that somebody has written into the view."""
    await onlookers.leave(onlookers.view)
    anew = await onlookers.start_view("--rebuild")

    async def has_rebuilt() -> bool:
        return anew.said("view: rebuilt in") > 0

    await eventually(has_rebuilt, within_s)
    await found.until_all_is_shown(within_s)
