"""What was refused can be seen, and sent again; and then it counts once."""

import json
from pathlib import Path
from typing import Any

import aiokafka
import pytest
from aiokafka.structs import TopicPartition

from schemas.topics import EVENT_BYTES_MAX, Topic
from streams.budget.policy import policy_from_toml
from tests.integration.agents_letters import agents_letter
from tests.integration.kafka_world import Seen, World, eventually, make_world
from tests.integration.shell import Ran, environ, stoploss

pytestmark = pytest.mark.integration
WHY = ("--reason", "SLEEP is a phase now", "--by", "ann")
WITH_SLEEP = policy_from_toml(
    'version = "sleep"\n[phases.SLEEP]\ntokens = 9000\nlatency_ms = 1000\nweight = 1.0\n', "test"
)


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> World:
    return await make_world(bootstrap_servers, topic_prefix, partitions=2)


async def run(world: World, *arguments: str) -> Ran:
    return await stoploss("dead-letters", *arguments, env=environ(world.settings))


async def send_raw(
    world: World, value: bytes, headers: list[tuple[str, bytes]] | None = None
) -> str:
    """Append a record to partition 0; return its number as a letter."""
    async with aiokafka.AIOKafkaProducer(**world.settings.producer_kwargs()) as producer:
        topic = world.settings.topic(Topic.EVENTS)
        sent = await producer.send_and_wait(topic, value, b"a key", 0, headers=headers)
    return f"0:{sent.offset}"


async def events_at(world: World, number: str) -> Any:  # noqa: ANN401 - a ConsumerRecord
    partition, offset = map(int, number.split(":"))
    tp = TopicPartition(world.settings.topic(Topic.EVENTS), partition)
    async with aiokafka.AIOKafkaConsumer(**world.settings.consumer_kwargs()) as consumer:
        consumer.assign([tp])
        consumer.seek(tp, offset)
        return await consumer.getone()


async def until_refused(world: World, count: int) -> None:
    async def refused() -> bool:
        return len(await world.read(Topic.DEAD_LETTERS)) == count

    await eventually(refused)


def place(sent: dict[str, Any]) -> str:
    return f"{sent['written']['partition']}:{sent['written']['offset']}"


async def test_letters_are_listed_and_shown(world: World) -> None:
    async with world.ledger():
        first = await send_raw(world, b"no json")
        second = await send_raw(world, b"\xff\xfe")
        third = await send_raw(world, b'{"type": "stoploss.x", "id": "\xc3\xa4"}', [("h", b"1")])
        await until_refused(world, 3)
    listed = await run(world, "--json")
    assert (listed.code, listed.err, listed.answer["count"]) == (0, "", 3)
    assert [each["number"] for each in listed.answer["letters"]] == [first, second, third]
    row = listed.answer["letters"][2]
    assert (row["reason"], row["detail"]["value"]) == ("unknown_type", "stoploss.x")
    assert f"{row['partition']}:{row['offset']}" == third
    newest = await run(world, "--limit", "1", "--json")
    assert [each["number"] for each in newest.answer["letters"]] == [third]
    assert newest.answer["count"] == 3
    chosen = await run(world, "--reason", "not_json", "--since", "1h", "--json")
    assert [each["number"] for each in chosen.answer["letters"]] == [first, second]
    later = await run(world, "--since", "2999-01-01T00:00:00Z")
    assert (later.code, later.out) == (0, "0 dead letters\n")
    table = (await run(world)).out.splitlines()
    assert [line.split()[0] for line in table] == ["NUMBER", first, second, third, "3"]
    said = max(len(line.rstrip()) for line in table)
    assert max(map(len, table)) == said, "piped, it is as wide as its content"

    shown = await run(world, "show", third)
    assert (shown.code, shown.err) == (0, "")
    assert "allowed  one of stoploss.task.started" in shown.out
    assert "header   h: 1\n" in shown.out
    assert shown.out.endswith('bytes, as text):\n{"type": "stoploss.x", "id": "ä"}\n')
    assert (await run(world, "show", second, "--json")).answer["original_hex"] == "fffe"
    assert (await run(world, "show", first, "--original")).out == "no json"
    nobody = await run(world, "show", "0:999")
    assert (nobody.code, nobody.out) == (1, "")
    assert nobody.err.startswith("N: 0:999: no dead letter is about this record")


async def test_a_letter_sent_again_counts_once_however_often_it_is_sent(world: World) -> None:
    task = world.task_in(0)
    async with world.ledger():
        usage = json.loads(world.usage(task, 100, phase="SLEEP")[1])
        data = json.dumps(usage.pop("data")).encode()
        binary = [(f"ce_{name}", str(value).encode()) for name, value in usage.items()]
        one = await send_raw(world, data, [*binary, ("mine", b"1")])
        other = await send_raw(world, world.usage(task, 20, phase="SLEEP")[1])
        await until_refused(world, 2)
        await world.set_policy(WITH_SLEEP)
        await world.send([world.usage(task, 3, phase="SLEEP")])  # a later event of the same source
        await eventually(lambda: counts(world, {task: 3}))
        before = await world.read(Topic.EVENTS)

        dry = await run(world, "replay", "--dry-run", *WHY, "--json")
        assert dry.answer == {"sent": [], "would_send": [one, other], "skipped": []}
        assert await world.read(Topic.EVENTS) == before

        ran = await run(world, "replay", *WHY, "--json")
        assert await counts(world, world.tokens)
        again = await run(world, "replay", *WHY, "--json")
        for each in (ran, again):
            assert (each.code, each.err) == (0, "")
            assert [sent["number"] for sent in each.answer["sent"]] == [one, other]
        named = await run(world, "replay", other, *WHY)
        assert (named.code, named.err) == (0, "")
        assert named.out.startswith(f"{other} was sent again, as 0:")
        assert await counts(world, world.tokens)
    sent = await events_at(world, place(ran.answer["sent"][0]))
    assert (sent.key, sent.value) == (b"a key", data)
    assert dict(sent.headers) == {
        **{name: value for name, value in binary if name != "ce_sequence"},
        "mine": b"1",
        "stoploss_replayed_by": b"ann",
        "stoploss_replayed_reason": b"SLEEP is a phase now",
        "stoploss_replayed_letter": one.encode(),
    }
    await world.assert_verified()


async def counts(world: World, tokens: dict[str, int]) -> bool:
    return await world.used_tokens() == tokens


async def test_a_corrected_event_is_sent_in_the_place_of_its_letter(
    world: World, tmp_path: Path
) -> None:
    file, task = tmp_path / "event.json", world.task_in(1)
    async with world.ledger():
        event = json.loads(world.usage(task, 50)[1])
        data = json.dumps(event.pop("data")).encode()
        headers = [(f"ce_{name}", str(value).encode()) for name, value in event.items()]
        number = await send_raw(world, data, [*headers, ("ce_time", b"noon")])
        await until_refused(world, 1)
        printed = await run(world, "show", number, "--original")
        edited = json.loads(printed.out) | {"time": "soon"}
        file.write_text(json.dumps(edited))
        wrong = await run(world, "replay", number, "--file", str(file), *WHY)
        assert (wrong.code, wrong.out) == (2, "")
        assert wrong.err.startswith(f"{file}: time: 'soon' is not allowed; use ")
        file.write_text(json.dumps(edited | {"time": "2026-11-22T21:00:00Z"}))
        again = await run(world, "replay", number, "--file", str(file), *WHY, "--json")
        ran = await run(world, "replay", number, "--file", str(file), *WHY, "--json")
        assert [(each.code, each.err) for each in (ran, again)] == [(0, "")] * 2
        assert ran.answer["sent"][0]["written"]["partition"] == 1, "where its task lives"
        assert await counts(world, world.tokens)
    sent = await events_at(world, place(ran.answer["sent"][0]))
    assert sent.key == task.encode()
    assert {name for name, _ in sent.headers} == {
        f"stoploss_replayed_{name}" for name in ("by", "reason", "letter")
    }
    await world.assert_verified()


async def test_what_cannot_be_sent_again_says_why_and_is_left(world: World) -> None:
    async with world.ledger():
        large = await send_raw(world, b" " * (EVENT_BYTES_MAX + 1))
        torn = await send_raw(world, b"{")
        start = world.event(
            "task.started", world.task_in(0), budget_overrides={"THINK": {"tokens": -1}}
        )
        counted = await send_raw(world, start)
        await until_refused(world, 3)
        before = await tasks_of(world)
        for number, why in (
            (large, f"{EVENT_BYTES_MAX + 1} bytes, and an event has at most {EVENT_BYTES_MAX}"),
            (torn, "would be refused again (not_json)"),
            (counted, "its event counted, without the overrides"),
        ):
            ran = await run(world, "replay", number, *WHY)
            assert (ran.code, ran.out) == (1, "")
            assert ran.err.startswith(f"{number}: ")
            assert why in ran.err
        ran = await run(world, "replay", *WHY, "--json")
        assert (ran.code, ran.answer["sent"]) == (0, [])
        assert [each["number"] for each in ran.answer["skipped"]] == [large, torn, counted]
        assert await tasks_of(world) == before


async def tasks_of(world: World) -> list[Seen]:
    """What `tasks` says of tasks; the built-in policy comes to each partition when it comes."""
    records = await world.read(Topic.TASKS)
    return [one for one in records if not one.key.startswith(("partition/", "policy/"))]


async def test_what_is_refused_again_is_a_new_letter_and_the_answer_no(world: World) -> None:
    async with world.ledger():
        number = await send_raw(world, world.event("phase.usage", "T", phase="SLEEP"))
        await until_refused(world, 1)
        ran = await run(world, "replay", number, *WHY)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith(
            f"{number}: refused again (invalid_field): data.phase: SLEEP; use"
        )
        again = ran.err.rpartition("[letter ")[2].removesuffix("]\n")
        shown = await run(world, "show", again, "--json")
        assert {each["name"]: each["value"] for each in shown.answer["headers"]} == {
            "stoploss_replayed_by": "ann",
            "stoploss_replayed_reason": "SLEEP is a phase now",
            "stoploss_replayed_letter": number,
        }


async def test_many_letters_are_sent_only_where_somebody_says_so(world: World) -> None:
    task = world.task_in(0)
    async with world.ledger():
        for _ in range(11):
            await send_raw(world, world.usage(task, 1, phase="SLEEP")[1])
        await until_refused(world, 11)
        await world.set_policy(WITH_SLEEP)
        asked = await run(world, "replay", *WHY)
        assert (asked.code, asked.out) == (2, "")
        assert asked.err == "--yes: 'absent' is not allowed; use it to send 11 letters\n"
        fewer = await run(world, "replay", "--limit", "10", "--yes", *WHY)
        assert (fewer.code, fewer.out) == (2, "")
        assert fewer.err.startswith("--limit: 'more than 10' is not allowed; use a higher one")
        sent = await run(world, "replay", "--yes", *WHY, "--json")
        assert (sent.code, len(sent.answer["sent"])) == (0, 11)
        assert await counts(world, world.tokens)
    await world.assert_verified()


async def test_what_an_agent_has_refused_is_listed_and_never_sent_again(
    world: World, tmp_path: Path
) -> None:
    file = tmp_path / "event.json"
    file.write_text("{}")
    async with world.ledger():
        refused = await send_raw(world, b"{}")
        await until_refused(world, 1)
        offset = int(refused.partition(":")[2])
        theirs = agents_letter(world.settings.topic_prefix, offset, 0)
        async with aiokafka.AIOKafkaProducer(**world.settings.producer_kwargs()) as producer:
            topic = world.settings.topic(Topic.DEAD_LETTERS)
            await producer.send_and_wait(topic, theirs.value, theirs.key, 0)
        number = f"executions/0:{offset}"
        listed = await run(world, "--json")
        assert {each["number"] for each in listed.answer["letters"]} == {refused, number}
        for which, name in ((refused, "events"), (number, "executions")):
            shown = await run(world, "show", which, "--json")
            assert shown.answer["topic"] == f"{world.settings.topic_prefix}{name}"
        before = await world.read(Topic.EVENTS)
        for more in ((), ("--file", str(file))):
            ran = await run(world, "replay", number, *more, *WHY)
            assert (ran.code, ran.out) == (1, "")
            assert ran.err.startswith(f"{number}: is not sent again: an agent has refused it")
        ran = await run(world, "replay", *WHY, "--json")
        assert [each["number"] for each in ran.answer["skipped"]] == [refused, number]
        assert await world.read(Topic.EVENTS) == before
    await world.assert_verified()
