"""The first hour: the demo, then what it wrote is verified, looked at and imported again."""

import asyncio
import os
import signal
import stat
from pathlib import Path

import msgspec
import pytest

from streams.importers.demo import demo_path
from streams.local.folder import DataFolder
from streams.local.redis import RedisServer
from tests.integration.kafka_world import eventually
from tests.integration.shell import environ, start, stoploss

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


async def test_the_demo_decides_everything_and_verify_agrees(tmp_path: Path) -> None:
    env = environ()
    demo = await stoploss("demo", "--once", "--json", "--speed", "5000", env=env, cwd=tmp_path)
    assert demo.code == 0, demo.err
    answer = demo.answer
    assert set(answer) == {"tasks", "events", "decisions", "seconds", "dir"}
    assert (answer["tasks"], answer["events"]) == (52, 2280)
    assert {"notice", "warn", "review", "block"} <= set(answer["decisions"])
    folder = tmp_path / answer["dir"]
    assert folder.parent == tmp_path / ".stoploss"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder.parent / ".gitignore").exists()

    # Its Kafka has ended; each of these starts it again, on what it kept.
    verified = await stoploss("verify", "--json", env=env, cwd=tmp_path)
    assert verified.code == 0, verified.err
    assert [each["equal"] for each in verified.answer["partitions"]] == [True] * 4
    tasks = await stoploss("tasks", "--all", "--json", env=env, cwd=tmp_path)
    assert len(tasks.answer["tasks"]) == 52
    # Redis was not started for it.
    assert tasks.answer["source"]["why"].startswith("no Redis runs in ")


async def test_up_runs_until_it_is_told_to_stop_and_others_join_it(tmp_path: Path) -> None:
    env = environ()
    up = await start("up", "--json", env=env, cwd=tmp_path)
    assert up.stdout is not None
    try:
        async with asyncio.timeout(120):
            where = msgspec.json.decode(await up.stdout.readline())
        assert where["dir"] == ".stoploss"
        log = str(demo_path())
        imported = await stoploss("import", "usage-jsonl", log, "--json", env=env, cwd=tmp_path)
        assert imported.code == 0, imported.err
        assert imported.answer["events"] == 2280
        second = await stoploss("up", env=env, cwd=tmp_path)
        assert (second.code, second.out, second.err.count("\n")) == (2, "", 1)
        doctor = await stoploss("doctor", "--json", env=env, cwd=tmp_path)
        assert doctor.answer["bootstrap_servers"] == where["bootstrap_servers"]

        async def is_shown() -> bool:
            # A setting that is for another system does not hide the view of this one.
            other = env | {"STOPLOSS_REDIS_URL": "redis://127.0.0.1:1/0"}
            tasks = await stoploss("tasks", "--all", "--json", env=other, cwd=tmp_path)
            return bool(tasks.answer["tasks"]) and tasks.answer["source"]["from"] == "view"

        await eventually(is_shown)
    finally:
        up.send_signal(signal.SIGINT)
        async with asyncio.timeout(60):
            await up.communicate()
    assert up.returncode == 130


async def test_the_demo_says_that_its_redis_has_died_and_that_it_is_back(tmp_path: Path) -> None:
    demo = await start("demo", "--speed", "50", env=environ(), cwd=tmp_path)
    assert demo.stderr is not None
    said: list[str] = []

    async def until(what: str) -> None:
        assert demo.stderr is not None
        while not any(what in line for line in said):
            line = await demo.stderr.readline()
            assert line, said
            said.append(line.decode())

    try:
        async with asyncio.timeout(180):
            await until("events at 50×")
            (folder,) = (tmp_path / ".stoploss").glob("demo-*")
            state = DataFolder(folder).state()
            assert state is not None
            assert state.redis is not None
            os.kill(state.redis.pid, signal.SIGKILL)
            await until("commands read the topics")
            async with RedisServer(folder / "redis"):
                await until("Redis is back, and the view follows again")
                demo.send_signal(signal.SIGINT)
                said += (await demo.stderr.read()).decode().splitlines()
                await demo.wait()
    finally:
        if demo.returncode is None:
            demo.kill()
            await demo.wait()
    about = [line for line in said if "Redis" in line]
    assert len(about) == 2, about
    assert about[0].startswith("Redis at redis://127.0.0.1:")


async def test_a_log_becomes_a_file_of_events_that_replay_judges(tmp_path: Path) -> None:
    out = tmp_path / "events.jsonl"
    log = str(demo_path())
    imported = await stoploss("import", "usage-jsonl", log, "--out", str(out), env=environ())
    assert imported.code == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert len(out.read_bytes().splitlines()) == 2280
    of_events = await stoploss("replay", str(out), "--json", env=environ())
    of_log = await stoploss("replay", log, "--json", env=environ())
    assert of_events.code == 0
    assert of_events.answer == of_log.answer
    assert set(of_log.answer) == {"summary", "tasks"}
    assert {"task_id", "verdict", "used", "limit", "blocked_at"} <= set(of_log.answer["tasks"][0])


async def test_a_reader_that_goes_away_is_no_error() -> None:
    ours, theirs = os.pipe()
    arguments = ("import", "usage-jsonl", str(demo_path()), "--out", "-")
    process = await start(*arguments, env=environ(), stdout=theirs)
    os.close(theirs)
    assert await asyncio.to_thread(os.read, ours, 100)
    os.close(ours)
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    assert (process.returncode, err) == (141, b"")
