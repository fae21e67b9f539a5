"""`tasks` loses all of its records: nobody takes that for a beginning, and it can be rebuilt."""

from collections.abc import Awaitable, Callable
from functools import partial

import aiokafka
import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import TopicPartition

from schemas.errors import UnavailableError
from schemas.topics import OUTPUTS, SPECS, Topic, topic_config
from streams.cli import recovering
from streams.cli.recovering import in_parts, rebuild_record
from streams.kafka.ports import Record
from streams.kafka.session import KafkaBatch, KafkaWriter
from streams.kafka.settings import Driver, Settings
from streams.ledger.health import Health
from streams.verify.refold import verify
from streams.verify.second import judge
from tests.integration.kafka_world import RunningLedger, Seen, World, eventually, make_world
from tests.integration.recorded_log import POLICY, remove_first_events
from tests.integration.shell import Ran, environ, stoploss

pytestmark = pytest.mark.integration
OWN = "partition/0"
LOST = (
    "tasks, partition 0, key partition/0: it is not there, and what its events have caused is, in "
    "decisions; `stoploss recover partition/0 --reason …` rebuilds it from events"
)
Empty = Callable[[Settings], Awaitable[None]]


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> World:
    return await worked(bootstrap_servers, topic_prefix, "aiokafka")


async def worked(bootstrap_servers: str, topic_prefix: str, driver: Driver) -> World:
    """Two partitions; in the first a family and a forgotten task; the ledger has been stopped."""
    made = await make_world(bootstrap_servers, topic_prefix, driver=driver)
    parent = made.task_in(0)
    async with made.ledger():
        await made.set_policy(POLICY)
        started = made.event("task.started", "CHILD", parent_task_id=parent)
        ended = [
            (parent, made.event("phase.usage", "GONE", phase="PLAN", input_tokens=90_000)),
            (parent, made.event("task.ended", "GONE")),
        ]
        await made.send([*ended, made.usage(parent, 70_000), (parent, started)])
        await made.send([(parent, made.usage("CHILD", 5)[1]), made.usage(made.task_in(1), 7)])
        await eventually(lambda: _is_forgotten(made, "GONE"))
        await made.until_folded()
        await made.send([made.usage(parent, 1)])
        await made.until_folded()
    return made


async def _is_forgotten(world: World, task: str) -> bool:
    return any(seen.key == task and seen.envelope is None for seen in await world.read(Topic.TASKS))


async def recreated(settings: Settings) -> None:
    """Somebody has deleted the topic, and made it anew."""
    name = settings.topic(Topic.TASKS)
    admin = AIOKafkaAdminClient(**settings.admin_kwargs())
    await admin.start()
    try:
        await admin.delete_topics([name])
        await eventually(lambda: _is_there(admin, name, wanted=False))
        new = NewTopic(name, settings.partitions, 1, topic_configs=topic_config(Topic.TASKS))
        await admin.create_topics([new])
        await eventually(lambda: _is_there(admin, name, wanted=True))
    finally:
        await admin.close()


async def _is_there(admin: AIOKafkaAdminClient, name: str, *, wanted: bool) -> bool:
    led = [
        topic["topic"]
        for topic in await admin.describe_topics()
        if topic["partitions"] and all(one["leader"] >= 0 for one in topic["partitions"])
    ]
    return (name in led) is wanted


async def deleted(settings: Settings, topic: Topic = Topic.TASKS) -> None:
    """Somebody has made retention of a compacted topic, which has removed all of its records."""
    name = settings.topic(topic)
    admin = AIOKafkaAdminClient(**settings.admin_kwargs())
    await admin.start()
    try:
        for policy in ("delete", SPECS[topic].config["cleanup.policy"]):
            change = {"cleanup.policy": policy}
            resource = ConfigResource(ConfigResourceType.TOPIC, name, change)
            await admin.alter_configs([resource])
            if policy == "delete":
                count = SPECS[topic].partitions or settings.partitions
                everything = {
                    TopicPartition(name, one): RecordsToDelete(-1) for one in range(count)
                }
                await admin.delete_records(everything)
    finally:
        await admin.close()


emptied = pytest.mark.parametrize(
    "empty",
    [
        pytest.param(recreated, id="the topic is made anew"),
        pytest.param(deleted, id="its records are deleted"),
    ],
)


async def run(world: World, *arguments: str) -> Ran:
    return await stoploss(*arguments, env=environ(world.settings))


async def outputs(world: World) -> dict[Topic, list[Seen]]:
    return {topic: await world.read(topic) for topic in OUTPUTS}


async def until_still(ledger: RunningLedger) -> None:
    async def is_still() -> bool:
        why = ledger.health.reasons
        return ledger.health.state is Health.STANDING_STILL and set(why) == {
            "partition 0",
            "partition 1",
        }

    await eventually(is_still)


async def _runs(ledger: RunningLedger) -> bool:
    return ledger.health.state is Health.RUNNING


async def rebuild(world: World, key: str) -> None:
    ran = await run(world, "recover", key, "--reason", "tasks was emptied", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.answer["done"] == "rebuilt"


@emptied
async def test_a_ledger_begins_nothing_anew_and_goes_on_from_what_is_rebuilt(
    bootstrap_servers: str, topic_prefix: str, driver: Driver, empty: Empty
) -> None:
    world = await worked(bootstrap_servers, topic_prefix, driver)
    before, states = await outputs(world), await world.last(Topic.TASKS)
    parent = world.task_in(0)
    await empty(world.settings)
    async with world.ledger() as ledger:
        await until_still(ledger)
        assert ledger.health.reasons["partition 0"] == LOST
        assert await outputs(world) == before
        found = await run(world, "doctor", "--json")
        (about,) = [one for one in found.answer["findings"] if one["about"].endswith(OWN)]
        assert about["remedy"] == f"stoploss recover {OWN} --reason …"
        await rebuild(world, OWN)
        await rebuild(world, "partition/1")
        await eventually(lambda: _runs(ledger))
        restored = await world.last(Topic.TASKS)
        assert {key for key in restored if not key.startswith("partition/")} == {
            key for key in states if not key.startswith("partition/")
        }
        assert (restored["CHILD"], restored[parent]) == (states["CHILD"], states[parent])
        await world.send([world.usage(parent, 13), (parent, world.usage("CHILD", 17)[1])])
        await world.until_folded()
    await world.assert_verified()
    assert (await judge(world.settings)).equal


async def told(world: World) -> list[tuple[str, str, str]]:
    """What both judges name in partition 0: which of them, of which topic, which key."""
    first = (await verify(world.settings)).partitions[0].difference
    second = (await judge(world.settings)).partitions[0].difference
    return [
        (by, one.topic, one.key)
        for by, one in (("verify", first), ("independent", second))
        if one is not None
    ]


@emptied
@pytest.mark.parametrize("first", [0, 2], ids="events begin at {}".format)
async def test_both_judges_name_what_is_lost(world: World, empty: Empty, first: int) -> None:
    """Also where the first events are gone, and nothing else can be judged any more."""
    await empty(world.settings)
    if first:
        await remove_first_events(world.settings, {0: first})
    tasks = world.settings.topic(Topic.TASKS)
    assert await told(world) == [("verify", tasks, OWN), ("independent", tasks, OWN)]
    assert (await run(world, "verify")).code == 1
    assert (await run(world, "verify", "--independent")).code == 1


@emptied
async def test_without_the_first_events_nothing_is_rebuilt_and_the_ledger_stands(
    world: World, empty: Empty
) -> None:
    before = await outputs(world)
    await empty(world.settings)
    await remove_first_events(world.settings, {0: 2})
    async with world.ledger() as ledger:
        await until_still(ledger)
        for key in (OWN, "CHILD"):
            ran = await run(world, "recover", key, "--partition", "0", "--reason", "tasks is empty")
            assert (ran.code, ran.out) == (1, "")
            assert ran.err == (
                f"tasks, partition 0, key {key}: cannot be rebuilt: `events` begins at offset 2, and "
                "`tasks` has lost what came before\n"
            )
        await until_still(ledger)
    assert await world.read(Topic.TASKS) == []
    assert await outputs(world) == before


async def test_events_that_caused_nothing_but_states_are_folded_once_where_nothing_names_them(
    world: World,
) -> None:
    """Heartbeats are kept for an hour: then the last decision or the like is the last trace."""
    async with world.ledger():
        await world.send([world.usage(world.task_in(0), 1) for _ in range(3)])
        await world.until_folded()
    await recreated(world.settings)
    await deleted(world.settings, Topic.HEARTBEATS)
    async with world.ledger() as ledger:
        await until_still(ledger)
        await rebuild(world, OWN)
        await rebuild(world, "partition/1")
        await world.until_folded()
    await world.assert_verified()


async def test_a_task_of_an_emptied_topic_is_not_rebuilt_without_its_partition(
    world: World,
) -> None:
    await recreated(world.settings)
    ran = await run(world, "recover", "CHILD", "--partition", "0", "--reason", "tasks is empty")
    assert (ran.code, ran.out) == (1, "")
    assert "partition/0 is torn as well; `stoploss recover partition/0 --reason …` first" in ran.err
    assert await world.read(Topic.TASKS) == []


async def test_more_than_one_transaction_of_tasks_lets_no_ledger_in_between(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a million tasks would be; the first part alone is what a crash leaves."""
    states = await world.last(Topic.TASKS)
    whole = await world.read(Topic.TASKS)
    await recreated(world.settings)
    monkeypatch.setattr(recovering, "PART_BYTES_MAX", 1)
    child = [seen for seen in whole if seen.key == "CHILD"][-1]
    writes = [(b"CHILD", msgspec.json.encode(child.envelope)), (OWN.encode(), b"never comes")]
    await commit(world, in_parts(writes, OWN.encode())[0])
    async with world.ledger() as ledger:
        await until_still(ledger)
        assert (
            "key partition/0: it is not there, and tasks are; "
            in (ledger.health.reasons["partition 0"])
        )
        for partition, key in enumerate((OWN, "partition/1")):
            outcome = await rebuild_record(
                world.settings, key, partition, by="ann", reason="empty", timeout_s=30
            )
            assert outcome.done == "rebuilt"
        await eventually(lambda: _runs(ledger))
    written = [seen for seen in await world.read(Topic.TASKS) if seen.partition == 0]
    assert [seen.key for seen in written if seen.envelope is None][:2] == [OWN, OWN]
    assert (await world.last(Topic.TASKS))["CHILD"] == states["CHILD"]
    await world.assert_verified()


class Overtaken:
    """A writer of a partition that others take over before its second transaction is committed."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self._settings, self._partition = settings, partition
        self._writer = KafkaWriter(settings, partition)
        self._begun = 0

    async def fence(self) -> None:
        await self._writer.fence()

    def batch(self) -> "OvertakenBatch":
        self._begun += 1
        usurper = None if self._begun == 1 else KafkaWriter(self._settings, self._partition)
        return OvertakenBatch(self._writer.batch(), usurper)

    async def close(self) -> None:
        await self._writer.close()


class OvertakenBatch:
    """Committed after the usurper, if there is one, has begun."""

    def __init__(self, batch: KafkaBatch, usurper: KafkaWriter | None) -> None:
        self._batch, self._usurper = batch, usurper

    def produce(self, record: Record) -> None:
        self._batch.produce(record)

    async def commit(self) -> None:
        if self._usurper is not None:
            await self._usurper.fence()
            await self._usurper.close()
        await self._batch.commit()


async def test_who_is_overtaken_between_transactions_hears_what_was_written_and_how_it_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await recreated(world.settings)
    monkeypatch.setattr(recovering, "PART_BYTES_MAX", 1)
    monkeypatch.setattr(recovering, "KafkaWriter", Overtaken)
    recover = partial(
        rebuild_record, world.settings, OWN, 0, by="ann", reason="empty", timeout_s=30
    )
    with monkeypatch.context() as once:
        once.setattr(recovering, "TAKE_OVER_ATTEMPTS", 1)
        with pytest.raises(UnavailableError) as refused:
            await recover()
    assert str(refused.value) == (
        "partition 0: others took it over 1 times before the record was written; 1 record was written, "
        "and no ledger goes on before partition/0, which comes last: try again, and what is missing is "
        "written"
    )
    (first,) = await world.last(Topic.TASKS)
    async with world.ledger():
        outcome = await recover()
    of_partition = {
        seen.key for seen in await world.read(Topic.TASKS) if seen.partition == 0 and seen.envelope
    }
    assert [*outcome.keys[-1:], *sorted(outcome.keys[:-1])] == [
        OWN,
        *sorted(of_partition - {first, OWN}),
    ]


async def commit(world: World, part: list[tuple[bytes, bytes | None]]) -> None:
    """Commit a part of what is made anew, as the owner of partition 0."""
    writer = KafkaWriter(world.settings, 0)
    await writer.fence()
    batch = writer.batch()
    for key, value in part:
        batch.produce(Record(world.settings.topic(Topic.TASKS), 0, key, value))
    await batch.commit()
    await writer.close()


async def test_a_task_that_is_missing_comes_back_with_the_record_of_its_partition(
    world: World,
) -> None:
    states = await world.last(Topic.TASKS)
    async with aiokafka.AIOKafkaProducer(**world.settings.producer_kwargs()) as producer:
        await producer.send_and_wait(world.settings.topic(Topic.TASKS), None, b"CHILD", 0)
    async with world.ledger() as ledger:
        await rebuild(world, OWN)
        await eventually(lambda: _runs(ledger))
    assert (await world.last(Topic.TASKS))["CHILD"] == states["CHILD"]
    await world.assert_verified()


async def test_what_others_have_written_to_an_output_topic_holds_up_no_beginning(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    world = await make_world(bootstrap_servers, topic_prefix)
    strange = [b"no json", b"[1]", b'{"id": "0-1-0", "source": "somebody else"}', None]
    async with aiokafka.AIOKafkaProducer(**world.settings.producer_kwargs()) as producer:
        for value in strange:
            await producer.send_and_wait(world.settings.topic(Topic.DECISIONS), value, b"k", 0)
    async with world.ledger() as ledger:
        await world.send([world.usage(world.task_in(0), 5)])
        await world.until_folded()
        assert ledger.health.state is Health.RUNNING
