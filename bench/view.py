"""The view in Redis: its lag beside a ledger at full load, how soon a decision is shown, a rebuild.

    python -m bench.view [--only load shown rebuild] [--events 1500000] [--rate 2000] [--tasks 100000]

Each has a broker and a Redis of its own, and runs the ledger and the view as processes.
- load: a ledger folds events that are there already, as fast as it can, and the view follows. Its age
  is what `Queries.freshness` says; the same run without a view says what it costs the ledger.
- shown: events at a steady rate; from the moment at which a consumer of committed records has a
  decision until it stands in the feed in Redis.
- rebuild: the topics of so many tasks that have ended; from the start of the process with an empty
  Redis until the view says that it follows.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from array import array
from contextlib import AsyncExitStack

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.latency import send
from bench.load import Load
from bench.place import Place, place
from bench.positions import LedgerPosition
from bench.processor import Processor, ledger
from bench.report import emit, table
from bench.throughput import preloaded
from schemas.topics import Topic
from streams.local.redis import RedisServer
from streams.view.answers import Freshness
from streams.view.keys import Keys
from streams.view.meta import State
from streams.view.queries import Queries
from streams.view.store import redis_client

PARTITIONS = 4
POLL_S = 0.1
LOOK_EVERY_S = 0.005
LOOK_AT = 200  # decisions: more than come between two looks
WITHIN_S = 600.0
WARM_UP_S = 5.0
LIFE_EVENTS = 6  # of a task that is rebuilt


class UnderLoad(msgspec.Struct, frozen=True):
    """The view beside a ledger at full load; ages in ms, lag in records."""

    events: int
    events_per_s: int
    events_per_s_without_a_view: int
    age_p50_ms: int
    age_p99_ms: int
    age_max_ms: int
    lag_max: int
    records_per_s: int
    cpu_share: float  # of one core
    cpu_s_per_million: float  # events of the ledger
    peak_mb: int


class Shown(msgspec.Struct, frozen=True):
    """Milliseconds from a committed decision until it stands in Redis."""

    events_per_s: int
    sent_per_s: int
    decisions: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Rebuilt(msgspec.Struct, frozen=True):
    """A rebuild from the topics; `seconds` from the start of the process."""

    tasks: int
    records: int
    seconds: float
    cpu_s: float
    redis_cpu_s: float
    peak_mb: int
    redis_mb: int


def view(where: Place, redis_url: str) -> Processor:
    """Return a view on a place, not started yet."""
    env = {
        "STOPLOSS_BOOTSTRAP_SERVERS": where.settings.bootstrap_servers,
        "STOPLOSS_TOPIC_PREFIX": where.settings.topic_prefix,
        "STOPLOSS_REDIS_URL": redis_url,
    }
    if "PYTHONPATH" in os.environ:  # of a copy beside the installed one
        env["PYTHONPATH"] = os.environ["PYTHONPATH"]
    command = [sys.executable, "-P", "-m", "streams.cli.main", "view"]
    return Processor("view", command, where.folder / "view.log", env)


class Asked:
    """The queries on a place's view, and what a Redis of its own says."""

    def __init__(self, where: Place, redis_url: str) -> None:
        prefix = where.settings.topic_prefix
        self.queries = Queries(redis_url, prefix, lambda: time.time_ns() // 1_000_000)
        self.redis, self.keys = redis_client(redis_url), Keys(prefix)

    async def close(self) -> None:
        """Let go of the connections."""
        await self.queries.close()
        await self.redis.aclose()

    async def following(self, processor: Processor) -> Freshness:
        """Wait until the view has been rebuilt."""
        deadline_s = time.perf_counter() + WITHIN_S
        while time.perf_counter() < deadline_s:
            processor.check()
            found = await self.queries.freshness()
            if found is not None and found.state is State.FOLLOWING:
                return found
            await asyncio.sleep(POLL_S)
        raise SystemExit(f"the view does not follow within {WITHIN_S:.0f} s")


async def _with_redis(where: Place, stack: AsyncExitStack) -> tuple[str, Asked]:
    server = RedisServer(where.folder / "redis")
    await server.start()
    stack.push_async_callback(server.stop)
    asked = Asked(where, server.url)
    stack.push_async_callback(asked.close)
    return server.url, asked


async def _fold_all(
    where: Place, total: int, each_poll: "asyncio.Queue[None] | None" = None
) -> float:
    """Run a ledger over all events; return how long it took from its first commit."""
    began_s = 0.0
    async with (
        LedgerPosition(where.settings) as position,
        ledger(where.settings, where.folder) as processor,
    ):
        while (committed := await position.committed()) < total:
            processor.check()
            began_s = began_s or (time.perf_counter() if committed else 0.0)
            if each_poll is not None and committed:
                await each_poll.put(None)
            await asyncio.sleep(POLL_S)
        return time.perf_counter() - began_s


async def under_load(events: int) -> UnderLoad:
    """Measure both runs, each on a broker of its own."""
    load = Load(events)
    async with place(PARTITIONS) as alone:
        count = await preloaded(alone, load)
        alone_s = await _fold_all(alone, count)
    async with AsyncExitStack() as stack:
        where = await stack.enter_async_context(place(PARTITIONS))
        count = await preloaded(where, load)
        url, asked = await _with_redis(where, stack)
        process = await stack.enter_async_context(view(where, url))
        before = await asked.following(process)
        ages, lags = [], []
        polls: asyncio.Queue[None] = asyncio.Queue(maxsize=1)

        async def sample() -> None:
            while True:
                await polls.get()
                found = await asked.queries.freshness()
                assert found is not None
                assert found.age_ms is not None
                ages.append(found.age_ms)
                lags.append(found.lag)

        began_s, cpu_s = time.perf_counter(), process.cpu_s
        async with asyncio.TaskGroup() as group:
            sampling = group.create_task(sample())
            took_s = await _fold_all(where, count, polls)
            sampling.cancel()
        all_s, cpu_s = time.perf_counter() - began_s, process.cpu_s - cpu_s
        after = await asked.queries.freshness()
        assert after is not None
        cuts = statistics.quantiles(ages, n=100, method="inclusive")
        return UnderLoad(
            events=count,
            events_per_s=round(count / took_s),
            events_per_s_without_a_view=round(count / alone_s),
            age_p50_ms=round(cuts[49]),
            age_p99_ms=round(cuts[98]),
            age_max_ms=max(ages),
            lag_max=max(lags),
            records_per_s=round((_records(after) - _records(before)) / took_s),
            cpu_share=round(cpu_s / all_s, 2),
            cpu_s_per_million=round(cpu_s / count * 1e6, 2),
            peak_mb=round(process.peak_mb),
        )


def _records(found: Freshness) -> int:
    return sum(each.next_offset for each in found.partitions)


async def shown(rate: int, seconds: float) -> Shown:
    """Measure from the committed decision to the feed in Redis."""
    async with AsyncExitStack() as stack:
        where = await stack.enter_async_context(place(PARTITIONS))
        url, asked = await _with_redis(where, stack)
        process = await stack.enter_async_context(view(where, url))
        await stack.enter_async_context(ledger(where.settings, where.folder))
        await asked.following(process)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=where.settings.bootstrap_servers, isolation_level="read_committed"
        )
        await consumer.start()
        stack.push_async_callback(consumer.stop)
        topic = where.settings.topic(Topic.DECISIONS)
        consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
        await consumer.seek_to_beginning()
        committed: dict[bytes, float] = {}
        seen: dict[bytes, float] = {}

        async def watch_kafka() -> None:
            async for record in consumer:
                if record.value is not None:
                    committed[record.value] = time.perf_counter()

        async def watch_redis() -> None:
            feed = asked.keys.feed("decisions")
            while True:
                for value in await asked.redis.zrevrange(feed, 0, LOOK_AT - 1):
                    seen.setdefault(value, time.perf_counter())
                await asyncio.sleep(LOOK_EVERY_S)

        async with asyncio.TaskGroup() as group:
            watchers = [group.create_task(watch_kafka()), group.create_task(watch_redis())]
            began_s, total_s = time.perf_counter(), seconds + WARM_UP_S
            sent_at_s = array("d", bytes(8 * (int(rate * total_s) + 1)))
            sent = await send(where.settings, rate, total_s, sent_at_s)
            await asyncio.sleep(1.0)
            for watcher in watchers:
                watcher.cancel()
        late = [value for value in committed if value not in seen]
        if late:
            raise SystemExit(f"{len(late)} of {len(committed)} decisions were not seen in Redis")
        took_ms = [
            max(0.0, seen[value] - at_s) * 1000
            for value, at_s in committed.items()
            if at_s > began_s + WARM_UP_S
        ]
        cuts = statistics.quantiles(took_ms, n=100, method="inclusive")
        return Shown(
            events_per_s=rate,
            sent_per_s=round(sent / total_s),
            decisions=len(took_ms),
            p50_ms=round(cuts[49], 1),
            p99_ms=round(cuts[98], 1),
            max_ms=round(max(took_ms), 1),
        )


async def rebuilt(tasks: int) -> Rebuilt:
    """Measure a view that begins with an empty Redis."""
    async with AsyncExitStack() as stack:
        where = await stack.enter_async_context(place(PARTITIONS))
        count = await preloaded(where, Load(tasks * LIFE_EVENTS, 1_000, LIFE_EVENTS))
        await _fold_all(where, count)
        url, asked = await _with_redis(where, stack)
        began_s = time.perf_counter()
        process = await stack.enter_async_context(view(where, url))
        found = await asked.following(process)
        seconds = time.perf_counter() - began_s
        said = await asked.redis.info()
        open_tasks = await asked.queries.open_tasks(0, 1)
        ended_tasks = await asked.queries.ended_tasks(0, 1)
        return Rebuilt(
            tasks=open_tasks.total + ended_tasks.total,
            records=_records(found),
            seconds=round(seconds, 2),
            cpu_s=round(process.cpu_s, 1),
            redis_cpu_s=round(said["used_cpu_user"] + said["used_cpu_sys"], 1),
            peak_mb=round(process.peak_mb),
            redis_mb=round(said["used_memory"] / 1e6),
        )


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.view", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=["load", "shown", "rebuild"])
    parser.add_argument("--events", type=int, default=1_500_000, help="of the full load")
    parser.add_argument("--rate", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="after a warm-up of 5")
    parser.add_argument("--tasks", type=int, default=100_000)
    asked = parser.parse_args()
    wanted = asked.only or ["load", "shown", "rebuild"]
    measured: list[msgspec.Struct] = []
    if "load" in wanted:
        measured.append(asyncio.run(under_load(asked.events)))
        emit("view_load", measured[-1])
    if "shown" in wanted:
        measured.append(asyncio.run(shown(asked.rate, asked.seconds)))
        emit("view_shown", measured[-1])
    if "rebuild" in wanted:
        measured.append(asyncio.run(rebuilt(asked.tasks)))
        emit("view_rebuild", measured[-1])
    for each in measured:
        table(each.__struct_fields__, [msgspec.structs.astuple(each)])


if __name__ == "__main__":
    main()
