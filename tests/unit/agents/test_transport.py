"""What faust drops between a fetch and its queue is fetched again, and never counts as done.

The transport as it is, on a log in memory instead of a consumer in a thread.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from aiokafka.consumer.subscription_state import Assignment
from aiokafka.structs import TopicPartition
from faust.types import TP
from faust.types.transports import ConsumerT

from streams.agents.app import FaustApp
from streams.agents.baselines import AGENT
from streams.agents.transport import Consumer, ConsumerThread, Fetched, Transport, astray
from streams.kafka.settings import load_settings

SOURCE = TP("stoploss.executions", 0)
BATCH_S = load_settings({}).batch_deadline_ms / 1000
CHANGELOG = TP("stoploss.agents-baselines-count-changelog", 0)


@dataclass
class Kept:
    """A record as a consumer returns it."""

    topic: str
    partition: int
    offset: int
    timestamp: int = 0
    timestamp_type: int = 0
    headers: tuple[()] = ()
    key: bytes | None = None
    value: bytes | None = None
    checksum: int | None = None
    serialized_key_size: int = 0
    serialized_value_size: int = 0


class Log(ConsumerThread):
    """Ten records and a marker in each partition, of which the group has committed none."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - faust's
        super().__init__(*args, **kwargs)
        self.asked: list[dict[TP, int | None]] = []
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def fetch(self, places: Mapping[TP, int | None], timeout_s: float) -> Fetched:
        assert timeout_s > 0
        self.asked.append(dict(places))
        self.is_asked.set()
        await self.may_answer.wait()
        records = {
            tp: [Kept(*tp, at) for at in range(place or 0, 10)] for tp, place in places.items()
        }
        return Fetched(
            records, {tp: 0 for tp in places if places[tp] is None}, dict.fromkeys(places, 11)
        )

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """The next fetch says from where."""


class LogConsumer(Consumer):
    """Reads it."""

    def _new_consumer_thread(self) -> ConsumerThread:
        self.log_read = Log(self, loop=self.loop, beacon=self.beacon)
        return self.log_read


class LogTransport(Transport):
    """Reads it."""

    Consumer: ClassVar[type[ConsumerT]] = LogConsumer


class LogApp(FaustApp):
    """An agent that no broker knows."""

    def _new_transport(self) -> Transport:
        return LogTransport(self.conf.broker_consumer, self)


@pytest.fixture
async def app() -> LogApp:
    app = LogApp(AGENT, load_settings({}))
    for stage in AGENT.stages:
        app.add_stage(stage, 1, never)
    return app


async def never(_queue: object) -> None:
    await asyncio.Event().wait()


@pytest.fixture
async def consumer(app: LogApp) -> AsyncIterator[LogConsumer]:
    """As it is after a restore: everything is paused, and the flow goes on."""
    consumer = app.consumer
    assert isinstance(consumer, LogConsumer)
    consumer.resume_flow()
    yield consumer
    consumer.log_read.thread_loop.close()


async def offsets(consumer: Consumer, count: int = 100) -> list[tuple[TP, int]]:
    """Return what is handed on, up to a number."""
    found: list[tuple[TP, int]] = []
    fetch: AsyncIterator[tuple[TP, Any]] = consumer.getmany(timeout=1.0)
    async for tp, message in fetch:
        found.append((tp, message.offset))
        if len(found) == count:
            break
    return found


def all_of(tp: TP, first: int = 0) -> list[tuple[TP, int]]:
    return [(tp, at) for at in range(first, 10)]


def let_in(consumer: Consumer) -> None:
    consumer.resume_flow()
    consumer.resume_partitions({SOURCE})
    consumer.let_sources_in()


async def test_sources_are_read_once_they_are_let_in_and_from_where_they_were_read_to(
    app: LogApp, consumer: LogConsumer
) -> None:
    consumer.resume_partitions({SOURCE})
    assert await offsets(consumer) == []
    consumer.let_sources_in()
    assert await offsets(consumer) == all_of(SOURCE)
    assert await offsets(consumer) == []
    assert consumer.log_read.asked == [{SOURCE: None}, {SOURCE: 11}]
    assert app.positions.done() == {SOURCE: 0}, "handed on, not done"


async def test_what_is_dropped_because_the_flow_stops_is_read_again(
    app: LogApp, consumer: LogConsumer
) -> None:
    let_in(consumer)
    async for _, message in consumer.getmany(timeout=1.0):
        if message.offset == 3:
            app.positions.finish(message)
            consumer.stop_flow()
    assert app.positions.uncommitted() == {SOURCE: 0}, "those before it are lost"
    let_in(consumer)
    assert await offsets(consumer) == all_of(SOURCE)
    assert consumer.log_read.asked == [{SOURCE: None}, {SOURCE: None}]


async def test_what_was_fetched_when_the_group_moved_is_not_handed_on(
    app: LogApp, consumer: LogConsumer
) -> None:
    let_in(consumer)
    consumer.log_read.is_asked.clear()
    consumer.log_read.may_answer.clear()
    async with asyncio.TaskGroup() as group:
        fetching = group.create_task(offsets(consumer))
        await consumer.log_read.is_asked.wait()
        consumer.stop_flow()
        let_in(consumer)
        consumer.log_read.may_answer.set()
    assert fetching.result() == []
    assert app.positions.done() == {}
    assert await offsets(consumer) == all_of(SOURCE)


async def test_a_restore_that_was_overtaken_lets_nothing_in(
    app: LogApp, consumer: LogConsumer
) -> None:
    consumer.resume_partitions({SOURCE})
    consumer.stop_flow()
    consumer.resume_flow()
    consumer.let_sources_in()
    assert not app.positions.is_open
    assert await offsets(consumer) == []
    assert consumer.log_read.asked == []


async def test_a_changelog_is_read_from_where_the_restore_says_and_not_once_it_is_restored(
    app: LogApp, consumer: LogConsumer
) -> None:
    consumer.resume_partitions({CHANGELOG})
    assert await offsets(consumer) == [], "it has not been said from where"
    await consumer.seek_wait({CHANGELOG: 4})
    assert await offsets(consumer, count=2) == [(CHANGELOG, 4), (CHANGELOG, 5)]
    await consumer.seek_wait({CHANGELOG: 4})
    assert await offsets(consumer) == all_of(CHANGELOG, 4)
    await consumer.seek_wait({CHANGELOG: 4})
    consumer.log_read.is_asked.clear()
    consumer.log_read.may_answer.clear()
    async with asyncio.TaskGroup() as group:
        fetching = group.create_task(offsets(consumer))
        await consumer.log_read.is_asked.wait()
        consumer.pause_partitions({CHANGELOG})
        consumer.log_read.may_answer.set()
    assert fetching.result() == []
    assert app.positions.uncommitted() == {}, "changelogs have no offset of the group"


async def test_who_fails_begins_no_batch_with_what_was_read(
    app: LogApp, consumer: LogConsumer
) -> None:
    let_in(consumer)
    _, message = await anext(consumer.getmany(timeout=1.0))
    assert app.is_current(message)
    app.fail(RuntimeError("as another stage does"))
    assert not app.is_current(message)


@pytest.mark.parametrize(
    ("times_s", "fails"),
    [
        pytest.param([100.0], False, id="the first time says nothing"),
        pytest.param([100.0, 100.0 + BATCH_S, 100.0 + 2 * BATCH_S], False, id="in time"),
        pytest.param([100.0, 101.0, 101.1 + BATCH_S, 101.2 + BATCH_S], True, id="stopped once"),
    ],
)
@pytest.mark.usefixtures("consumer")
async def test_a_process_that_was_stopped_for_longer_than_a_batch_fails(
    app: LogApp, times_s: list[float], *, fails: bool
) -> None:
    for now_s in times_s:
        app.turn(now_s)
    assert app.failed.is_set() is fails
    assert fails is (app.failure is not None and "stood still" in str(app.failure))


@pytest.mark.parametrize(
    ("stands_at", "place", "is_astray"),
    [
        pytest.param(None, None, True, id="nobody knows yet"),
        pytest.param(5, None, True, id="only the group knows"),
        pytest.param(None, 5, True, id="the consumer does not know yet"),
        pytest.param(6, 5, True, id="something was dropped"),
        pytest.param(5, 5, False, id="where it should"),
    ],
)
async def test_a_place_is_looked_up_unless_the_consumer_stands_there(
    stands_at: int | None, place: int | None, *, is_astray: bool
) -> None:
    assignment = Assignment({TopicPartition(*SOURCE)})
    if stands_at is not None:
        assignment.state_value(TopicPartition(*SOURCE)).seek(stands_at)
    assert astray(assignment, {SOURCE: place}) == ({SOURCE: place} if is_astray else {})
