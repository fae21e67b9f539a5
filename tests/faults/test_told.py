"""What agents have written is held against what they would have written: damage to it is found."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from schemas.topics import Topic
from streams.agents import alerts, baselines
from streams.kafka.settings import Settings
from tests.faults.feed import Feed
from tests.faults.load import Load
from tests.faults.result import Told
from tests.faults.told import DIED_SAYING, compare, never_said_again, until_all_is_told
from tests.faults.undisturbed import Logs, Read, read_logs
from tests.integration.kafka_world import make_world
from tests.integration.shell import environ, start

pytestmark = [pytest.mark.integration, pytest.mark.timeout(700)]

RECORDS = 1_500
WITHIN_S = 250.0  # beside other work on the machine


@pytest.fixture
async def settings(bootstrap_servers: str, topic_prefix: str) -> AsyncIterator[Settings]:
    """A ledger and all agents have worked on some of the load."""
    world = await make_world(bootstrap_servers, topic_prefix, 4)
    load = Load(5, families=20, usages=4)
    feed = Feed(world.settings, lambda _partition, _offset, _append_ms: None)
    own = environ(world.settings)
    agents = await start("agents", env=own, stdout=asyncio.subprocess.DEVNULL)
    try:
        async with world.ledger():
            await feed.deliver(load.take(RECORDS))
            await feed.finish(load)
            await feed.close()
            await until_all_is_told(world.settings, WITHIN_S)
        yield world.settings
    finally:
        agents.terminate()
        await agents.communicate()


def changed(logs: Logs, topic: str, where: int, change: dict[str, Any]) -> Logs:
    """Return the logs with another value in one record."""
    records = list(logs[topic, 0])
    value = msgspec.json.decode(records[where].value or b"")
    records[where] = records[where]._replace(value=msgspec.json.encode(value | change))
    return {**logs, (topic, 0): records}


def without(logs: Logs, topic: str, where: int) -> Logs:
    """Return the logs without one record."""
    records: list[Read] = list(logs[topic, 0])
    del records[where]
    return {**logs, (topic, 0): records}


async def test_what_nobody_has_disturbed_is_the_same_and_any_damage_shows(
    settings: Settings,
) -> None:
    logs = await read_logs(settings)
    told, wrong = compare(logs)
    assert wrong == []
    assert min(told.distinct.values()) > 0
    assert set(told.repeated.values()) == {0}
    for topic, place, what in (
        (Topic.AUDIT, 0, "audit"),
        (alerts.SIGNALS.topic, first_counted(logs), "signals of alerts"),
    ):
        twice = {**logs, (topic, 0): [*logs[topic, 0], logs[topic, 0][place]]}
        told, wrong = compare(twice)
        assert wrong == [], "what is said once more harms nobody"
        assert {name for name, count in told.repeated.items() if count == 1} == {what}
    damaged = {
        "audit": without(logs, Topic.AUDIT, 0),
        "alert": without(logs, Topic.ALERTS, 0),
        "the last baseline of": without(logs, Topic.BASELINES, -1),
        "the last report of": without(logs, Topic.REPORTS, -1),
        "measures": without(logs, baselines.MEASURES.topic, 3),
        "baseline": changed(logs, Topic.BASELINES, 0, {"time": "2026-11-26T00:00:00.000Z"}),
        "signal of alerts": without(logs, alerts.SIGNALS.topic, first_counted(logs)),
    }
    for what, log in damaged.items():
        assert any(one.startswith(what) for one in compare(log)[1]), what


@pytest.mark.parametrize(
    ("happened", "repeated", "wrong"),
    [
        ({DIED_SAYING: 1}, {"alerts": 0, "signals of alerts": 1}, 0),
        ({DIED_SAYING: 1}, {"alerts": 0, "signals of alerts": 0}, 1),
        ({"kill agent": 1}, {"alerts": 0, "signals of alerts": 0}, 0),
    ],
    ids=["it was said again", "it was not", "nobody died then"],
)
def test_who_dies_when_all_is_said_says_it_once_more(
    happened: dict[str, int], repeated: dict[str, int], wrong: int
) -> None:
    told = Told(distinct=dict.fromkeys(repeated, 9), repeated=repeated)
    assert len(never_said_again(happened, told)) == wrong


def first_counted(logs: Logs) -> int:
    """Return the place of the first signal that is no tick."""
    signals = logs[alerts.SIGNALS.topic, 0]
    return next(place for place, one in enumerate(signals) if b'"task_began"' in (one.value or b""))
