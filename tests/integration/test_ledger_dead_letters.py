"""What cannot be folded is kept whole where a person can see it, and holds up nobody."""

import base64
import json
import random

import aiokafka
import pytest

from schemas.topics import EVENT_BYTES_MAX, Topic
from tests.integration.kafka_world import Seen, World, eventually, make_world

pytestmark = pytest.mark.integration


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> World:
    return await make_world(bootstrap_servers, topic_prefix, partitions=1)


def changed(world: World, **attributes: object) -> bytes:
    event = json.loads(world.event("phase.usage", "TASK-1", phase="THINK", input_tokens=1))
    del event["sequence"]  # else what is sent later is taken for a repetition
    return json.dumps(event | attributes).encode()


async def letters(world: World) -> list[Seen]:
    return await world.read(Topic.DEAD_LETTERS)


async def test_every_reason_has_its_letter_and_the_good_events_between_count(world: World) -> None:
    bad = [
        ("not_json", b'{"specversion":'),
        ("not_json", b"\xff\xfe\x00"),
        ("not_an_event", b'{"answer": 42}'),
        ("unknown_type", changed(world, type="stoploss.phase.imagined")),
        ("invalid_field", changed(world, data={"phase": "THINK", "input_tokens": -1})),
        ("invalid_field", changed(world, data={"phase": "NO_SUCH", "input_tokens": 1})),
    ]
    async with world.ledger():
        for _, value in bad:
            await world.send([("a key", value), world.usage("TASK-1", 10)])
        await world.until_folded()
    found = await letters(world)
    assert [seen.data["reason"] for seen in found] == [reason for reason, _ in bad]
    assert [base64.b64decode(seen.data["original"]) for seen in found] == [one for _, one in bad]
    assert {seen.key for seen in found} == {"a key"}
    for seen in found:
        where = seen.data["input"]
        assert where["topic"] == world.settings.topic(Topic.EVENTS)
        assert (where["partition"], where["key"]) == (0, "a key")
        assert seen.id.startswith(f"0-{where['offset']}-")
        assert seen.data["detail"]["field"]


async def test_a_deleted_key_is_no_event(world: World) -> None:
    async with world.ledger():
        await _send_raw(world, None, value=None)
        await world.send([world.usage("TASK-1", 1)])
        await world.until_folded()
    (letter,) = await letters(world)
    assert (letter.data["reason"], letter.data["original"]) == ("not_an_event", "")


async def test_the_largest_record_that_the_broker_takes_is_kept_whole(world: World) -> None:
    largest = bytes(n * n % 251 for n in range(EVENT_BYTES_MAX + 60 * 1024))
    async with world.ledger():
        await _send_raw(world, None, value=largest)
        await world.send([world.usage("TASK-1", 1)])
        await world.until_folded()
    (letter,) = await letters(world)
    assert letter.data["reason"] == "too_large"
    assert base64.b64decode(letter.data["original"]) == largest


@pytest.mark.parametrize("compression", ["gzip", "lz4", "zstd", "snappy"])
async def test_a_record_that_is_large_only_when_unpacked_is_kept_whole(
    world: World, compression: str
) -> None:
    zeros = bytes(20 * 1024 * 1024)
    async with world.ledger():
        await _send_raw(world, compression, value=zeros)
        await world.send([world.usage("TASK-1", 1)])
        await world.until_folded()
    (letter,) = await letters(world)
    assert letter.data["reason"] == "too_large"
    assert base64.b64decode(letter.data["original"]) == zeros


async def test_what_does_not_pass_as_base64_is_kept_in_part_and_says_so(world: World) -> None:
    # zstd finds a repetition that is 1 MB away, our lz4 does not.
    value = random.Random(1).randbytes(500_000).hex().encode() * 12
    async with world.ledger():
        await _send_raw(world, "zstd", value=value)
        await world.send([world.usage("TASK-1", 1)])
        await world.until_folded()
    (letter,) = await letters(world)
    kept = base64.b64decode(letter.data["original"])
    assert value.startswith(kept)
    assert (
        f"only the first {len(kept)} of {len(value)} bytes are kept here"
        in (letter.data["detail"]["allowed"])
    )


async def _send_raw(world: World, compression: str | None, value: bytes | None) -> None:
    producer = aiokafka.AIOKafkaProducer(
        **world.settings.producer_kwargs() | {"max_request_size": 64 * 1024 * 1024},
        compression_type=compression,
    )
    async with producer:
        await producer.send_and_wait(world.settings.topic(Topic.EVENTS), value, b"k", 0)


async def test_a_second_ledger_goes_on_behind_the_bad_ones(world: World) -> None:
    await world.send([("k", b"bad")] * 3)
    async with world.ledger():
        await eventually(lambda: _count(world, 3))
    await world.send([("k", b"bad")])
    async with world.ledger():
        await eventually(lambda: _count(world, 4))
    assert len({seen.id for seen in await letters(world)}) == 4


async def _count(world: World, count: int) -> bool:
    return len(await letters(world)) == count
