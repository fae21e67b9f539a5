"""The view and the topics answer alike, and commands say which of both they asked."""

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from schemas.alerts import AlertState
from schemas.audit import Action, Audit
from schemas.feedback import Feedback
from schemas.fields import Metric
from schemas.reports import Report
from schemas.topics import Topic
from streams.cli.audits import AuditFilter
from streams.cli.edges import EDGES_SHOWN, AlertsAnswer
from streams.cli.facts import From, TaskAnswer, TasksAnswer
from streams.cli.from_topics import TopicsSource
from streams.cli.from_view import ViewSource
from streams.cli.operating import UnknownTaskError
from streams.cli.place import Place
from streams.cli.reading import LedgerView, opened
from streams.cli.sources import Source, answered, found_at, source_of
from streams.cli.view import NotInViewError, NoView, NoViewError, View, view_of
from streams.local.redis import RedisServer
from streams.view.queries import opened as queries
from streams.view.store import RedisUnavailableError
from tests.integration.kafka_world import World, eventually, make_world
from tests.integration.shell import Ran, environ, start, stoploss
from tests.integration.view_world import (
    Shown,
    alert,
    audit,
    baseline,
    feedback,
    now_ms,
    report,
    running_view,
    say,
    shown,
)

pytestmark = pytest.mark.integration

NOBODY = "redis://127.0.0.1:1/0"
SOON_S = 30.0


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> AsyncIterator[World]:
    """A system in which much has happened: families, grants, ends, alerts; its ledger still runs."""
    made = await make_world(bootstrap_servers, topic_prefix)
    async with made.ledger():
        await happen(made)
        yield made


@pytest.fixture
async def view(world: World, redis_server: RedisServer) -> AsyncIterator[Shown]:
    """The view of it, which shows all of it."""
    async with shown(world, redis_server.url) as found, running_view(world, redis_server.url):
        await found.until_all_is_shown()
        yield found


async def happen(world: World) -> None:
    parent, other = world.task_in(0), world.task_in(1)
    child = f"{parent}-CHILD"
    family = [
        (parent, world.event("task.started", parent, complexity="small", owner="ada", team="red")),
        (parent, world.event("task.started", child, parent_task_id=parent)),
    ]
    await world.send([*family, world.usage(parent, 9_000), world.usage(other, 100)])
    await world.send([world.usage(each, 23_400) for each in (world.task_in(1, "BIG"),)])
    for tokens in (3_000, 60_000):
        await world.send([world.usage(parent, tokens, "IMPLEMENT")])
    ended = world.task_in(0, "DONE")
    await world.send([world.usage(ended, 7_000)])
    await world.send([(ended, world.event("task.ended", ended))])

    async def has_ended() -> bool:
        tasks = await world.last(Topic.TASKS)
        return tasks.get(ended, {}).get("status") == "ended"

    await eventually(has_ended)
    await until_all_is_folded(world)
    await say(world, [alert(1), alert(1, "partition/0"), alert(2), alert(1, "T", "budget_breach")])


async def until_all_is_folded(world: World) -> None:
    async def is_folded() -> bool:
        return (await world.used_tokens()).items() >= world.tokens.items()

    await eventually(is_folded)


def place_of(world: World, redis_url: str) -> Place:
    return Place(settings=msgspec.structs.replace(world.settings, redis_url=redis_url))


@contextlib.asynccontextmanager
async def both(world: World, redis_url: str) -> AsyncIterator[tuple[Source, Source]]:
    """Give the view as a source, and the topics."""
    place = place_of(world, redis_url)
    async with view_of(place) as found, opened(place.settings, list(Topic)) as log:
        assert isinstance(found, View), found
        yield ViewSource(found), TopicsSource(log, "to compare")


async def test_both_sources_list_the_same_tasks(view: Shown) -> None:
    async with both(view.world, view.url) as sources:
        for ended_too, count in ((False, 4), (True, 5)):
            of_view, of_topics = [await each.tasks(ended_too=ended_too) for each in sources]
            assert isinstance(of_view, TasksAnswer)
            assert of_view == of_topics
            assert len(of_view.tasks) == count
            few = [await each.tasks(ended_too=ended_too, most=2) for each in sources]
            assert few[0] == few[1]
            assert few[0].tasks == of_view.tasks[:2]
            assert (few[0].open_count, few[0].ended_count) == (4, 1)


async def test_both_sources_say_the_same_of_each_task(view: Shown) -> None:
    async with both(view.world, view.url) as sources:
        listed = await sources[1].tasks(ended_too=True)
        answers: list[TaskAnswer] = []
        for row in listed.tasks:
            of_view, of_topics = [await each.task(row.task_id) for each in sources]
            assert of_view == of_topics
            answers.append(of_view)
        assert any(each.decisions for each in answers)
        assert any(each.breaches for each in answers)
        assert any(each.children for each in answers)
        assert {each.status for each in answers} == {"open", "ended"}
        for source in sources:
            with pytest.raises(UnknownTaskError):
                await source.task("nobody")


async def test_both_sources_say_the_same_of_alerts(view: Shown) -> None:
    async with both(view.world, view.url) as sources:
        of_view, of_topics = [await each.alerts(EDGES_SHOWN) for each in sources]
        assert of_view == of_topics
        assert [(each.name, each.scope) for each in of_view.firing] == [
            ("budget_breach", "T"),
            ("queue_depth", "partition/0"),
        ]
        assert [each.state for each in of_view.recent].count(AlertState.RESOLVED) == 1
        assert len(of_view.recent) == 4
        alone = AlertsAnswer(firing=of_view.firing, recent=[])
        assert [await each.alerts() for each in sources] == [alone, alone]


async def reports(task_id: str, sources: tuple[Source, Source]) -> Report:
    """Return the report of a task, of which both sources have the same."""
    of_view, of_topics = [(await each.report(task_id)).report("https://b/") for each in sources]
    assert of_view == of_topics
    return of_view


async def test_both_sources_make_the_same_report_of_each_task(view: Shown) -> None:
    world, parent = view.world, view.world.task_in(0)
    child, below = f"{parent}-CHILD", f"{parent}-BELOW"
    await world.send(
        [
            (parent, world.event("task.started", below, parent_task_id=child)),
            (parent, world.usage(below, 2_000, "PLAN")[1]),
            (parent, world.event("task.ended", below)),
            (parent, world.event("task.explained", parent, by="ada", text="the migration")),
        ]
    )
    await until_all_is_folded(world)
    decision_id = next(each.id for each in await world.read(Topic.DECISIONS) if each.key == parent)
    answer = feedback(parent, false_positive=True)
    assert isinstance(answer[2], Feedback)
    of_block = msgspec.structs.replace(answer[2], decision_id=decision_id)
    await say(world, [baseline(20), (Topic.FEEDBACK, parent, of_block)])
    await view.until_all_is_shown()
    async with both(world, view.url) as sources:
        listed = [each.task_id for each in (await sources[1].tasks(ended_too=True)).tasks]
        found = {task_id: await reports(task_id, sources) for task_id in listed}
        assert {each.status for each in found.values()} == {"open", "ended"}
        assert found[parent].causes
        assert found[parent].explanations
        assert found[parent].link == "https://b/"
        assert found[child].metrics[Metric.TOKENS].used == 2_000
        assert [each.phase for each in found[below].phases] == ["PLAN"]
        for source in sources:
            with pytest.raises(UnknownTaskError):
                await source.report("nobody")


async def test_both_sources_give_the_last_report_that_was_written_of_what_has_ended(
    view: Shown,
) -> None:
    world = view.world
    ended, opened_one = world.task_in(0, "DONE"), world.task_in(0)
    said = [report(each, number) for each in (ended, opened_one, "GONE") for number in (1, 2)]
    await say(world, said)
    await view.until_all_is_shown()
    async with both(world, view.url) as sources:
        for task_id in (ended, "GONE"):
            assert (await reports(task_id, sources)).revision == 2
        made = await reports(opened_one, sources)
        assert made.revision == 1
        assert made.summary[0].startswith("Over budget: "), "it is open: none that was written"


async def test_both_sources_find_the_same_entries_of_the_audit(view: Shown) -> None:
    world = view.world
    since_ms = now_ms()
    named = Audit(subject="TORN", action=Action.TASK_RECOVERED, by="eve")
    await say(world, [audit("T", "ada"), audit(None, "bob"), (Topic.AUDIT, "TORN", named)])
    await view.until_all_is_shown()
    asked = {
        (None, None, 9): ["ada", "bob", "eve"],
        (None, None, 2): ["bob", "eve"],
        ("T", None, 9): ["ada"],
        ("TORN", None, 9): ["eve"],
        ("nobody", None, 9): [],
        (None, since_ms, 9): ["ada", "bob", "eve"],
        (None, since_ms + 3_600_000, 9): [],
    }
    async with both(world, view.url) as sources:
        for (task_id, from_ms, limit), by in asked.items():
            which = AuditFilter(task_id, from_ms)
            of_view, of_topics = [await each.audit(which, limit) for each in sources]
            assert of_view == of_topics
            assert [each.by for each in of_view.entries] == by


async def test_of_an_audit_that_the_view_has_no_longer_whole_it_says_so_or_nothing(
    view: Shown,
) -> None:
    world = view.world
    said = [audit("T" if number % 2 else "U", f"{number}") for number in range(1_100)]
    await say(world, said, step_ms=1)
    await view.until_all_is_shown()
    async with both(world, view.url) as (of_view, of_topics):
        for which, least in ((AuditFilter(), 1_000), (AuditFilter("T"), 64)):
            found = await of_view.audit(which, 50)
            whole = await of_topics.audit(which, 50)
            assert found.entries == whole.entries
            assert (found.count, found.older_too) == (least, True)
            assert (whole.count > least, whole.older_too) == (True, False)
            with pytest.raises(NotInViewError):
                await of_view.audit(which, least + 1)
        since = AuditFilter("nobody", now_ms() - 60_000)
        assert await of_view.audit(since, 50) == await of_topics.audit(since, 50)
        with pytest.raises(NotInViewError):
            await of_view.audit(AuditFilter("nobody"), 50)


async def test_both_sources_know_the_same_of_the_ledger(view: Shown) -> None:
    def told(ledger: LedgerView) -> object:
        tasks = {name: each for name, each in ledger.tasks.items() if each.state.status != "ended"}
        return tasks, ledger.partitions, ledger.policies

    async with both(view.world, view.url) as sources:
        of_view, of_topics = [await each.ledger() for each in sources]
        assert told(of_view) == told(of_topics)


@pytest.mark.parametrize("part", From)
async def test_both_sources_tell_decisions_as_they_come(part: From, view: Shown) -> None:
    place, world = place_of(view.world, view.url), view.world
    task = world.task_in(1, "NEW")
    async with source_of(place, part) as source, source.live() as live:
        async with asyncio.timeout(SOON_S):
            before: list[str] = []
            while not before:
                before = [each.decision.task_id for each in (await live.news()).decisions]
            await world.send([world.usage(task, 23_400)])
            after: list[str] = []
            while task not in after:
                news = await live.news()
                after += [each.decision.task_id for each in news.decisions]
                assert not news.were_missed
                assert news.source.part is part
        assert after[-1] == task, "what was decided before is told before it, all of it or its end"
        moment = await live.moment(ended_too=False, most=3)
        assert len(moment.tasks.tasks) == 3
        assert [each.name for each in moment.firing] == ["budget_breach", "queue_depth"]


async def test_a_burst_that_the_feed_does_not_hold_is_told_as_such(view: Shown) -> None:
    world = view.world
    async with source_of(place_of(world, view.url), From.VIEW) as source, source.live() as live:
        await live.news()
        await world.send([world.usage(f"BURST-{number}", 23_400) for number in range(1_100)])
        await until_all_is_folded(world)
        await view.until_all_is_shown()
        news = await live.news()
        of_view = await source.tasks(ended_too=True)
    async with source_of(place_of(world, view.url), From.TOPICS) as source:
        assert of_view == await source.tasks(ended_too=True)
    assert news.were_missed
    assert len(news.decisions) == 1_000


async def run(world: World, redis_url: str, *arguments: str) -> Ran:
    return await stoploss(*arguments, env=environ(world.settings, STOPLOSS_REDIS_URL=redis_url))


@pytest.mark.parametrize(
    "arguments",
    [("tasks", "--all"), ("task", "BIG"), ("alerts", "--all"), ("audit",)],
    ids=["tasks", "task", "alerts", "audit"],
)
async def test_a_command_answers_from_the_view_what_the_topics_say_and_tells_which(
    arguments: tuple[str, ...], view: Shown
) -> None:
    command = [view.world.task_in(1, "BIG") if each == "BIG" else each for each in arguments]
    of_view = await run(view.world, view.url, *command, "--json")
    assert (of_view.code, of_view.err) == (0, "")
    source = of_view.answer["source"]
    assert (source["from"], source["why"]) == ("view", None)
    assert 0 <= source["age_ms"] < 10_000
    of_topics = await run(view.world, view.url, *command, "--from", "topics", "--json")
    assert of_topics.answer == of_view.answer | {
        "source": {"from": "topics", "age_ms": 0, "why": "asked for"}
    }
    read = await run(view.world, view.url, *command)
    assert read.out.splitlines()[-1].startswith("from the view, ")


async def test_a_report_says_which_revision_it_is_and_where_it_comes_from(view: Shown) -> None:
    world, task = view.world, view.world.task_in(0)
    made = await run(world, view.url, "report", task)
    last = made.out.splitlines()[-1]
    assert re.fullmatch(r"made now, not written yet; from the view, .+ old", last)
    await say(world, [report(world.task_in(0, "DONE"), 3)])
    await view.until_all_is_shown()
    for style in ((), ("--format", "markdown")):
        written = await run(world, view.url, "report", world.task_in(0, "DONE"), *style)
        last = written.out.splitlines()[-1]
        assert re.fullmatch(r"revision 3; from the view, .+ old", last)
    gate = await run(world, view.url, "report", world.task_in(0, "DONE"), "--summary")
    assert gate.out.splitlines()[-1].startswith("revision 3; from the topics: a gate has to know")
    of_view, of_topics = [
        (await run(world, view.url, "report", task, "--json", "--from", part)).answer
        for part in ("view", "topics")
    ]
    assert (of_view["written"], of_view["source"]["from"]) == (False, "view")
    assert of_topics == of_view | {"source": {"from": "topics", "age_ms": 0, "why": "asked for"}}


async def test_a_gate_knows_what_the_view_has_not_heard_of(left: Shown) -> None:
    """It is closed by a decision, and opened by an explanation, that a young view does not show."""
    world, task = left.world, left.world.task_in(1)
    await left.redis.hset(left.keys.meta, "at_ms", now_ms() + 3_600_000)
    gate = ("report", task, "--summary", "--json")
    free = await run(world, left.url, *gate)
    assert (free.code, free.answer["explanation"]) == (0, "none")
    await world.send([world.usage(task, 23_400)])
    await until_all_is_folded(world)
    shown_there = (await run(world, left.url, "report", task, "--json")).answer
    assert shown_there["source"]["from"] == "view"
    assert "explanation" not in shown_there, "nothing is owed, as far as the view knows"
    owed = await run(world, left.url, *gate)
    assert (owed.code, owed.answer["explanation"]) == (1, "owed")
    why = "a gate has to know the last decision"
    assert owed.answer["source"] == {"from": "topics", "age_ms": 0, "why": why}
    explained = await run(world, left.url, "explain", task, "--text", "the migration")
    assert explained.code == 0, explained.err
    given = await run(world, left.url, *gate)
    assert (given.code, given.answer["explanation"]) == (0, "none")


async def test_without_redis_the_topics_answer_and_say_why(world: World) -> None:
    task = world.task_in(1)
    for command in (("tasks",), ("task", task), ("alerts",), ("audit",), ("report", task)):
        ran = await run(world, NOBODY, *command)
        assert (ran.code, ran.err) == (0, "")
        last = ran.out.splitlines()[-1].removeprefix("made now, not written yet; ")
        assert last.startswith(f"from the topics: Redis at {NOBODY}: Error 111 connecting")
        wanted = await run(world, NOBODY, *command, "--from", "view")
        assert (wanted.code, wanted.out, wanted.err.count("\n")) == (3, "", 1)
        assert wanted.err.startswith(f"--from view: Redis at {NOBODY}: ")


@pytest.mark.parametrize("from_", ["nowhere", ""])
async def test_a_source_that_is_none_is_wrong_usage(from_: str, world: World) -> None:
    ran = await run(world, NOBODY, "tasks", "--from", from_)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"--from: '{from_}' is not allowed; use view, topics\n"


async def test_an_address_that_is_none_is_wrong_usage(world: World) -> None:
    ran = await run(world, "localhost:6379", "alerts")
    assert (ran.code, ran.out) == (2, "")
    assert "redis://host:port/0" in ran.err


@pytest.fixture
async def left(world: World, redis_server: RedisServer) -> AsyncIterator[Shown]:
    """A view that has ended, after it had shown all."""
    async with shown(world, redis_server.url) as found:
        async with running_view(world, redis_server.url):
            await found.until_all_is_shown()
        yield found


@pytest.mark.parametrize(
    ("changed", "why", "given"),
    [
        pytest.param({"at_ms": -60_000}, "the view is 1 m ", [From.VIEW], id="too old"),
        pytest.param({"state": "rebuilding"}, "the view is being rebuilt", [], id="rebuilt"),
        pytest.param({"state": "clearing"}, "the view is being rebuilt", [], id="emptied"),
        pytest.param({"cluster": "OTHER"}, "has the view of Kafka cluster OTHER", [], id="other"),
        pytest.param({"read": "writing"}, "the view there is damaged: a step was", [], id="broken"),
        pytest.param({"layout": "99"}, "keys of layout 99; ours is 3", [], id="layout"),
    ],
)
async def test_a_view_that_does_not_show_what_holds_now_is_not_read(
    changed: dict[str, str | int], why: str, given: list[From], left: Shown
) -> None:
    told = {"at_ms": now_ms()} | changed
    if isinstance(changed.get("at_ms"), int):
        told["at_ms"] = now_ms() + int(changed["at_ms"])
    await left.redis.hset(left.keys.meta, mapping=told)
    place = place_of(left.world, left.url)
    async with view_of(place) as found:
        assert isinstance(found, NoView)
        assert why in found.why
    async with source_of(place, None) as source:
        assert source.answered_from.part is From.TOPICS
        assert why in str(source.answered_from.why)
    if From.VIEW in given:
        async with found_at(place, From.VIEW) as old:
            assert isinstance(old, View)
            assert (old.freshness.age_ms or 0) >= 60_000
    else:
        with pytest.raises(NoViewError, match="--from view: "):
            async with found_at(place, From.VIEW):
                raise AssertionError("it was given")


async def test_a_redis_with_no_view_of_these_topics_is_said(
    world: World, redis_server: RedisServer
) -> None:
    async with view_of(place_of(world, redis_server.url)) as found:
        assert isinstance(found, NoView)
        assert found.why.endswith("has nothing of these topics")


async def test_a_task_that_is_newer_than_the_view_is_found_in_the_topics(left: Shown) -> None:
    world, task = left.world, left.world.task_in(0, "NEWER")
    await world.send([world.usage(task, 1)])
    await until_all_is_folded(world)
    # An hour ahead: it stays young as long as this takes.
    await left.redis.hset(left.keys.meta, "at_ms", now_ms() + 3_600_000)
    ran = await run(world, left.url, "task", task, "--json")
    assert ran.code == 0, ran.err
    assert ran.answer["source"] == {
        "from": "topics",
        "age_ms": 0,
        "why": "the view does not know it",
    }
    unknown = await run(world, left.url, "task", "nobody")
    assert (unknown.code, unknown.out) == (1, "")


async def test_a_view_that_goes_away_in_the_middle_is_not_missed(view: Shown) -> None:
    place = place_of(view.world, view.url)

    async def question(source: Source) -> int:
        return (await source.tasks(ended_too=True)).open_count

    async with found_at(place, None) as found, queries(NOBODY, "t.", now_ms) as gone:
        assert isinstance(found, View)
        lost = View(gone, found.freshness)
        assert (await answered(place, found, question, None, 5))[1].part is From.VIEW
        count, source = await answered(place, lost, question, None, 5)
        assert (count, source.part) == (4, From.TOPICS)
        assert str(source.why).startswith(f"Redis at {NOBODY}: ")
        with pytest.raises(RedisUnavailableError):
            await answered(place, lost, question, From.VIEW, 5)


async def test_a_redis_that_hangs_does_not_hang_the_command(world: World) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1_000):
            pass
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        ran = await run(world, f"redis://127.0.0.1:{port}/0", "tasks", "--json")
    assert ran.code == 0
    assert ran.answer["source"]["why"].endswith("does not answer within 3 s")


@pytest.mark.parametrize(("options", "part"), [((), "topics"), (("--from", "view"), "view")])
async def test_lines_of_watch_come_from_the_topics_unless_the_view_is_wanted(
    options: tuple[str, ...], part: str, view: Shown
) -> None:
    env = environ(view.world.settings, STOPLOSS_REDIS_URL=view.url)
    process = await start("watch", "--json", *options, env=env)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SOON_S):
            line = json.loads(await process.stdout.readline())
    finally:
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(SOON_S):
            _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")
    assert line["source"]["from"] == part
    assert {"task_id", "verdict", "message", "policy"} <= set(line)


async def test_watch_on_a_terminal_goes_on_with_the_topics_when_redis_goes_away(
    world: World, tmp_path: Path
) -> None:
    server = RedisServer(tmp_path)
    await server.start()
    async with running_view(world, server.url), shown(world, server.url) as found:
        await found.until_all_is_shown()
        env = environ(world.settings, STOPLOSS_REDIS_URL=server.url, COLUMNS="120", LINES="50")
        screen, terminal = pty.openpty()
        process = await start("watch", env=env | {"TERM": "xterm"}, stdout=terminal)
        os.close(terminal)
        try:
            seen = await until_on_screen(screen, "from the view, ")
            assert "firing: " in seen
            assert "queue_depth" in seen
            await server.stop()
            await until_on_screen(screen, "from the topics: Redis at ")
        finally:
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(SOON_S):
                await asyncio.gather(process.wait(), asyncio.to_thread(drained, screen))
            os.close(screen)
    assert process.returncode == 130


def drained(screen: int) -> None:
    """Read what a process still shows, until it has ended."""
    with contextlib.suppress(OSError):
        while os.read(screen, 100_000):
            pass


async def until_on_screen(screen: int, text: str) -> str:
    """Wait until a terminal shows a text; return all that it has shown since."""
    seen = ""
    async with asyncio.timeout(SOON_S):
        while text not in seen:
            seen += (await asyncio.to_thread(os.read, screen, 100_000)).decode(errors="replace")
    return seen
