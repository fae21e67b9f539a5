"""What the topics say is what Redis shows, whoever asks, and no more than is documented."""

import re
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.topics import Topic
from streams.local.redis import RedisServer
from streams.view.keys import Keys
from streams.view.totals import Dimension
from tests.integration.kafka_world import Seen, World, make_world
from tests.integration.recorded_log import PARTITIONS, Log
from tests.integration.view_world import (
    Said,
    Shown,
    Traffic,
    alert,
    audit,
    baseline,
    health,
    of_all_agents,
    report,
    running_view,
    say,
    shown,
)

pytestmark = pytest.mark.integration

DOCUMENT = Path(__file__).parents[2] / "docs/redis.md"
GROWN = "1-A-GROWN-0"


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> World:
    return await make_world(bootstrap_servers, topic_prefix, PARTITIONS)


@pytest.fixture
async def view(world: World, redis_server: RedisServer) -> AsyncIterator[Shown]:
    """A view that runs."""
    async with shown(world, redis_server.url) as found, running_view(world, redis_server.url):
        yield found


async def show(view: Shown, *said: Said) -> None:
    """Write records, and wait until they are shown."""
    await say(view.world, said)
    await view.until_all_is_shown()


async def test_a_task_is_shown_with_all_that_the_topics_say_of_it(view: Shown, log: Log) -> None:
    await Traffic(view.world, log).write(2)
    await show(view, report(GROWN, 1), report(GROWN, 2))
    found = await view.queries.task(GROWN)
    assert found is not None
    of_task = {
        topic: [seen.envelope for seen in await view.world.read(topic) if seen.key == GROWN]
        for topic in (Topic.DECISIONS, Topic.BREACHES, Topic.LIFECYCLE, Topic.EXECUTIONS)
    }
    for topic, ids in [
        (Topic.DECISIONS, [each.id for each in found.decisions]),
        (Topic.BREACHES, [each.id for each in found.breaches]),
        (Topic.LIFECYCLE, [each.id for each in found.changes]),
    ]:
        assert ids == [each["id"] for each in of_task[topic] if each is not None]
    last = {
        (each["data"]["phase"], each["data"]["attempt"]): each["id"]
        for each in of_task[Topic.EXECUTIONS]
        if each is not None
    }
    executions = {(each.data.phase, each.data.attempt): each.id for each in found.executions}
    assert executions == last
    assert found.report is not None
    assert found.report.data.revision == 2


async def test_the_lists_hold_the_tasks_that_the_ledger_has_by_share_of_their_limit(
    view: Shown, log: Log
) -> None:
    await Traffic(view.world, log).write(3)
    await view.until_all_is_shown()
    states = await view.world.last(Topic.TASKS)
    by_status: dict[str, dict[str, float]] = {"open": {}, "ended": {}}
    for task_id, state in states.items():
        for cell in state.get("cells", ()):
            if cell["scope"] == "task" and cell["metric"] == "tokens":
                by_status[state["status"]][task_id] = cell["used"] / cell["limit"]
    for status, ask in [("open", view.queries.open_tasks), ("ended", view.queries.ended_tasks)]:
        page = await ask(0, 1_000)
        assert {each.task_id: each.share for each in page.tasks} == pytest.approx(by_status[status])
        assert page.total == len(by_status[status]) > 2
        shares = [each.share for each in page.tasks]
        assert shares == sorted(shares, reverse=True)
        assert (await ask(1, 2)).tasks == page.tasks[1:3]


async def test_a_task_that_has_left_keeps_its_history_and_no_state(view: Shown, log: Log) -> None:
    await Traffic(view.world, log).write(1)
    await view.until_all_is_shown()
    gone = next(
        seen.key for seen in await view.world.read(Topic.TASKS)
        if seen.envelope is None and "PARENT" in seen.key
    )  # fmt: skip
    found = await view.queries.task(gone)
    assert found is not None
    assert found.state is None
    assert found.executions
    assert await view.queries.task("no such task") is None


async def test_children_are_found_with_their_parent(view: Shown, log: Log) -> None:
    await Traffic(view.world, log).write(1)
    await view.until_all_is_shown()
    states = await view.world.last(Topic.TASKS)
    parents = {
        state["parent_task_id"]: task_id for task_id, state in states.items()
        if state.get("parent_task_id") in states
    }  # fmt: skip
    assert parents
    for parent, child in parents.items():
        found = await view.queries.task(parent)
        assert found is not None
        assert found.children == [child]


async def test_totals_are_what_the_executions_add_up_to(view: Shown, log: Log) -> None:
    await Traffic(view.world, log).write(3)
    await view.until_all_is_shown()
    executions = last_words(await view.world.read(Topic.EXECUTIONS))
    assert max(each["revision"] for each in executions) > 1, "nothing was published again"
    ended = [
        seen.data for seen in await view.world.read(Topic.LIFECYCLE)
        if seen.data["change"] == "ended"
    ]  # fmt: skip
    for by in Dimension:
        tokens: dict[Any, int] = Counter()
        cost: dict[Any, int] = Counter()
        for data in executions:
            tokens[data.get(by)] += int(Decimal(str(data["metered_tokens"])) * 1_000)
            cost[data.get(by)] += int(Decimal(str(data["counters"].get("cost_usd", 0))) * 10**9)
        totals = await view.queries.totals(by)
        assert {each.value: each.metered_milli_tokens for each in totals} == tokens
        assert {each.value: each.cost_nano_usd for each in totals if each.executions} == cost
        assert sum(each.executions for each in totals) == len(executions)
        if by is not Dimension.PHASE:
            tasks = Counter(data.get(by) for data in ended)
            assert {each.value: each.tasks for each in totals if each.tasks} == tasks
    with_limit = [data for data in executions if data["limits"].get("tokens")]
    utilisation = await view.queries.utilisation()
    assert sum(each.count for each in utilisation.executions) == len(with_limit)


def last_words(executions: list[Seen]) -> list[dict[str, Any]]:
    """Return the last record of each execution; a revision 1 begins another life of its task."""
    lives: Counter[tuple[str, str, int]] = Counter()
    last: dict[tuple[object, ...], dict[str, Any]] = {}
    for seen in executions:
        of = (seen.data["task_id"], seen.data["phase"], seen.data["attempt"])
        lives[of] += seen.data["revision"] == 1
        last[*of, lives[of]] = seen.data
    return list(last.values())


async def test_feeds_show_the_newest_first(view: Shown, log: Log) -> None:
    await Traffic(view.world, log).write(1)
    await view.until_all_is_shown()
    queries = view.queries
    decisions, breaches = await queries.decisions(), await queries.breaches()
    for topic, found in [
        (Topic.DECISIONS, [(each.time, each.id) for each in decisions]),
        (Topic.BREACHES, [(each.time, each.id) for each in breaches]),
    ]:
        written = [seen.envelope for seen in await view.world.read(topic)]
        assert {at for _, at in found} == {each["id"] for each in written if each is not None}
        assert [time for time, _ in found] == sorted((time for time, _ in found), reverse=True)
    assert await queries.decisions(2, 1) == decisions[1:3]
    assert await queries.breaches(2, 1) == breaches[1:3]


async def test_dead_letters_are_counted_by_reason(view: Shown, log: Log) -> None:
    await Traffic(view.world, log).write(2)
    await view.until_all_is_shown()
    written = Counter(seen.data["reason"] for seen in await view.world.read(Topic.DEAD_LETTERS))
    assert await view.queries.dead_letters() == written
    assert written


async def test_an_alert_is_shown_as_long_as_it_fires(view: Shown) -> None:
    await show(view, alert(1), alert(1, "partition/0"))
    assert {each.data.scope for each in (await view.queries.alerts()).firing} == {
        "all",
        "partition/0",
    }
    await show(view, alert(2))
    found = await view.queries.alerts()
    assert [each.data.scope for each in found.firing] == ["partition/0"]
    assert [each.data.number for each in found.recent] == [2, 1, 1]
    await show(view, (Topic.ALERTS, "queue_depth/partition/0", None))
    assert (await view.queries.alerts()).firing == []


async def test_transitions_and_commits_have_quantiles_by_source_and_together(view: Shown) -> None:
    await show(
        view,
        health("enforcer-1/a", 12, transition_ms={0: 98}),
        health("enforcer-1/b", 31, transition_ms={350: 2}),
        health("enforcer-1/a", 13, transition_ms={0: 1}),
        health("ledger/a", commit_ms={100: 9}),
    )
    found = await view.queries.health(hours=2)
    by_source = {each.source: each for each in found.sources}
    a, b = by_source["enforcer-1/a"], by_source["enforcer-1/b"]
    assert (a.health.queue_depth, a.transition_ms.count) == (13, 99)
    assert (b.health.queue_depth, b.transition_ms.count) == (31, 2)
    assert a.transition_ms.p99 == pytest.approx(1.0, rel=0.01)
    assert found.transition_ms.count == 101
    assert found.transition_ms.p50 == pytest.approx(1.0, rel=0.01)
    assert found.transition_ms.p99 == pytest.approx(1_096, rel=0.01)
    assert by_source["ledger/a"].commit_ms == found.commit_ms
    assert found.commit_ms.count == 9
    assert found.commit_ms.p50 == pytest.approx(7.4, rel=0.02)


async def test_reports_baselines_audit_and_feedback_are_shown(view: Shown) -> None:
    await show(view, *of_all_agents("TASK-1"), baseline(30), audit("TASK-2", "bob"))
    found = await view.queries.report("TASK-1")
    assert found is not None
    assert found.data.summary[0] == "Over budget."
    baselines = await view.queries.baselines()
    assert {key: each.executions for key, each in baselines.items()} == {"THINK/medium/medium": 30}
    assert [each.data.by for each in (await view.queries.audit("TASK-1")).entries] == ["ada"]
    assert {each.data.by for each in (await view.queries.audit()).entries} == {"ada", "bob"}
    assert [each.data.false_positive for each in await view.queries.feedback("TASK-1")] == [True]
    await show(
        view, (Topic.REPORTS, "TASK-1", None), (Topic.BASELINES, "THINK/medium/medium", None)
    )
    assert await view.queries.report("TASK-1") is None
    assert await view.queries.baselines() == {}


async def test_partitions_policies_and_heartbeats_are_shown(view: Shown, log: Log) -> None:
    await Traffic(view.world, log).write(1)
    await view.until_all_is_shown()
    states = await view.world.last(Topic.TASKS)
    partitions = await view.queries.partitions()
    assert partitions.keys() == set(range(PARTITIONS))
    for number, state in partitions.items():
        assert state.next_offset == states[f"partition/{number}"]["next_offset"]
    assert {f"policy/{key}" for key in await view.queries.policies()} == {
        key for key in states if key.startswith("policy/")
    }


async def test_how_old_it_is_is_known_for_each_partition(view: Shown, log: Log) -> None:
    await Traffic(view.world, log).write(1)
    await view.until_all_is_shown()
    found = await view.freshness()
    assert found is not None
    assert found.lag == 0
    assert found.age_ms is not None
    assert {each.topic for each in found.partitions} == {t.value for t in Topic} - {"events"}
    tasks = [each for each in found.partitions if each.topic == "tasks"]
    assert [each.partition for each in tasks] == [0, 1]
    assert all(each.newest is not None for each in tasks)


async def test_two_systems_in_one_redis_do_not_see_each_other(
    view: Shown, bootstrap_servers: str, redis_server: RedisServer
) -> None:
    # One prefix begins with the other one.
    prefix = f"{view.world.settings.topic_prefix}b."
    other = await make_world(bootstrap_servers, prefix, PARTITIONS)
    async with shown(other, redis_server.url) as second:
        assert await second.freshness() is None
        await show(view, alert(1))
        async with running_view(other, redis_server.url, rebuild=True):
            await show(second, baseline(20))
            assert (await second.queries.alerts()).firing == []
            assert len((await view.queries.alerts()).firing) == 1


async def test_every_key_is_documented_and_has_a_bound_or_an_end(view: Shown, log: Log) -> None:
    await Traffic(view.world, log).write(1)
    await show(view, *of_all_agents(GROWN), (Topic.TASKS, "TASK-1", msgspec.Struct()))
    rows = documented_keys()
    met = set()
    for name in await view.names():
        fitting = [row for row, pattern in rows.items() if pattern.fullmatch(name)]
        assert len(fitting) == 1, f"{name}: documented {len(fitting)} times"
        kind, bound = KINDS[fitting[0]]
        key = f"{view.keys.root}{name}"
        assert (await view.redis.type(key)).decode() == kind, name
        assert (await view.redis.ttl(key) > 0) == bound.startswith("expires"), name
        met.add(fitting[0])
    # Heartbeats come from a ledger alone, which does not run here.
    assert rows.keys() - met == {"heartbeats"}


def document_rows() -> list[list[str]]:
    table = DOCUMENT.read_text("utf-8").partition("\n## Keys\n")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


TYPES = {"sorted set": "zset"}  # what Redis calls it, where that is another word
KINDS = {row[0].strip("`"): (TYPES.get(row[1], row[1]), row[3]) for row in document_rows()}


def documented_keys() -> dict[str, re.Pattern[str]]:
    """Return what each documented name looks like: what is in braces stands for anything."""
    return {
        name: re.compile(".+".join(re.escape(part) for part in re.split(r"\{\w+\}", name)))
        for name in KINDS
    }


def test_the_document_says_what_all_keys_begin_with() -> None:
    assert f"`{Keys('stoploss.').root}`" in DOCUMENT.read_text("utf-8")
