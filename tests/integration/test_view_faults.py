"""Whatever happens to a view, in the end Redis shows what an undisturbed view shows."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiokafka
import msgspec
import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from redis.exceptions import ResponseError

from schemas.envelope import rfc3339
from schemas.topics import Topic
from streams.kafka.settings import Settings
from streams.kafka.telemetry import Readers, nobody
from streams.local.redis import RedisServer
from streams.view.keys import LAYOUT
from streams.view.meta import ALIVE_WITHIN_MS, State
from streams.view.metrics import export_to
from tests.integration.kafka_world import World, eventually, make_world
from tests.integration.recorded_log import PARTITIONS, Log
from tests.integration.view_world import (
    Shown,
    Traffic,
    alert,
    differing,
    encoded,
    ends_of,
    health,
    now_ms,
    of_all_agents,
    running_view,
    say,
    shown,
)

pytestmark = pytest.mark.integration

COPIES = 40


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> World:
    return await make_world(bootstrap_servers, topic_prefix, PARTITIONS)


@pytest.fixture
def traffic(world: World, log: Log) -> Traffic:
    return Traffic(world, log)


@pytest.fixture
async def own_redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis that a test may stop and empty."""
    async with server_in(tmp_path / "redis") as server:
        yield server


@contextlib.asynccontextmanager
async def server_in(folder: Path) -> AsyncIterator[RedisServer]:
    server = RedisServer(folder)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def disturbed(world: World, own_redis: RedisServer) -> AsyncIterator[Shown]:
    async with shown(world, own_redis.url) as found:
        yield found


async def undisturbed(world: World, url: str) -> dict[str, Any]:
    """Return what a view shows that reads the topics once, with nothing happening to it."""
    async with shown(world, url) as found, running_view(world, url):
        await found.until_all_is_shown()
        return await found.dump()


async def assert_equal(disturbed: Shown, redis_server: RedisServer) -> None:
    """Hold what a disturbed view shows against an undisturbed one."""
    await disturbed.until_all_is_shown()
    expected = await undisturbed(disturbed.world, redis_server.url)
    assert differing(expected, await disturbed.dump()) == []


class ViewProcess:
    """`stoploss view` as people start it; what it says goes to `log`."""

    def __init__(self, world: World, redis_url: str, log: Path) -> None:
        self.log = log
        self._environ = os.environ | {
            "STOPLOSS_BOOTSTRAP_SERVERS": world.settings.bootstrap_servers,
            "STOPLOSS_TOPIC_PREFIX": world.settings.topic_prefix,
            "STOPLOSS_REDIS_URL": redis_url,
            "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path]),
        }

    @contextlib.asynccontextmanager
    async def running(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        command = [sys.executable, "-P", "-m", "streams.cli.main", "view", *arguments]
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(*command, env=self._environ, stderr=log)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def says(self, text: str) -> None:
        """Wait until it has said something."""

        async def said() -> bool:
            return text in self.log.read_text()

        await eventually(said)


async def test_a_view_that_is_killed_again_and_again_shows_what_one_shows_that_was_not(
    world: World, traffic: Traffic, disturbed: Shown, redis_server: RedisServer, tmp_path: Path
) -> None:
    view = ViewProcess(world, disturbed.url, tmp_path / "view.log")
    stop = asyncio.Event()

    async def positions() -> int:
        found = await disturbed.freshness()
        return 0 if found is None else sum(each.next_offset for each in found.partitions)

    async def keep_writing() -> None:
        while not stop.is_set():
            await traffic.write(1)

    async with asyncio.TaskGroup() as group:
        group.create_task(keep_writing())
        for _ in range(5):
            before = await positions()

            async def moves(before: int = before) -> bool:
                return await positions() > before

            async with view.running() as process:
                await eventually(moves)
                process.kill()
                await process.wait()
            behind = sum((await ends_of(world)).values()) - await positions()
            assert behind > 0, "it was killed when it had nothing to do"
        stop.set()
    await say(world, of_all_agents("TASK-1"))
    async with view.running():
        await assert_equal(disturbed, redis_server)


async def test_views_beside_each_other_count_nothing_twice(
    world: World, traffic: Traffic, disturbed: Shown, redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "stoploss.view")
    async with running_view(world, disturbed.url), running_view(world, disturbed.url):
        await traffic.write(COPIES // 2)
        await say(world, of_all_agents("TASK-1"))
        await disturbed.until_all_is_shown()
        await traffic.write(COPIES // 2)
        await disturbed.until_all_is_shown()
        # Whoever stands by must not take what is newer than he knows for another topic.
        assert caplog.text.count("view: rebuilds") == 1
        assert "another view writes the same keys" in caplog.text
        await assert_equal(disturbed, redis_server)


async def test_a_redis_that_was_emptied_is_filled_again_by_itself(
    world: World, traffic: Traffic, disturbed: Shown, redis_server: RedisServer
) -> None:
    await traffic.write(COPIES // 2)
    async with running_view(world, disturbed.url):
        await disturbed.until_all_is_shown()
        await disturbed.redis.flushall()
        await traffic.write(1)
        await assert_equal(disturbed, redis_server)


async def test_a_rebuild_on_command_brings_the_same_and_a_view_that_runs_follows_it(
    world: World, traffic: Traffic, disturbed: Shown, redis_server: RedisServer
) -> None:
    await traffic.write(COPIES // 4)
    async with running_view(world, disturbed.url):
        await disturbed.until_all_is_shown()
        began_ms = await meta(disturbed, "began_ms")
        # Damage that no offset shows.
        await disturbed.redis.delete(disturbed.keys.tasks)
        await disturbed.redis.hset(f"{disturbed.keys.root}totals:2026-01-01:owner", "tasks/eve", 7)
        async with running_view(world, disturbed.url, rebuild=True):
            await changed(disturbed, "began_ms", began_ms)
            await traffic.write(1)
            await disturbed.until_all_is_shown()
        await traffic.write(1)
        await assert_equal(disturbed, redis_server)


async def test_a_redis_that_goes_away_and_comes_back_misses_nothing(
    world: World, traffic: Traffic, disturbed: Shown, redis_server: RedisServer,
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "stoploss.view")
    async with running_view(world, disturbed.url):
        await traffic.write(1)
        await disturbed.until_all_is_shown()
        began_ms = await meta(disturbed, "began_ms")
        await own_redis.stop()
        await traffic.write(2)
        await eventually(lambda: said(caplog, "view: waits: Redis at redis://127.0.0.1"))
        await own_redis.start()
        await assert_equal(disturbed, redis_server)
        assert await meta(disturbed, "began_ms") == began_ms, "it was rebuilt, and need not be"
    assert caplog.text.count("view: waits: Redis") == 1, "it says it once, not at each attempt"


async def test_a_redis_that_comes_back_older_is_brought_up_from_there(
    world: World, traffic: Traffic, disturbed: Shown, redis_server: RedisServer,
    own_redis: RedisServer, tmp_path: Path,
) -> None:  # fmt: skip
    async with running_view(world, disturbed.url):
        await traffic.write(1)
        await disturbed.until_all_is_shown()
        began_ms = await meta(disturbed, "began_ms")
        await own_redis.stop()
        shutil.copytree(own_redis.folder, tmp_path / "older")
        await own_redis.start()
        await traffic.write(2)
        await disturbed.until_all_is_shown()
        await own_redis.stop()
        shutil.rmtree(own_redis.folder)
        shutil.copytree(tmp_path / "older", own_redis.folder)
        await own_redis.start()
        await assert_equal(disturbed, redis_server)
        assert await meta(disturbed, "began_ms") == began_ms, "it was rebuilt, and need not be"


async def test_a_redis_that_is_full_is_waited_for(
    world: World, traffic: Traffic, disturbed: Shown, redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "stoploss.view")
    reader = InMemoryMetricReader()
    export = export_to(Readers([reader], nobody))
    async with running_view(world, disturbed.url, metrics=export.metrics):
        await traffic.write(1)
        await disturbed.until_all_is_shown()
        await disturbed.redis.config_set("maxmemory", 1)
        await traffic.write(1)

        async def has_tried_again_and_again() -> bool:
            return failures(reader, "redis") > 2

        await eventually(has_tried_again_and_again)
        await disturbed.redis.config_set("maxmemory", 0)
        await assert_equal(disturbed, redis_server)
    export.close()
    assert caplog.text.count("OOM command not allowed") == 1, "it says it once, not each time"


def failures(reader: InMemoryMetricReader, kind: str) -> int:
    """Return how many failures of a kind a view has counted since it was asked last."""
    data: Any = reader.get_metrics_data()
    return sum(
        point.value
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "stoploss.view.failures"
        for point in metric.data.data_points
        if point.attributes["kind"] == kind
    )


async def test_keys_that_somebody_else_has_written_to_are_built_anew(
    world: World, traffic: Traffic, disturbed: Shown, redis_server: RedisServer
) -> None:
    await traffic.write(1)
    async with running_view(world, disturbed.url):
        await disturbed.until_all_is_shown()
        await disturbed.redis.set(disturbed.keys.tasks, "nothing of ours")
        await traffic.write(1)
        await assert_equal(disturbed, redis_server)


GARBAGE = b"\xff nothing of ours"


async def positions_back(view: Shown) -> None:
    """Set one of the positions back; its records would count twice."""
    positions = await view.redis.hgetall(view.keys.positions)
    place = next(place for place, at in sorted(positions.items()) if int(at) > 1)
    await view.redis.hset(view.keys.positions, place, 1)


async def no_positions(view: Shown) -> None:
    await view.redis.delete(view.keys.positions)


async def positions_of_another_type(view: Shown) -> None:
    await view.redis.set(view.keys.positions, GARBAGE)


async def no_progress(view: Shown) -> None:
    await view.redis.delete(view.keys.progress)


async def no_meta(view: Shown) -> None:
    await view.redis.delete(view.keys.meta)


async def meta_of_another_type(view: Shown) -> None:
    await view.redis.set(view.keys.meta, GARBAGE)


async def garbage_in_meta(view: Shown) -> None:
    await view.redis.hset(view.keys.meta, mapping={"at_ms": GARBAGE, "turn": GARBAGE})


def without(name: str) -> Callable[[Shown], Awaitable[None]]:
    """Take a field of `meta` away."""

    async def damage(view: Shown) -> None:
        await view.redis.hdel(view.keys.meta, name)

    return damage


async def positions_back_and_no_sum_of_them(view: Shown) -> None:
    # At once: the view may write at any moment.
    async with view.redis.pipeline() as ask:
        ask.hdel(view.keys.meta, "read")
        for place, at in (await view.redis.hgetall(view.keys.positions)).items():
            ask.hset(view.keys.positions, place, max(int(at) - 1, 0))
        await ask.execute()


async def another_cluster(view: Shown) -> None:
    await view.redis.hset(view.keys.meta, "cluster", "another")


async def another_state(view: Shown) -> None:
    await view.redis.hset(view.keys.meta, "state", State.REBUILDING)


@pytest.mark.parametrize(
    "damage",
    [
        *(pytest.param(without(name), id=f"no {name}") for name in ("layout", "why")),
        positions_back_and_no_sum_of_them,
        another_cluster,
        another_state,
        positions_back,
        no_positions,
        positions_of_another_type,
        no_progress,
        no_meta,
        meta_of_another_type,
        garbage_in_meta,
    ],
)
async def test_what_says_how_far_the_view_is_is_not_changed_unnoticed(
    world: World, traffic: Traffic, disturbed: Shown, redis_server: RedisServer,
    damage: Callable[[Shown], Awaitable[None]],
) -> None:  # fmt: skip
    await traffic.write(1)
    async with running_view(world, disturbed.url):
        await disturbed.until_all_is_shown()
        began_ms = await meta(disturbed, "began_ms")
        await damage(disturbed)
        await eventually(lambda: is_built_anew(disturbed, began_ms))
        await traffic.write(1)
        await assert_equal(disturbed, redis_server)


async def is_built_anew(view: Shown, began_ms: str) -> bool:
    """Whether a rebuild has begun since; `meta` may hold anything meanwhile."""
    with contextlib.suppress(ResponseError):
        found = await view.redis.hget(view.keys.meta, "began_ms")
        return found is not None and found.decode() != began_ms
    return False


@pytest.mark.parametrize("garbage", ["of another type", "in its field"])
async def test_an_execution_whose_earlier_word_was_overwritten_is_read_anew(
    world: World, traffic: Traffic, disturbed: Shown, redis_server: RedisServer,
    garbage: str,
) -> None:  # fmt: skip
    await traffic.write(1)
    async with running_view(world, disturbed.url):
        await disturbed.until_all_is_shown()
        name = next(each for each in await disturbed.names() if each.startswith("executions:"))
        key = f"{disturbed.keys.root}{name}"
        ((field, value), *_) = (await disturbed.redis.hgetall(key)).items()
        if garbage == "of another type":
            await disturbed.redis.set(key, GARBAGE)
        else:
            await disturbed.redis.hset(key, field, GARBAGE)
        record = msgspec.json.decode(value)
        record["data"]["revision"] += 1
        topic = world.settings.topic(Topic.EXECUTIONS)
        async with aiokafka.AIOKafkaProducer(**world.settings.producer_kwargs()) as producer:
            await producer.send_and_wait(topic, msgspec.json.encode(record), b"T", 0)
        await assert_equal(disturbed, redis_server)


async def test_a_value_that_was_changed_is_not_found_out_and_a_rebuild_mends_it(
    world: World, traffic: Traffic, disturbed: Shown, redis_server: RedisServer
) -> None:
    await traffic.write(1)
    async with running_view(world, disturbed.url):
        await disturbed.until_all_is_shown()
        before = await disturbed.dump()
        totals = next(name for name in before if name.startswith("totals:"))
        field = next(iter(before[totals]))
        await disturbed.redis.hincrby(f"{disturbed.keys.root}{totals}", field, 1)
        gone = next(name for name in before if name.startswith("decisions:"))
        await disturbed.redis.delete(f"{disturbed.keys.root}{gone}")
        await traffic.write(1)
        await disturbed.until_all_is_shown()
        expected = await undisturbed(world, redis_server.url)
        assert differing(expected, await disturbed.dump()) == [gone, totals]
    async with running_view(world, disturbed.url, rebuild=True):
        began_ms = await meta(disturbed, "began_ms")
        await changed(disturbed, "began_ms", began_ms)
        await assert_equal(disturbed, redis_server)


async def test_a_record_from_the_future_does_not_keep_its_key_for_ever(
    world: World, disturbed: Shown
) -> None:
    async with running_view(world, disturbed.url):
        topic, key, data = health("enforcer-1/a", transition_ms={0: 1})
        assert data is not None
        value = encoded(topic, key, data, "5000-01-01T00:00:00.000Z")
        async with aiokafka.AIOKafkaProducer(**world.settings.producer_kwargs()) as producer:
            await producer.send_and_wait(world.settings.topic(topic), value, key.encode())
        await disturbed.until_all_is_shown()
        sketch = disturbed.keys.sketch("transitions", "5000-01-01T00", "enforcer-1/a")
        assert 0 < await disturbed.redis.ttl(sketch) <= 100 * 24 * 3_600


async def test_what_is_of_another_cluster_is_replaced_unless_a_view_is_at_work_there(
    world: World, traffic: Traffic, disturbed: Shown, redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "stoploss.view")
    await traffic.write(1)
    others = {
        "fence": "17",
        "cluster": "other",
        "layout": str(LAYOUT),
        "state": "following",
        "why": "",
    }
    redis, keys = disturbed.redis, disturbed.keys
    await redis.hset(keys.meta, mapping=others | {"at_ms": now_ms() + 60_000, "began_ms": 0})
    await redis.hset(keys.tasks, "THEIRS", b"{}")
    async with running_view(world, disturbed.url):
        await eventually(lambda: said(caplog, "a view of Kafka cluster other writes the same keys"))
        assert await redis.hexists(keys.tasks, "THEIRS")
        await redis.hset(keys.meta, "at_ms", now_ms() - ALIVE_WITHIN_MS)
        await disturbed.until_all_is_shown()
        assert not await redis.hexists(keys.tasks, "THEIRS")
        await assert_equal(disturbed, redis_server)


async def test_topics_that_were_made_anew_are_read_anew(
    world: World, traffic: Traffic, disturbed: Shown, redis_server: RedisServer
) -> None:
    await traffic.write(1)
    async with running_view(world, disturbed.url):
        await disturbed.until_all_is_shown()
    await disturbed.redis.hset(disturbed.keys.positions, "tasks/0", 1_000_000)
    async with running_view(world, disturbed.url):
        await assert_equal(disturbed, redis_server)


async def test_a_rebuild_that_was_killed_while_it_deleted_goes_on(
    world: World, traffic: Traffic, disturbed: Shown, redis_server: RedisServer
) -> None:
    await traffic.write(1)
    async with running_view(world, disturbed.url):
        await disturbed.until_all_is_shown()
    fence = await meta(disturbed, "fence")
    clearing = {"fence": f"clearing {int(fence) + 1}", "state": State.CLEARING}
    await disturbed.redis.hset(disturbed.keys.meta, mapping=clearing)
    await disturbed.redis.delete(disturbed.keys.positions)
    async with running_view(world, disturbed.url):
        await assert_equal(disturbed, redis_server)


async def test_a_view_waits_for_kafka_and_for_redis_and_ends_when_it_is_told_to(
    world: World, own_redis: RedisServer, tmp_path: Path
) -> None:
    url = own_redis.url
    await own_redis.stop()
    view = ViewProcess(world, url, tmp_path / "view.log")
    async with view.running() as process:
        await view.says("view: waits: Redis at redis://127.0.0.1")
        await own_redis.start()
        await view.says(f"view: follows {world.settings.topic_prefix}*")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    async with view.running("--rebuild") as process:
        await view.says("view: rebuilds: asked for")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    away = World(Settings(bootstrap_servers="127.0.0.1:1"))
    view = ViewProcess(away, url, tmp_path / "away.log")
    async with view.running() as process:
        await view.says("view: waits: Kafka at 127.0.0.1:1")
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
    assert "Traceback" not in view.log.read_text()


async def test_a_record_is_not_shown_before_it_is_committed(world: World, disturbed: Shown) -> None:
    async with running_view(world, disturbed.url):
        await say(world, [alert(1, "first")])
        await disturbed.until_all_is_shown()
        topic, key, data = alert(1, "second")
        assert data is not None
        value = encoded(topic, key, data, rfc3339(now_ms()))
        producer = aiokafka.AIOKafkaProducer(
            **world.settings.producer_kwargs(),
            transactional_id=f"{world.settings.topic_prefix}test",
        )
        async with producer:
            async with producer.transaction():
                await producer.send_and_wait(world.settings.topic(topic), value, key.encode())
                at_ms = await meta(disturbed, "at_ms")
                # Two answers of Kafka later: the first may have been on its way.
                for _ in range(2):
                    at_ms = await changed(disturbed, "at_ms", at_ms)
                assert await firing(disturbed) == {"first"}
            await eventually(lambda: fires(disturbed, {"first", "second"}))


async def meta(view: Shown, field: str) -> str:
    """Return a field of `meta`."""
    found: bytes = await view.redis.hget(view.keys.meta, field)
    return found.decode()


async def changed(view: Shown, field: str, before: str) -> str:
    """Wait until a field of `meta` is another one; return it."""

    async def is_another() -> bool:
        return await meta(view, field) != before

    await eventually(is_another)
    return await meta(view, field)


async def firing(view: Shown) -> set[str]:
    """Return the scopes of the alerts that are shown."""
    return {each.data.scope for each in (await view.queries.alerts()).firing}


async def fires(view: Shown, scopes: set[str]) -> bool:
    return await firing(view) == scopes


async def said(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return text in caplog.text
