"""Restoring a partition while something else goes on with `tasks`, or with whoever restores."""

import asyncio
import signal
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.state import TaskStateData
from schemas.topics import Topic, topic_config
from streams.budget.policy import builtin_policy, policy_from_toml
from streams.budget.snapshot import task_state
from streams.budget.state import PartitionState
from streams.kafka import failpoints, reader
from streams.kafka.ports import Chunk
from streams.kafka.reader import KafkaReader, start_client
from streams.ledger.restore import restore_partition
from tests.faults.broker import ProxiedBroker
from tests.faults.conftest import CALM
from tests.integration.kafka_world import World, eventually, make_world
from tests.integration.shell import environ, start

pytestmark = [
    pytest.mark.integration,
    pytest.mark.faults,
    pytest.mark.asyncio(loop_scope="module"),
]

TASKS = [f"TASK-{number}" for number in range(40)]
ROUNDS = 60
FORGOTTEN = [f"FORGOTTEN-{number}" for number in range(10)]
FORGETFUL = policy_from_toml('version = "forgetful"\n[clock]\nretention_ms = 1_000\n', "test")
# What a broker does with `tasks` in a week, as soon as it can.
SOON = {
    "segment.ms": "50",
    "min.cleanable.dirty.ratio": "0.001",
    "max.compaction.lag.ms": "100",
}
# The shortest that a broker allows by default: the group waits for it after each death.
SHORT_SESSION = {
    "STOPLOSS_SESSION_TIMEOUT_MS": "6000",
    "STOPLOSS_TRANSACTION_TIMEOUT_MS": "5500",
}


class PausedReader:
    """Stops after its first read until it is told to go on."""

    def __init__(self, inner: KafkaReader) -> None:
        self._inner = inner
        self.reads = 0
        self.go_on = asyncio.Event()

    async def read(self) -> Sequence[Chunk]:
        if self.reads:
            await self.go_on.wait()
        self.reads += 1
        return await self._inner.read()

    async def end_offset(self) -> int:
        return await self._inner.end_offset()

    async def first_offset(self) -> int:
        return await self._inner.first_offset()

    def seek(self, offset: int) -> None:
        self._inner.seek(offset)


async def test_compaction_under_a_restore_changes_nothing_of_what_is_restored(
    proxied_for_all: ProxiedBroker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world(proxied_for_all.servers(CALM), topic_prefix, partitions=1)
    topic = world.settings.topic(Topic.TASKS)
    await configure(world, {"segment.ms": "50", "min.compaction.lag.ms": "3600000"})
    async with world.ledger():
        await world.set_policy(FORGETFUL)
        await world.send([(task, world.event("task.ended", task)) for task in FORGOTTEN])
        for _ in range(ROUNDS):
            await world.send([world.usage(task, 10) for task in TASKS])
        await world.until_folded()
        await eventually(lambda: _are_deleted(world))
        monkeypatch.setattr(reader, "FETCH_BYTES_MAX", 16 * 1024)
    client = await start_client(world.settings, [topic], "restore")
    try:
        before = await count(client, topic)
        undisturbed = await restored(KafkaReader(client, topic, 0))
        paused = PausedReader(KafkaReader(client, topic, 0))
        async with asyncio.TaskGroup() as group:
            restoring = group.create_task(restored(paused))
            await eventually(lambda: _holds(paused.reads == 1))
            await configure(world, SOON)
            await eventually(lambda: _is_compacted(client, topic, before // 2))
            paused.go_on.set()
        assert paused.reads > 1
        assert await _are_deleted(world)
    finally:
        await client.close()
    assert states(restoring.result()) == states(undisturbed)
    assert set(states(undisturbed)) == set(TASKS)
    assert restoring.result().next_offset == undisturbed.next_offset
    async with world.ledger():
        await world.send([world.usage(task, 10) for task in TASKS])
        await world.until_folded()
    await world.assert_verified()


async def test_when_deletions_are_gone_as_well_nothing_comes_back(
    proxied_for_all: ProxiedBroker, topic_prefix: str
) -> None:
    world = await make_world(proxied_for_all.servers(CALM), topic_prefix, partitions=1)
    await configure(world, SOON | {"delete.retention.ms": "0"})
    async with world.ledger():
        await world.set_policy(FORGETFUL)
        await world.send([(task, world.event("task.ended", task)) for task in FORGOTTEN])
        await eventually(lambda: _are_deleted(world))
        await eventually(lambda: _is_forgotten(world))
    async with world.ledger():
        await world.send([world.usage(task, 10) for task in (*TASKS, *FORGOTTEN)])
        await world.until_folded()
    await world.assert_verified()


async def test_who_dies_while_it_restores_leaves_everything_to_the_next(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    world = await make_world(bootstrap_servers, topic_prefix)
    await world.send([world.usage(task, 10) for task in TASKS])
    async with world.ledger():
        await world.until_folded()
    await world.send([world.usage(task, 10) for task in TASKS])
    before = await world.last(Topic.TASKS)
    env = environ(world.settings, **SHORT_SESSION)
    for times in (1, 2):  # in its first partition, in its second
        dying = await start("ledger", env=env | {failpoints.VARIABLE: f"while_restoring:{times}"})
        async with asyncio.timeout(60):
            _, err = await dying.communicate()
        assert dying.returncode == -signal.SIGKILL, err.decode()
        if times == 1:  # the second time the first partition may have gone on
            assert await world.last(Topic.TASKS) == before
    async with world.ledger():
        await world.until_folded()
    await world.assert_verified()


async def configure(world: World, more: dict[str, str]) -> None:
    """Give `tasks` these settings beside its own."""
    admin = AIOKafkaAdminClient(**world.settings.admin_kwargs())
    await admin.start()
    try:
        settings = topic_config(Topic.TASKS) | more
        name = world.settings.topic(Topic.TASKS)
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, settings)])
    finally:
        await admin.close()


async def restored(source: KafkaReader | PausedReader) -> PartitionState:
    return await restore_partition(source, 0, builtin_policy())


def states(state: PartitionState) -> dict[str, TaskStateData]:
    return {task.task_id: task_state(task) for task in state.tasks.values()}


async def count(client: Any, topic: str) -> int:  # noqa: ANN401 - aiokafka has no types
    """Return how many records the topic has; compaction makes them fewer."""
    counting = KafkaReader(client, topic, 0)
    end, records = await counting.end_offset(), 0
    while counting.offset < end:
        records += sum(len(chunk.records) for chunk in await counting.read())
    return records


async def _are_deleted(world: World) -> bool:
    """Whether the last that `tasks` says of those who are forgotten is their deletion."""
    said = {seen.key: seen.envelope for seen in await world.read(Topic.TASKS)}
    return all(task in said and said[task] is None for task in FORGOTTEN)


async def _is_forgotten(world: World) -> bool:
    """Whether `tasks` says nothing of them any more; the cleaner comes when there is more to clean."""
    await world.send([world.usage(task, 10) for task in TASKS])
    return not {seen.key for seen in await world.read(Topic.TASKS)} & set(FORGOTTEN)


async def _is_compacted(client: Any, topic: str, at_most: int) -> bool:  # noqa: ANN401
    return await count(client, topic) <= at_most


async def _holds(condition: bool) -> bool:  # noqa: FBT001
    return condition
