"""What an event leads to is found in the trace that it came with: batch, decision, alert."""

import threading

import aiokafka
import pytest
from msgspec.structs import replace

from schemas.topics import Topic
from streams.agents.registry import AGENTS
from streams.kafka.settings import Driver
from tests.integration.agents_world import AgentsWorld, make_agents_world
from tests.integration.kafka_world import World, eventually, make_world
from tests.span_collector import Collector, collector

pytestmark = pytest.mark.integration

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
CROSSING = 100_000
NAMES = {"budget_breach", "task_blocked"}  # what follows from it


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> World:
    return await make_world(bootstrap_servers, topic_prefix)


def crossing(world: World, task: str, traceparent: str | None) -> tuple[str, bytes]:
    """Return an event that takes a task to block, in a trace."""
    key, value = world.usage(task, CROSSING)
    if traceparent is not None:
        value = value.replace(b'"data"', b'"traceparent": "%s", "data"' % traceparent.encode())
    return key, value


def traced_by(world: World, taking: Collector) -> None:
    world.settings = replace(world.settings, otlp_traces_endpoint=taking.endpoint)


@pytest.mark.parametrize("driver", ["aiokafka", "librdkafka"])
async def test_a_decision_is_a_span_of_its_events_trace_and_its_batch_links_to_it(
    world: World, driver: Driver
) -> None:
    world.settings = replace(world.settings, driver=driver)
    traced, unsampled, untraced = (world.task_in(1, name) for name in ("TRACED", "UNS", "UNT"))
    async with collector() as taking:
        traced_by(world, taking)
        async with world.ledger():
            await world.send(
                [
                    crossing(world, untraced, None),
                    crossing(world, unsampled, f"00-{'a' * 32}-{SPAN}-00"),
                    crossing(world, traced, TRACEPARENT),
                ]
            )
            await world.until_folded()
            await taking.until(lambda: bool(taking.named("stoploss.batch")))
    (decision,) = taking.named("stoploss.decision")
    (batch,) = taking.named("stoploss.batch")
    (record,) = [seen for seen in await world.read(Topic.DECISIONS) if seen.key == traced]
    assert decision.service == batch.service == "stoploss-ledger"
    assert (decision.trace_id, decision.parent_id) == (TRACE, SPAN)
    assert decision.attributes == {
        "stoploss.task_id": traced,
        "stoploss.verdict": "block",
        "stoploss.previous": "continue",
        "stoploss.enforced": False,
        "stoploss.partition": 1,
        "stoploss.offset": record.data["input"]["offset"],
    }
    assert decision.start_ns <= decision.end_ns
    assert batch.trace_id != TRACE
    assert batch.links == [decision.span_id]
    assert batch.attributes["stoploss.partition"] == 1
    first, last = (
        batch.attributes["stoploss.first_offset"],
        batch.attributes["stoploss.last_offset"],
    )
    assert isinstance(first, int)
    assert isinstance(last, int)
    assert first <= record.data["input"]["offset"] <= last


async def test_a_batch_without_a_traced_decision_has_no_span(world: World) -> None:
    quiet, loud = world.task_in(0, "QUIET"), world.task_in(0, "LOUD")
    async with collector() as taking:
        traced_by(world, taking)
        async with world.ledger():
            key, small = world.usage(quiet, 1)
            await world.send([(key, small.replace(b'"data"', b'"traceparent": "x", "data"'))])
            await world.send([crossing(world, loud, None)])
            await world.until_folded()
            await world.send([crossing(world, loud + "-2", TRACEPARENT)])
            await taking.until(lambda: bool(taking.named("stoploss.batch")))
    assert sorted(span.name for span in taking.spans) == ["stoploss.batch", "stoploss.decision"]


async def test_a_batch_that_is_not_committed_is_told_of_once_it_is(world: World) -> None:
    task = world.task_in(0)
    async with collector() as taking:
        traced_by(world, taking)
        async with world.ledger() as ledger:
            await world.send([world.usage(task, 1)])
            await world.until_folded()
            usurper = aiokafka.AIOKafkaProducer(
                **world.settings.producer_kwargs(),
                transactional_id=world.settings.transactional_id(0),
            )
            async with usurper:  # whatever the ledger commits next is refused, and folded again
                await world.send([crossing(world, task, TRACEPARENT)])
                await world.until_folded()
            await taking.until(lambda: bool(taking.named("stoploss.batch")))
            await ledger.leave()
        assert sorted(span.name for span in taking.spans) == ["stoploss.batch", "stoploss.decision"]
    await world.assert_verified()


async def test_a_ledger_goes_on_while_a_collector_does_not_answer(world: World) -> None:
    async with collector() as silent:
        silent.answers.clear()
        traced_by(world, silent)
        async with world.ledger():
            await world.send([crossing(world, world.task_in(0), TRACEPARENT)])
            await silent.until(lambda: silent.requests > 0)
            await world.send([crossing(world, world.task_in(1), TRACEPARENT)])
            await world.until_folded()
        assert silent.spans == []
        silent.answers.set()
        await silent.until(lambda: len(silent.named("stoploss.batch")) == 2)
    await world.assert_verified()


async def test_without_the_setting_no_trace_is_made(world: World) -> None:
    before = threading.enumerate()
    async with world.ledger():
        await world.send([crossing(world, world.task_in(0), TRACEPARENT)])
        await world.until_folded()
        begun = [thread.name for thread in threading.enumerate() if thread not in before]
    assert not [name for name in begun if "Span" in name]


@pytest.mark.timeout(400)
async def test_an_alert_is_in_the_trace_of_the_event_that_led_to_it(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    agents: AgentsWorld = await make_agents_world(bootstrap_servers, topic_prefix, AGENTS["alerts"])
    world = World(agents.settings)
    traced, untraced = world.task_in(0, "TRACED"), world.task_in(2, "UNTRACED")
    tasks = {traced, untraced}
    async with collector() as taking:
        traced_by(world, taking)
        worker = await agents.begin(STOPLOSS_OTLP_TRACES_ENDPOINT=taking.endpoint)
        async with world.ledger():
            await world.send(
                [crossing(world, untraced, None), crossing(world, traced, TRACEPARENT)]
            )
            await eventually(lambda: alerts_are_told(world, tasks), within_s=100)
        await taking.until(lambda: len(taking.spans) >= 4)
        await worker.end()
    assert worker.process.returncode == 0, worker.said
    assert sorted(span.name for span in taking.spans) == [
        "stoploss.alert",
        "stoploss.alert",
        "stoploss.batch",
        "stoploss.decision",
    ]
    alerts = {alert.attributes["stoploss.name"]: alert for alert in taking.named("stoploss.alert")}
    assert set(alerts) == NAMES
    for name, alert in alerts.items():
        assert alert.service == "stoploss-agents"
        assert (alert.trace_id, alert.parent_id) == (TRACE, SPAN)
        assert alert.attributes == {
            "stoploss.name": name,
            "stoploss.scope": traced,
            "stoploss.state": "firing",
            "stoploss.severity": "warning",
            "stoploss.number": 1,
        }
    carried = [(one.data["scope"], one.envelope or {}) for one in await world.read(Topic.ALERTS)]
    assert {
        task: {"traceparent" in one for of, one in carried if of == task} for task in tasks
    } == {
        traced: {True},
        untraced: {False},
    }
    assert {one.get("traceparent", TRACEPARENT) for _, one in carried} == {TRACEPARENT}


async def alerts_are_told(world: World, tasks: set[str]) -> bool:
    told = {(seen.data["name"], seen.data["scope"]) for seen in await world.read(Topic.ALERTS)}
    return told == {(name, task) for name in NAMES for task in tasks}
