"""What is held against the ledgers' records: the load is known, and damage is found."""

import pytest

from schemas.decode import Refusal, decode_event
from streams.kafka.settings import Settings
from tests.faults import check
from tests.faults.feed import Feed
from tests.faults.load import Expected, Load, Said
from tests.integration.kafka_world import eventually, make_world

RECORDS = 3_000


def everything(load: Load) -> list[Said]:
    return load.take(RECORDS) + [said for some in load.rest() for said in some]


def test_the_same_seed_says_the_same_and_another_one_does_not() -> None:
    first, again, other = (everything(Load(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_all_kinds_of_trouble_are_in_it_and_only_bad_ones_are_refused() -> None:
    load = Load(3)
    said = everything(load)
    expected = load.expected
    assert min(expected.twice, expected.overtaken, expected.held, expected.binary) > 0
    refused = [one for one in said if isinstance(decode_event(one.value, one.headers), Refusal)]
    assert 0 < len(refused) < expected.bad  # some are refused by the fold only
    assert all(b"bad:" in one.value for one in refused)
    assert expected.records == len(said) == expected.distinct + expected.twice + expected.bad


@pytest.mark.integration
async def test_what_is_counted_is_what_was_sent_and_any_damage_shows(
    bootstrap_servers: str, topic_prefix: str
) -> None:
    world = await make_world(bootstrap_servers, topic_prefix)
    load = Load(4, families=10)
    feed = Feed(world.settings, lambda _partition, _offset, _append_ms: None)
    await feed.deliver(load.take(RECORDS))
    await feed.finish(load)
    await feed.close()
    async with world.ledger():
        await eventually(lambda: _adds_up(world.settings, load.expected))
    await world.assert_verified()
    counted = await check.count(world.settings)
    assert check.differences(load.expected, 0, counted) == []
    counted.calls[17] += 1
    counted.calls[18] -= 1
    counted.emitted += 1
    counted.letters.remove(0)
    assert [said.split(":")[0] for said in check.differences(load.expected, 0, counted)] == [
        "tasks of bucket 17",
        "tasks of bucket 18",
        "emitter",
        "1 bad records have no dead letter, 0 first",
    ]


async def _adds_up(settings: Settings, expected: Expected) -> bool:
    return check.differences(expected, 0, await check.count(settings)) == []
