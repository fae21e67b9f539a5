"""What `streams/kafka/ports.py` promises, held against Kafka and against the simulation."""

import asyncio
import base64
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

import aiokafka
import pytest

from schemas.errors import UnavailableError
from schemas.topics import Topic
from streams.kafka.connection import KafkaConnection
from streams.kafka.errors import FencedError, OffsetGoneError, UnconfirmedBatchError
from streams.kafka.librdkafka import config
from streams.kafka.librdkafka.connection import RdConnection
from streams.kafka.librdkafka.reader import Place, PlacedConsumer, Taken
from streams.kafka.ports import (
    END_AGE_MAX_S,
    Chunk,
    Connection,
    PartitionReader,
    PartitionWriter,
    Record,
)
from streams.kafka.producers import fits
from streams.kafka.reader import CHUNK_RECORDS, start_client
from streams.kafka.settings import Settings, load_settings
from streams.kafka.topics import create_or_check_topics
from tests.simulation.broker import Broker
from tests.simulation.faults import Met, Weather
from tests.simulation.links import Link, SimulatedConnection
from tests.simulation.network import Network, Sender

pytestmark = pytest.mark.integration
PARTITION = 1
CONNECTIONS: dict[str, Callable[[Settings, Any, int], Connection]] = {
    "aiokafka": KafkaConnection,
    "librdkafka": RdConnection,
}


class Side(Protocol):
    """One implementation of the ports, on a log of its own."""

    def writer(self) -> PartitionWriter: ...
    def reader(self, topic: Topic) -> PartitionReader: ...
    def record(self, topic: Topic, key: str, value: str | None) -> Record: ...


class SimulatedSide:
    """The ports of the simulation, on a day when nothing goes wrong."""

    def __init__(self) -> None:
        self.settings = Settings(partitions=2)
        chance = random.Random(1)
        weather = Weather(faults=frozenset(), rate=0, latency_s=0.001, crashes=[])
        loop = asyncio.get_running_loop()
        broker = Broker(loop, chance, clock_ms=lambda: 0, tell=lambda _: None)
        network = Network(chance, weather, Met(), at=lambda _sender, _place: None)
        self._link = Link(Sender("test"), broker, network, self.settings, chance)

    def writer(self) -> PartitionWriter:
        return SimulatedConnection(self._link, PARTITION).writer()

    def reader(self, topic: Topic) -> PartitionReader:
        return SimulatedConnection(self._link, PARTITION).reader(self.settings.topic(topic))

    def record(self, topic: Topic, key: str, value: str | None) -> Record:
        return _record(self.settings.topic(topic), key, value)


class KafkaSide:
    """Kafka by one of the drivers."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self.settings, self._connection = settings, connection
        self._writers: list[PartitionWriter] = []

    def writer(self) -> PartitionWriter:
        self._writers.append(self._connection.writer())
        return self._writers[-1]

    def reader(self, topic: Topic) -> PartitionReader:
        return self._connection.reader(self.settings.topic(topic))

    def record(self, topic: Topic, key: str, value: str | None) -> Record:
        return _record(self.settings.topic(topic), key, value)

    async def close(self) -> None:
        for writer in self._writers:
            await writer.close()
        await self._connection.close()


def _record(topic: str, key: str, value: str | None) -> Record:
    return Record(topic, PARTITION, key.encode(), None if value is None else value.encode())


@pytest.fixture
async def settings(bootstrap_servers: str, topic_prefix: str) -> Settings:
    settings = load_settings(
        {}, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix, partitions=2
    )
    await create_or_check_topics(settings)
    return settings


async def side_of(driver: str, settings: Settings) -> KafkaSide:
    topics = [settings.topic(topic) for topic in (Topic.EVENTS, Topic.TASKS, Topic.DECISIONS)]
    client = await start_client(settings, topics, "test")
    connection = CONNECTIONS[driver](settings, client, PARTITION)
    return KafkaSide(settings, connection)


@pytest.fixture
async def aiokafka_side(settings: Settings) -> AsyncIterator[KafkaSide]:
    side = await side_of("aiokafka", settings)
    yield side
    await side.close()


@pytest.fixture
async def librdkafka_side(settings: Settings) -> AsyncIterator[KafkaSide]:
    side = await side_of("librdkafka", settings)
    yield side
    await side.close()


@pytest.fixture
async def simulated() -> SimulatedSide:
    return SimulatedSide()


@pytest.fixture(params=["simulated", *CONNECTIONS])
def side(request: pytest.FixtureRequest) -> Side:
    name = "simulated" if request.param == "simulated" else f"{request.param}_side"
    found: Side = request.getfixturevalue(name)
    return found


@pytest.fixture(params=list(CONNECTIONS))
def kafka(request: pytest.FixtureRequest) -> KafkaSide:
    found: KafkaSide = request.getfixturevalue(f"{request.param}_side")
    return found


async def reads(reader: PartitionReader) -> Sequence[Chunk]:
    """Read; a topic that has just been made may not have its leader on the broker yet."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await reader.read()
            except UnavailableError:
                await asyncio.sleep(0.02)


async def everything(reader: PartitionReader) -> list[tuple[str, str | None]]:
    """Read from the start to the end of what is committed."""
    reader.seek(0)
    await reads(reader)
    end = await reader.end_offset()
    found = []
    offset = 0
    reader.seek(0)
    while offset < end:
        for chunk in await reads(reader):
            found += [
                (
                    (record.key or b"").decode(),
                    None if record.value is None else record.value.decode(),
                )
                for record in chunk.records
            ]
            offset = chunk.next_offset
    return found


async def settled(reader: PartitionReader, expected: list[tuple[str, str | None]]) -> None:
    """Hold what is visible against `expected`; a commit is answered before its markers stand."""
    found = await everything(reader)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            while len(found) < len(expected):
                await asyncio.sleep(0.01)
                found = await everything(reader)
    assert found == expected


async def commit(writer: PartitionWriter, records: Sequence[Record]) -> None:
    batch = writer.batch()
    for record in records:
        batch.produce(record)
    await batch.commit()


async def test_what_is_committed_is_visible_in_order_in_every_topic(side: Side) -> None:
    writer = side.writer()
    await writer.fence()
    for value in ("1", "2", "3"):
        await commit(
            writer,
            [
                side.record(Topic.TASKS, "a", value),
                side.record(Topic.DECISIONS, "a", value),
                side.record(Topic.TASKS, "b", None),
            ],
        )
    await settled(
        side.reader(Topic.TASKS),
        [
            ("a", "1"),
            ("b", None),
            ("a", "2"),
            ("b", None),
            ("a", "3"),
            ("b", None),
        ],
    )
    await settled(side.reader(Topic.DECISIONS), [("a", "1"), ("a", "2"), ("a", "3")])


async def test_an_aborted_batch_is_never_seen_and_the_next_one_is(side: Side) -> None:
    writer = side.writer()
    await writer.fence()
    batch = writer.batch()
    batch.produce(side.record(Topic.TASKS, "a", "lost"))
    await batch.abort()
    await commit(writer, [side.record(Topic.TASKS, "a", "kept")])
    await settled(side.reader(Topic.TASKS), [("a", "kept")])


async def test_an_owner_that_was_replaced_commits_nothing(side: Side) -> None:
    first, second = side.writer(), side.writer()
    await first.fence()
    await commit(first, [side.record(Topic.TASKS, "a", "1")])
    zombie = first.batch()
    zombie.produce(side.record(Topic.TASKS, "a", "of the zombie"))
    await second.fence()
    with pytest.raises(FencedError):
        await zombie.commit()
    await commit(second, [side.record(Topic.TASKS, "a", "2")])
    await settled(side.reader(Topic.TASKS), [("a", "1"), ("a", "2")])


async def test_a_writer_that_was_fenced_may_fence_again(side: Side) -> None:
    first, second = side.writer(), side.writer()
    await first.fence()
    await second.fence()
    with pytest.raises(FencedError):
        await commit(first, [side.record(Topic.TASKS, "a", "1")])
    await first.fence()
    await commit(first, [side.record(Topic.TASKS, "a", "2")])
    await settled(side.reader(Topic.TASKS), [("a", "2")])


@pytest.mark.parametrize("first_by", CONNECTIONS, ids="{} has it".format)
@pytest.mark.parametrize("second_by", CONNECTIONS, ids="{} takes it".format)
async def test_an_owner_is_replaced_whatever_the_drivers_are(
    settings: Settings, first_by: str, second_by: str
) -> None:
    one, other = await side_of(first_by, settings), await side_of(second_by, settings)
    first, second = one.writer(), other.writer()
    await first.fence()
    await commit(first, [one.record(Topic.TASKS, "a", "1")])
    await second.fence()
    await commit(second, [other.record(Topic.TASKS, "a", "2")])
    with pytest.raises(FencedError):
        await commit(first, [one.record(Topic.TASKS, "a", "of the zombie")])
    await settled(one.reader(Topic.TASKS), [("a", "1"), ("a", "2")])
    await one.close()
    await other.close()


async def test_an_empty_batch_commits(side: Side) -> None:
    writer = side.writer()
    await writer.fence()
    await commit(writer, [])
    await settled(side.reader(Topic.TASKS), [])


async def test_a_batch_is_good_for_one_commit(side: Side) -> None:
    writer = side.writer()
    await writer.fence()
    batch = writer.batch()
    await batch.commit()
    with pytest.raises(AssertionError, match="committed cannot be committing"):
        await batch.commit()


async def test_reading_behind_the_end_says_what_is_there(side: Side) -> None:
    reader = side.reader(Topic.TASKS)
    reader.seek(17)
    with pytest.raises(OffsetGoneError) as caught:
        await reads(reader)
    assert (caught.value.offset, caught.value.first, caught.value.end) == (17, 0, 0)


async def test_a_refused_record_takes_its_whole_batch_with_it(kafka: KafkaSide) -> None:
    writer = kafka.writer()
    await writer.fence()
    batch = writer.batch()
    batch.produce(kafka.record(Topic.DECISIONS, "a", "fine"))
    noise = b"".join(b"%d" % (n * 2654435761 % 2**32) for n in range(700_000))  # hardly compresses
    batch.produce(Record(kafka.settings.topic(Topic.TASKS), PARTITION, b"a", noise))
    with pytest.raises(UnconfirmedBatchError):
        await batch.commit()
    await settled(kafka.reader(Topic.DECISIONS), [])
    await writer.fence()
    await commit(writer, [kafka.record(Topic.DECISIONS, "a", "next")])
    await settled(kafka.reader(Topic.DECISIONS), [("a", "next")])


async def test_a_batch_of_more_than_a_driver_queues_is_there_whole(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "QUEUE_BYTES_MAX", 64 * 1024)
    writer = side.writer()
    await writer.fence()
    states: list[tuple[str, str | None]] = [(f"{n}", f"{n:010000d}") for n in range(40)]
    decision = side.record(Topic.DECISIONS, "a", "1")
    await commit(writer, [decision, *(side.record(Topic.TASKS, *state) for state in states)])
    await settled(side.reader(Topic.TASKS), states)
    await settled(side.reader(Topic.DECISIONS), [("a", "1")])


async def test_the_largest_record_that_is_said_to_fit_passes_the_broker(kafka: KafkaSide) -> None:
    """Of the same digits four times over only a thorough compressor finds that they are the same."""
    chance = random.Random(7)
    digits = "".join(chance.choices("0123456789", k=1_250 * 1024)).encode()
    text = base64.b64encode(digits * 4).decode()
    assert fits(text.encode())
    writer = kafka.writer()
    await writer.fence()
    await commit(writer, [kafka.record(Topic.TASKS, "a", text)])
    await settled(kafka.reader(Topic.TASKS), [("a", text)])


async def test_a_record_that_never_fits_its_queue_takes_its_whole_batch_with_it(
    librdkafka_side: KafkaSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "QUEUE_BYTES_MAX", 64 * 1024)
    writer = librdkafka_side.writer()
    await writer.fence()
    small = librdkafka_side.record(Topic.DECISIONS, "a", "1")
    with pytest.raises(UnconfirmedBatchError, match="Queue full"):
        await commit(writer, [small, librdkafka_side.record(Topic.TASKS, "a", "1" * 100_000)])
    await settled(librdkafka_side.reader(Topic.DECISIONS), [])


async def test_a_cancelled_commit_leaves_all_or_nothing(kafka: KafkaSide) -> None:
    writer = kafka.writer()
    await writer.fence()
    batch = writer.batch()
    records = [kafka.record(topic, "a", "1") for topic in (Topic.TASKS, Topic.DECISIONS)]
    for record in records:
        batch.produce(record)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(batch.commit())
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    await writer.fence()
    tasks = await everything(kafka.reader(Topic.TASKS))
    assert tasks == await everything(kafka.reader(Topic.DECISIONS))
    assert tasks in ([], [("a", "1")])


async def test_other_producers_open_and_aborted_transactions_are_not_read(kafka: KafkaSide) -> None:
    events = kafka.settings.topic(Topic.EVENTS)
    producer = aiokafka.AIOKafkaProducer(
        **kafka.settings.producer_kwargs(), transactional_id=f"{events}-operator"
    )
    async with producer:
        for value, commits in ((b"1", True), (b"aborted", False), (b"2", True), (b"3", True)):
            await producer.begin_transaction()
            await producer.send_and_wait(events, value, b"k", PARTITION)
            await (producer.commit_transaction() if commits else producer.abort_transaction())
        await producer.begin_transaction()
        await producer.send_and_wait(events, b"open", b"k", PARTITION)
        reader = kafka.reader(Topic.EVENTS)
        await settled(reader, [("k", "1"), ("k", "2"), ("k", "3")])
        assert await reads(reader) == []
        await producer.commit_transaction()
    await settled(reader, [("k", "1"), ("k", "2"), ("k", "3"), ("k", "open")])


async def test_the_end_that_a_chunk_tells_has_no_open_transaction_before_it(
    kafka: KafkaSide,
) -> None:
    events = kafka.settings.topic(Topic.EVENTS)
    operator = aiokafka.AIOKafkaProducer(
        **kafka.settings.producer_kwargs(), transactional_id=f"{events}-operator"
    )
    async with operator, aiokafka.AIOKafkaProducer(**kafka.settings.producer_kwargs()) as plain:
        await plain.send_and_wait(events, b"1", b"k", PARTITION)
        await operator.begin_transaction()
        open_at = await operator.send_and_wait(events, b"open", b"k", PARTITION)
        await plain.send_and_wait(events, b"hidden", b"k", PARTITION)
        chunks = await reads(kafka.reader(Topic.EVENTS))
        assert [chunk.end_offset for chunk in chunks] == [open_at.offset]
        await operator.commit_transaction()


async def all_chunks(reader: PartitionReader) -> list[Chunk]:
    """Read from the start to the end of what is committed; each chunk goes on where the last ended."""
    await reads(reader)
    reader.seek(0)
    end, chunks = await reader.end_offset(), list[Chunk]()
    while not chunks or chunks[-1].next_offset < end:
        chunks += await reads(reader)
    begins = [0, *[chunk.next_offset for chunk in chunks]]
    assert [chunk.offset for chunk in chunks] == begins[:-1]
    assert all(chunk.is_whole for chunk in chunks)
    return chunks


async def test_every_offset_is_a_record_or_is_accounted_for(side: Side) -> None:
    writer = side.writer()
    await writer.fence()
    for _ in range(3):
        await commit(writer, [side.record(Topic.TASKS, "a", str(n)) for n in range(5)])
    await settled(side.reader(Topic.TASKS), [("a", str(n)) for _ in range(3) for n in range(5)])
    chunks = await all_chunks(side.reader(Topic.TASKS))
    assert sum(len(chunk.records) for chunk in chunks) == 15
    assert sum(chunk.passed for chunk in chunks) == 3, "the marker of each transaction"
    assert sum(chunk.gone for chunk in chunks) == 0


async def test_what_was_aborted_is_passed_and_not_gone(kafka: KafkaSide) -> None:
    events = kafka.settings.topic(Topic.EVENTS)
    operator = aiokafka.AIOKafkaProducer(
        **kafka.settings.producer_kwargs(), transactional_id=f"{events}-operator"
    )
    async with operator, aiokafka.AIOKafkaProducer(**kafka.settings.producer_kwargs()) as plain:
        for number, commits in enumerate((True, False, True)):
            await plain.send_and_wait(events, b"plain %d" % number, b"k", PARTITION)
            await operator.begin_transaction()
            for _ in range(2):
                await operator.send_and_wait(events, b"of the operator", b"k", PARTITION)
            await (operator.commit_transaction() if commits else operator.abort_transaction())
        await plain.send_and_wait(events, b"the last", b"k", PARTITION)
        chunks = await all_chunks(kafka.reader(Topic.EVENTS))
    assert sum(len(chunk.records) for chunk in chunks) == 3 + 4 + 1
    assert sum(chunk.passed for chunk in chunks) == 3 + 2, "the markers, and what was aborted"
    assert sum(chunk.gone for chunk in chunks) == 0


async def test_reading_from_within_a_batch_accounts_for_what_is_read(kafka: KafkaSide) -> None:
    writer = kafka.writer()
    await writer.fence()
    await commit(writer, [kafka.record(Topic.TASKS, "a", str(n)) for n in range(5)])
    await settled(kafka.reader(Topic.TASKS), [("a", str(n)) for n in range(5)])
    reader = kafka.reader(Topic.TASKS)
    reader.seek(3)
    first, *_ = await reads(reader)
    assert (first.offset, len(first.records), first.is_whole) == (3, 2, True)


async def test_what_librdkafka_has_not_given_is_asked_for_again(
    librdkafka_side: KafkaSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of what it passes over, so that nobody would notice what is lost on the way."""
    events = librdkafka_side.settings.topic(Topic.EVENTS)
    values = [b"%d" % number for number in range(10)]
    async with aiokafka.AIOKafkaProducer(**librdkafka_side.settings.producer_kwargs()) as producer:
        sent = [await producer.send(events, value, b"k", PARTITION) for value in values]
        await asyncio.gather(*sent)
    take, lost = PlacedConsumer.take, list[object]()

    def loses_one(self: PlacedConsumer, place: Place, offset: int) -> Taken:
        taken = take(self, place, offset)
        if not lost and len(taken.records) > 1:
            lost.append(taken.records.pop(0))
        return taken

    monkeypatch.setattr(PlacedConsumer, "take", loses_one)
    reader = librdkafka_side.reader(Topic.EVENTS)
    found: list[bytes | None] = []
    said: list[str] = []
    async with asyncio.timeout(20):
        while len(found) < len(values):
            try:
                found += [one.value for chunk in await reader.read() for one in chunk.records]
            except UnavailableError as error:
                said.append(str(error))
    assert found == values
    assert lost
    assert any("1 more are there" in line for line in said), said


async def test_the_end_that_a_chunk_tells_is_not_older_than_promised(kafka: KafkaSide) -> None:
    events = kafka.settings.topic(Topic.EVENTS)
    reader = kafka.reader(Topic.EVENTS)
    async with aiokafka.AIOKafkaProducer(**kafka.settings.producer_kwargs()) as producer:
        await append(producer, events, count=5_000)  # more than two reads bring
        assert {chunk.end_offset for chunk in await reads(reader)} == {5_000}
        await append(producer, events, count=1)
    await asyncio.sleep(END_AGE_MAX_S)
    assert {chunk.end_offset for chunk in await reads(reader)} == {5_001}


async def test_an_end_that_was_reached_before_more_came_is_not_told(kafka: KafkaSide) -> None:
    events = kafka.settings.topic(Topic.EVENTS)
    reader = kafka.reader(Topic.EVENTS)
    async with aiokafka.AIOKafkaProducer(**kafka.settings.producer_kwargs()) as producer:
        await append(producer, events, count=1)
        assert [chunk.next_offset for chunk in await reads(reader)] == [1]
        await append(producer, events, count=3_000)  # more than a read brings
    async with asyncio.timeout(10):
        while not (chunks := await reads(reader)):
            pass
    assert {chunk.end_offset for chunk in chunks} == {3_001}


async def append(producer: aiokafka.AIOKafkaProducer, topic: str, *, count: int) -> None:
    """Append records of 2,500 bytes."""
    sent = [await producer.send(topic, b"1" * 2_500, b"k", PARTITION) for _ in range(count)]
    await asyncio.gather(*sent)


async def test_what_a_cancelled_read_had_taken_comes_with_the_next(kafka: KafkaSide) -> None:
    events = kafka.settings.topic(Topic.EVENTS)
    reader = kafka.reader(Topic.EVENTS)
    assert await reads(reader) == []
    async with asyncio.TaskGroup() as group:
        task = group.create_task(reader.read())
        await asyncio.sleep(0)
        task.cancel()
    async with aiokafka.AIOKafkaProducer(**kafka.settings.producer_kwargs()) as producer:
        await producer.send_and_wait(events, b"1", b"k", PARTITION)
    found: list[bytes | None] = []
    async with asyncio.timeout(10):
        while not found:
            found += [record.value for chunk in await reads(reader) for record in chunk.records]
    assert found == [b"1"]


async def test_a_read_that_failed_halfway_has_lost_nothing(
    kafka: KafkaSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = kafka.settings.topic(Topic.EVENTS)
    values = [f"{number}".encode() for number in range(CHUNK_RECORDS + 500)]
    async with aiokafka.AIOKafkaProducer(**kafka.settings.producer_kwargs()) as producer:
        sent = [await producer.send(events, value, b"k", PARTITION) for value in values]
        await asyncio.gather(*sent)
    reader = kafka.reader(Topic.EVENTS)
    ask, asked = reader.end_offset, 0

    async def fails_once() -> int:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise UnavailableError("the leader has moved")
        return await ask()

    monkeypatch.setattr(reader, "end_offset", fails_once)
    found: list[bytes | None] = []
    async with asyncio.timeout(20):
        while len(found) < len(values):
            with contextlib.suppress(UnavailableError):
                found += [one.value for chunk in await reader.read() for one in chunk.records]
    assert found == values


async def test_the_append_time_is_the_brokers(kafka: KafkaSide) -> None:
    events = kafka.settings.topic(Topic.EVENTS)
    async with aiokafka.AIOKafkaProducer(**kafka.settings.producer_kwargs()) as producer:
        await producer.send_and_wait(events, b"1", b"k", PARTITION, timestamp_ms=1_000)
        written = await producer.send_and_wait(
            events, b"2", b"k", PARTITION, headers=[("ce_id", b"17")]
        )
    chunks = await reads(kafka.reader(Topic.EVENTS))
    first, second = [record for chunk in chunks for record in chunk.records]
    assert first.timestamp > 1_000
    assert (second.timestamp, list(second.headers)) == (written.timestamp, [("ce_id", b"17")])


async def test_reading_begins_at_the_offset_also_inside_a_record_batch(kafka: KafkaSide) -> None:
    writer = kafka.writer()
    await writer.fence()
    await commit(writer, [kafka.record(Topic.TASKS, "a", str(n)) for n in range(5)])
    reader = kafka.reader(Topic.TASKS)
    reader.seek(3)
    await settled(kafka.reader(Topic.TASKS), [("a", str(n)) for n in range(5)])
    chunks = await reads(reader)
    assert [record.offset for chunk in chunks for record in chunk.records] == [3, 4]
