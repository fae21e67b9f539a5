"""The whole way round: what an enforcer says, what is decided, and what the enforcer is told."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.fields import Verdict
from schemas.topics import Topic
from streams.client import Emitter, Verdicts
from tests.integration.example import TASK, start_example
from tests.integration.kafka_world import World, eventually, make_world

pytestmark = pytest.mark.integration

PATIENCE_S = 60.0


@pytest.fixture
async def world(bootstrap_servers: str, topic_prefix: str) -> World:
    return await make_world(bootstrap_servers, topic_prefix)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - another thread's state
            await asyncio.sleep(0.01)


async def until_ended(world: World) -> None:
    async def has_ended() -> bool:
        return (await world.last(Topic.TASKS)).get(TASK, {}).get("status") == "ended"

    await eventually(has_ended)


async def decided(world: World) -> list[tuple[str, bool]]:
    return [
        (seen.data["verdict"], seen.data["enforced"])
        for seen in await world.read(Topic.DECISIONS)
        if seen.key == TASK
    ]


async def test_what_an_enforcer_uses_comes_back_as_its_verdict_until_more_is_granted(
    world: World, tmp_path: Path
) -> None:
    await world.set_mode("enforce")
    async with world.ledger():
        with (
            Verdicts(world.settings) as verdicts,
            Emitter(world.settings, "test", tmp_path / "spool") as emitter,
        ):
            assert await asyncio.to_thread(verdicts.wait_ready, PATIENCE_S)
            assert verdicts.verdict(TASK).verdict is Verdict.CONTINUE
            with (
                emitter.task(TASK, planned_phases=["THINK"]) as task,  # 6,000 tokens
                task.phase("THINK") as think,
            ):
                for tokens, verdict in (
                    (5_400, Verdict.NOTICE),
                    (1_800, Verdict.WARN),
                    (1_800, Verdict.REVIEW),
                    (3_000, Verdict.BLOCK),
                ):
                    assert not verdicts.must_stop(TASK)
                    think.usage(input_tokens=tokens)
                    await until(lambda: verdicts.verdict(TASK).verdict is verdict)  # noqa: B023
                told = verdicts.verdict(TASK)
                assert (told.held, told.enforced, told.number) == (True, True, 4)
                assert verdicts.must_stop(TASK)
                grant = world.event("task.granted", TASK, by="ada", reason="needed", multiplier=3)
                await world.send([(TASK, grant)])
                await until(lambda: not verdicts.must_stop(TASK))
                assert verdicts.verdict(TASK).verdict is Verdict.CONTINUE
                think.usage(input_tokens=4_200)
                await until(lambda: verdicts.verdict(TASK).verdict is Verdict.NOTICE)
        await until_ended(world)
    assert await decided(world) == [
        ("notice", True),
        ("warn", True),
        ("review", True),
        ("block", True),
        ("continue", True),
        ("notice", True),
    ]
    assert await world.used_tokens() == {TASK: 16_200}
    await world.assert_verified()


async def test_the_example_stops_where_the_ledger_blocks_it(world: World, tmp_path: Path) -> None:
    await world.set_mode("enforce")
    options = ["--phases", "THINK", "PLAN", "--calls", "100000", "--seconds", "0.02"]
    async with world.ledger():
        process = await start_example(world.settings, tmp_path, *options, "--tokens", "500")
        async with asyncio.timeout(PATIENCE_S):
            assert await process.wait() == 1
        await until_ended(world)
    assert (await world.last(Topic.TASKS))[TASK]["outcome"] == "blocked"
    decisions = await decided(world)
    assert ("block", True) in decisions
    assert {enforced for verdict, enforced in decisions if verdict != "block"} == {True}
    await world.assert_verified()
