"""The view as a coroutine, and as a process: it waits for Kafka and Redis, and ends when it is told to.

Nothing waits for it. While Redis is away, what it would have shown stays in the topics.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Callable

from schemas.errors import UnavailableError
from streams.kafka.loop import loop_factory
from streams.kafka.settings import Settings
from streams.view.follow import Follower, end_all
from streams.view.keys import Keys
from streams.view.metrics import ViewMetrics, start_metrics, unseen
from streams.view.store import DamagedError, OvertakenError, RedisUnavailableError, Store, shown

log = logging.getLogger("stoploss.view")

BACKOFF_FIRST_S = 0.25
BACKOFF_MAX_S = 5.0
ASKED_FOR = "asked for"


async def run_view(
    settings: Settings,
    redis_url: str | None = None,
    stop: asyncio.Event | None = None,
    *,
    metrics: ViewMetrics | None = None,
    rebuild: bool = False,
    told: Callable[[str], None] | None = None,
) -> None:
    """Bring the topics to Redis until `stop` is set; waits for Kafka and Redis where they are away.

    Args:
        settings: where Kafka is, and under which prefix.
        redis_url: where Redis is; that of the settings where left out.
        stop: set it to end. What is half done is thrown away, and done by the next view.
        metrics: where the figures go; nowhere where left out.
        rebuild: delete what is in Redis, and read the topics from their beginning.
        told: is told, in one line each, that Redis has gone away and that it is back; the log has it
            in any case.

    Raises:
        InvalidFieldError: a setting is wrong.
    """
    stop = asyncio.Event() if stop is None else stop
    metrics = unseen() if metrics is None else metrics
    store = Store(redis_url or settings.redis_url, Keys(settings.topic_prefix))
    try:
        async with asyncio.TaskGroup() as group:
            following = group.create_task(
                _follow(settings, store, metrics, Outage(told), rebuild=rebuild)
            )
            await stop.wait()
            await end_all([following])
    finally:
        await store.close()


async def _follow(
    settings: Settings, store: Store, metrics: ViewMetrics, outage: "Outage", *, rebuild: bool
) -> None:
    """Follow again and again."""
    why = ASKED_FOR if rebuild else None
    follower = Follower(settings, store, metrics, _wall_ms, why)
    metrics.watch(lambda: _lags(follower), lambda: _age_ms(follower))
    voice = _Voice()
    failures = 0

    def follows() -> None:
        nonlocal failures
        failures = 0
        outage.ends()
        voice.say(f"follows {settings.topic_prefix}* of {settings.bootstrap_servers} into {store}")

    while True:
        try:
            try:
                await follower.follow(follows)
            except DamagedError:
                metrics.failed("damaged")
            except OvertakenError:
                metrics.failed("overtaken")
                voice.say("stands by: another view writes the same keys, or Redis has gone back")
                await store.until_silent()
        except UnavailableError as error:
            is_redis = isinstance(error, RedisUnavailableError)
            metrics.failed("redis" if is_redis else "kafka")
            # A Redis that has died closes connections first, and then refuses them.
            if not is_redis or outage.begins(error):
                voice.say(f"waits: {error}")
        await asyncio.sleep(min(BACKOFF_FIRST_S * 2.0**failures, BACKOFF_MAX_S))
        failures = min(failures + 1, 10)


def _lags(follower: Follower) -> dict[str, int]:
    """Return how many records each partition is behind."""
    reaches = {} if follower.progress is None else follower.progress.reaches
    return {place: reach.end_offset - reach.next_offset for place, reach in reaches.items()}


def _age_ms(follower: Follower) -> int | None:
    """Return how old what Redis shows is; None where it is not known, or during a rebuild."""
    shown_ms = None if follower.progress is None else follower.progress.shown_ms
    return None if shown_ms is None else _wall_ms() - shown_ms


class Outage:
    """That Redis is away, and that it is back: each said once, however often it is tried meanwhile."""

    def __init__(self, told: Callable[[str], None] | None = None) -> None:
        self._told = told
        self._is_on = False

    def __repr__(self) -> str:
        return f"<Outage {'on' if self._is_on else 'off'}>"

    def begins(self, why: object) -> bool:
        """Redis has not answered; tell whether that is new."""
        is_new, self._is_on = not self._is_on, True
        if is_new:
            self._tell(f"{why}; until it is back, commands read the topics")
        return is_new

    def ends(self) -> None:
        """Redis has taken what was written."""
        if self._is_on:
            self._is_on = False
            self._tell("Redis is back, and the view follows again")

    def _tell(self, line: str) -> None:
        if self._told is not None:
            self._told(line)


class _Voice:
    """Says what is new, once: a part that is away is asked again and again."""

    def __init__(self) -> None:
        self._last = ""

    def say(self, message: str) -> None:
        if message != self._last:
            self._last = message
            log.info("view: %s", message)


def run_process(settings: Settings, *, rebuild: bool = False) -> None:
    """Run a view in this process until SIGTERM or SIGINT.

    Raises:
        InvalidFieldError: a setting is wrong, or the metrics port that was asked for is taken.
    """
    # Its own lines about an absent broker, several a second; ours are one per change.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    log.info("view: starts; Redis is %s", shown(settings.redis_url))
    export = start_metrics(settings)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_until_told(settings, export.metrics, rebuild=rebuild))
    finally:
        export.close()


async def _until_told(settings: Settings, metrics: ViewMetrics, *, rebuild: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run_view(settings, stop=stop, metrics=metrics, rebuild=rebuild)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
