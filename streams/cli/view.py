"""The view of the system that is meant: its queries, or why it cannot be asked."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from msgspec import Struct

from schemas.errors import UnavailableError
from streams.cli.place import Place
from streams.insight.numbers import duration
from streams.kafka.reader import close_client, start_client
from streams.kafka.settings import named_settings
from streams.kafka.several import cluster_id
from streams.view.answers import Freshness
from streams.view.meta import State
from streams.view.queries import Queries, opened
from streams.view.store import DamagedViewError, RedisUnavailableError, shown

# A view that keeps up is less than a second old. One that lags longer than this would have people
# take yesterday's verdict for today's; the topics take longer to read, and are as old as nothing.
TOO_OLD_MS = 10_000
# Whoever asks a Redis that hangs gets the answer of the topics after this.
ANSWERS_WITHIN_S = 3.0

START_REDIS = "start Redis, or name the right one in STOPLOSS_REDIS_URL"
RUN_A_VIEW = "stoploss view, where none runs; its log says what it waits for"


class NoViewError(UnavailableError):
    """A view was asked for, and there is none to read from."""


class NotInViewError(UnavailableError):
    """The view does not hold all that was asked for; the topics may."""


class View(Struct, frozen=True):
    """A view to read from, and how old it was when it was opened.

    `too_old`: why it shows not what holds now; None where it does.
    """

    queries: Queries
    freshness: Freshness
    too_old: str | None = None


class NoView(Struct, frozen=True):
    """Why there is no view to read from, and what mends it.

    `is_expected`: somebody has named a Redis, or it has a view of this very system; where neither
    is so, nobody runs one.
    """

    why: str
    remedy: str
    is_expected: bool = True


@contextlib.asynccontextmanager
async def view_of(place: Place, *, old_too: bool = False) -> AsyncIterator[View | NoView]:
    """Give the view of the system at `place`, or why it cannot be read; starts no Redis.

    A view that is away, of another Kafka cluster, being rebuilt, or more than `TOO_OLD_MS` old is
    none.

    Args:
        place: where Kafka is, which has answered.
        old_too: give one that is too old as well.

    Raises:
        InvalidFieldError: the address of Redis is none.
        UnavailableError: Kafka does not answer.
    """
    async with contextlib.AsyncExitStack() as stack:
        none: NoView | None = None
        for url, is_named in redis_urls(place):
            queries = opened(url, place.settings.topic_prefix, _now_ms)
            found = await _looked_at(
                await stack.enter_async_context(queries), url, is_named=is_named
            )
            if isinstance(found, View):
                found = await _judged(found, place, url, old_too=old_too, is_named=is_named)
            if isinstance(found, View):
                yield found
                return
            none = none or found
        yield none or NoView(
            f"no Redis runs in {place.folder}", "stoploss up has one", is_expected=False
        )


def redis_urls(place: Place) -> list[tuple[str, bool]]:
    """Return where the view may be, in the order to look; and whether anybody has named that Redis.

    That of a setting, then the data folder's own one, where `stoploss up` has its view.
    """
    urls = []
    if "redis_url" in named_settings():
        urls.append((place.settings.redis_url, True))
    if place.redis_url is not None:
        urls.append((place.redis_url, True))
    if place.folder is None and not urls:
        urls.append((place.settings.redis_url, False))
    return urls


async def _looked_at(queries: Queries, url: str, *, is_named: bool) -> View | NoView:
    try:
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            freshness = await queries.freshness()
    except DamagedViewError as error:
        return NoView(str(error), RUN_A_VIEW, is_expected=is_named)
    except RedisUnavailableError as error:
        return NoView(str(error), START_REDIS, is_expected=is_named)
    except TimeoutError:
        why = f"Redis at {shown(url)} does not answer within {ANSWERS_WITHIN_S:g} s"
        return NoView(why, START_REDIS, is_expected=is_named)
    if freshness is None:
        why = f"Redis at {shown(url)} has nothing of these topics"
        return NoView(why, RUN_A_VIEW, is_expected=is_named)
    return View(queries, freshness)


async def _judged(
    view: View, place: Place, url: str, *, old_too: bool, is_named: bool
) -> View | NoView:
    cluster = await _cluster(place)
    if view.freshness.cluster != cluster:
        why = f"Redis at {shown(url)} has the view of Kafka cluster {view.freshness.cluster}"
        return NoView(f"{why}; this one is {cluster}", START_REDIS, is_expected=is_named)
    why_not = too_old(view.freshness)
    if why_not is None:
        return view
    if old_too and view.freshness.age_ms is not None:
        return View(view.queries, view.freshness, why_not)
    return NoView(why_not, RUN_A_VIEW)


async def _cluster(place: Place) -> str:
    client = await start_client(place.settings, [], "cli")
    try:
        return await cluster_id(client)
    finally:
        await close_client(client)


def too_old(freshness: Freshness) -> str | None:
    """Return why what a view shows is not what holds now; None where it is."""
    if freshness.state is not State.FOLLOWING or freshness.age_ms is None:
        return f"the view is being rebuilt ({freshness.why})"
    if freshness.age_ms > TOO_OLD_MS:
        return f"the view is {duration(freshness.age_ms)} old"
    return None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
