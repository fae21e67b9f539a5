"""Events in, decisions out, on a real broker."""

import time

import aiokafka
import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from schemas.envelope import rfc3339
from schemas.topics import Topic
from streams.kafka.settings import Driver
from streams.kafka.telemetry import Readers, nobody
from streams.ledger.health import Health
from streams.ledger.metrics import export_to
from tests.integration.kafka_world import World, eventually, make_world

pytestmark = pytest.mark.integration


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str, driver: Driver) -> World:
    return await make_world(bootstrap_servers, topic_prefix, driver=driver)


async def test_usage_becomes_a_decision_and_a_state(world: World) -> None:
    task = world.task_in(1)
    async with world.ledger() as ledger:
        await world.send([(task, world.event("task.started", task, planned_phases=["THINK"]))])
        await world.send([world.usage(task, 20_000)])
        await eventually(lambda: _has(world, Topic.DECISIONS, task))
        assert ledger.health.state is Health.RUNNING
    decisions = await world.read(Topic.DECISIONS)
    assert [(seen.partition, seen.key) for seen in decisions] == [(1, task)]
    decision = decisions[0]
    assert decision.data["verdict"] == "block"
    assert decision.data["enforced"] is False
    assert decision.data["unenforced_reason"] == "observe"
    offset = decision.data["input"]["offset"]
    assert decision.id.startswith(f"1-{offset}-")
    assert (await world.used_tokens())[task] == 20_000
    assert {seen.data["level"] for seen in await world.read(Topic.BREACHES)} >= {"warn", "block"}


async def test_a_new_partition_gets_the_built_in_policy_as_an_event_and_once(world: World) -> None:
    async with world.ledger():
        await eventually(lambda: _all_have_a_policy(world))
    async with world.ledger():
        await world.send([world.usage(world.task_in(partition), 1) for partition in (0, 1)])
        await world.until_folded()
    events = [
        (seen.partition, seen.key, seen.envelope["type"], seen.envelope["source"])
        for seen in await world.read(Topic.EVENTS)
        if seen.envelope is not None and seen.key.startswith("partition/")
    ]
    assert events == [
        (partition, f"partition/{partition}", "stoploss.policy.set", "stoploss/ledger")
        for partition in (0, 1)
    ]


async def test_time_alone_decides_by_a_tick_in_the_log(world: World) -> None:
    task = world.task_in(0)
    overrides = {"THINK": {"latency_ms": 1_000}}
    async with world.ledger():
        # Else the policies are events that come later, and move the clock on a slow machine.
        await eventually(lambda: _all_have_a_policy(world))
        await world.send(
            [
                (task, world.event("task.started", task, budget_overrides=overrides)),
                (task, _now(world.event("phase.started", task, phase="THINK"))),
            ]
        )
        await eventually(lambda: _has(world, Topic.DECISIONS, task))
    kinds = [seen.envelope["type"] for seen in await world.read(Topic.EVENTS) if seen.envelope]
    assert "stoploss.clock.tick" in kinds


async def test_every_partition_shows_that_it_lives(world: World) -> None:
    async with world.ledger():
        await eventually(lambda: _has(world, Topic.HEARTBEATS, "partition/0"))
        await eventually(lambda: _has(world, Topic.HEARTBEATS, "partition/1"))
    data = (await world.last(Topic.HEARTBEATS))["partition/0"]
    assert (data["mode"], data["fail"]) == ("observe", "open")
    assert set(data) == {"mode", "fail", "clock", "next_offset"}


async def test_what_an_input_was_part_of_is_carried_on(world: World) -> None:
    task = world.task_in(0)
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    _, value = world.usage(task, 100_000)
    traced = value.replace(b'"data"', b'"traceparent": "%s", "data"' % trace.encode())
    async with world.ledger():
        await world.send([(task, traced)])
        await eventually(lambda: _has(world, Topic.DECISIONS, task))
    envelope = (await world.read(Topic.DECISIONS))[0].envelope
    assert envelope is not None
    assert envelope["traceparent"] == trace


async def test_the_group_says_how_far_it_is(world: World) -> None:
    async with world.ledger():
        await world.send([world.usage(world.task_in(0), 1) for _ in range(5)])
        await eventually(lambda: _lag_tools_see(world))


async def test_the_figures_of_a_batch_are_counted(world: World) -> None:
    reader = InMemoryMetricReader()
    export = export_to(Readers([reader], nobody))
    async with world.ledger(export.metrics):
        await world.send([world.usage(world.task_in(0), 100_000), ("x", b"not json")])
        await world.until_folded()
        await eventually(lambda: _has(world, Topic.DEAD_LETTERS, "x"))
        data = reader.get_metrics_data()
    export.close()
    assert data is not None
    found = {
        metric.name.removeprefix("stoploss.ledger."): metric.data.data_points
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert found.keys() >= {
        "events", "batches", "records", "commit", "event_to_commit", "lag", "open_tasks",
        "restore", "dead_letters", "mode", "partitions_owned", "health",
    }  # fmt: skip
    letters = [(point.attributes, point.value) for point in found["dead_letters"]]  # type: ignore[union-attr]
    assert letters == [({"reason": "not_json"}, 1)]


async def _has(world: World, topic: Topic, key: str) -> bool:
    return any(seen.key == key for seen in await world.read(topic))


async def _all_have_a_policy(world: World) -> bool:
    tasks = await world.last(Topic.TASKS)
    return all((tasks.get(f"partition/{partition}") or {}).get("policy") for partition in (0, 1))


async def _lag_tools_see(world: World) -> bool:
    topic = world.settings.topic(Topic.EVENTS)
    consumer = aiokafka.AIOKafkaConsumer(
        **world.settings.consumer_kwargs(), group_id=world.settings.group_id()
    )
    async with consumer:
        offset = await consumer.committed(aiokafka.TopicPartition(topic, 0))
    return offset is not None and offset >= 5


def _now(value: bytes) -> bytes:
    """Give an event the current time: a phase that began long ago is historical."""
    return value.replace(b"2026-11-22T21:00:00.123Z", rfc3339(time.time_ns() // 1_000_000).encode())
