"""Records that Kafka takes and no client of ours would write hold up nobody."""

import base64
import json
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest

from schemas.letters import original_headers
from schemas.outputs import DeadLetterHeader
from schemas.topics import Topic
from streams.kafka.settings import Driver
from tests.integration.foreign_batch import Foreign, record_batch, send_batch
from tests.integration.kafka_world import World, make_world

pytestmark = pytest.mark.integration

Headers = Sequence[tuple[bytes, bytes | None]]
NOT_UTF_8 = b"\xffname\xc3"


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str, driver: Driver) -> World:
    return await make_world(bootstrap_servers, topic_prefix, partitions=1, driver=driver)


def usage(world: World, tokens: int, headers: Headers = ()) -> Foreign:
    key, value = world.usage("TASK-1", tokens)
    return Foreign(value, key.encode(), headers)


def binary_usage(world: World, tokens: int, headers: Headers) -> Foreign:
    """The same in CloudEvents' binary mode."""
    event = json.loads(world.usage("TASK-1", tokens)[1])
    data = json.dumps(event.pop("data")).encode()
    attributes = [(f"ce_{name}".encode(), str(value).encode()) for name, value in event.items()]
    return Foreign(data, b"TASK-1", [*headers, *attributes])


async def send(world: World, *records: Foreign, compression: str | None = None) -> int:
    batch = record_batch(records, compression)
    return await send_batch(world.settings, world.settings.topic(Topic.EVENTS), 0, batch)


async def letters(world: World) -> list[tuple[int, str, str, str, bytes]]:
    """What each dead letter says: of which offset, why, which field and value, and the bytes."""
    return [
        (
            seen.data["input"]["offset"],
            seen.data["reason"],
            seen.data["detail"]["field"],
            seen.data["detail"].get("value", ""),
            base64.b64decode(seen.data["original"]),
        )
        for seen in await world.read(Topic.DEAD_LETTERS)
    ]


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_a_header_whose_name_is_not_utf_8_costs_its_record_and_no_other(
    world: World, compression: str | None
) -> None:
    poison = world.event("phase.usage", "TASK-1", phase="THINK", input_tokens=1_000_000)
    async with world.ledger():
        first = await send(
            world,
            usage(world, 10),
            Foreign(poison, b"TASK-1", [(b"fine", b"1"), (NOT_UTF_8, None)]),
            usage(world, 20, [("größe".encode(), NOT_UTF_8)]),
            Foreign(None, None, [(NOT_UTF_8, b"")]),
            usage(world, 70_000),
            compression=compression,
        )
        # Not the next offset: a ledger that began slowly writes its policy in between.
        last = await send(world, usage(world, 30))
        await world.until_folded()
    shown = "\ufffdname\ufffd"
    assert await letters(world) == [
        (first + 1, "not_an_event", "headers", shown, poison),
        (first + 3, "not_an_event", "headers", shown, b""),
    ]
    decisions = await world.read(Topic.DECISIONS)
    assert [seen.data["input"]["offset"] for seen in decisions] == [first + 4]
    assert (await world.last(Topic.TASKS))["TASK-1"]["last_offset"] == last
    await world.assert_verified()


async def test_a_second_ledger_reads_on_in_the_middle_of_such_a_batch(world: World) -> None:
    async with world.ledger():
        await send(world, usage(world, 1), Foreign(b"{}", None, [(NOT_UTF_8, b"")]))
        await world.until_folded()
    await send(world, *[Foreign(b"{}", None, [(NOT_UTF_8, b"")])] * 3, usage(world, 2))
    async with world.ledger():
        await world.until_folded()
    assert [letter[1] for letter in await letters(world)] == ["not_an_event"] * 4
    await world.assert_verified()


async def test_what_a_record_may_lack_or_have_too_much_of_is_no_trouble(world: World) -> None:
    many = [(f"header-{number}".encode(), b"x") for number in range(1_000)]
    async with world.ledger():
        first = await send(
            world,
            Foreign(world.usage("TASK-1", 10)[1], None),
            Foreign(None, b"TASK-1"),
            Foreign(b"", b"TASK-1"),
            Foreign(None, None),
            usage(world, 20, many),
            binary_usage(world, 40, many),
            Foreign(b"", b"\xff\xfe"),
            usage(world, 50, [(b"", None)]),
        )
        await world.until_folded()
    found = await letters(world)
    assert [letter[:2] for letter in found] == [
        (first + 1, "not_an_event"),
        (first + 2, "not_json"),
        (first + 3, "not_an_event"),
        (first + 6, "not_json"),
    ]
    await world.assert_verified()


async def test_a_record_in_binary_mode_that_is_refused_keeps_its_headers(world: World) -> None:
    odd: Headers = [(b"mine", NOT_UTF_8), (b"mine", None), (b"ce_x", b"1")]
    usual = binary_usage(world, 0, odd)
    bad = replace(usual, headers=[*usual.headers, (b"ce_type", b"stoploss.imagined")])
    async with world.ledger():
        await send(world, bad, Foreign(b"{}", None, [(NOT_UTF_8, b"1")]), usage(world, 1))
        await world.until_folded()
    first, second = await world.read(Topic.DEAD_LETTERS)
    kept = msgspec.convert(first.data["headers"], list[DeadLetterHeader])
    assert [(name.encode(), value) for name, value in original_headers(kept)] == bad.headers
    assert second.data["headers"] == [{"name_base64": "/25hbWXD", "value": "1"}]
    await world.assert_verified()
