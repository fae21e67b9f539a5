"""A process dies where it is told to, at the time it is told to, and never else."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path

import psutil
import pytest

from schemas.errors import InvalidFieldError
from streams.kafka import failpoints

ROOT = Path(__file__).parents[3]
PROGRAM = """
import logging
logging.basicConfig(level=logging.WARNING)
from streams.kafka import failpoints
for _ in range(5):
    failpoints.hit("after_begin")
    failpoints.hit("before_commit")
    print("passed", flush=True)
"""


def run(failpoint: str | None) -> "subprocess.CompletedProcess[str]":
    environ = {name: value for name, value in os.environ.items() if name != failpoints.VARIABLE}
    if failpoint is not None:
        environ[failpoints.VARIABLE] = failpoint
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(
        command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False
    )


class Deaths:
    """Counts instead of dying."""

    def __init__(self, failpoint: str) -> None:
        self.count = 0
        self.armed = failpoints.Armed(failpoint, self._do)

    def _do(self, deed: str) -> None:
        assert deed == "kill"
        self.count += 1


def test_an_armed_process_is_killed_at_its_point_and_says_so() -> None:
    ran = run("before_commit:3")
    assert ran.returncode == -signal.SIGKILL
    assert ran.stdout == "passed\n" * 2
    assert "armed by STOPLOSS_FAILPOINT=before_commit:3: this process will kill itself" in (
        ran.stderr
    )
    assert "failpoint: before_commit: killed" in ran.stderr


async def test_an_armed_process_is_stopped_at_its_point_and_goes_on_when_it_is_continued() -> None:
    environ = os.environ | {failpoints.VARIABLE: "before_commit:3:stop"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM),
        env=environ,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    status = psutil.Process(process.pid).status
    async with asyncio.timeout(60):
        while status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGCONT)
        out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"passed\n" * 5)


@pytest.mark.parametrize("unset", [None, ""])
def test_without_the_variable_nothing_happens_and_nothing_is_said(unset: str | None) -> None:
    ran = run(unset)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "passed\n" * 5, "")


@pytest.mark.parametrize(
    "value",
    [
        "before_commit",
        "before_commit:0",
        "before_commit:x",
        "no_such_point:1",
        ":1",
        "before_commit:1:x",
    ],
)
def test_a_point_that_does_not_exist_is_refused_in_one_line(value: str) -> None:
    with pytest.raises(InvalidFieldError, match=r"use point:count or .*, the point one of after_"):
        failpoints.Armed(value, lambda _deed: None)
    ran = run(value)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.fullmatch(rf"STOPLOSS_FAILPOINT: '{value}' is not allowed; .*\n", ran.stderr)


def test_this_process_is_not_armed() -> None:
    assert failpoints.hit is failpoints.on_the_way
    assert failpoints.hit.__name__ == "_hit"


async def test_outputs_are_on_the_broker_before_the_state_is_sent() -> None:
    deaths = Deaths("after_outputs_sent:1")
    delivery: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    deliveries: list[Awaitable[object]] = [delivery]
    await deaths.armed.delivered("after_outputs_sent", [], "stoploss.tasks")  # nothing to tell
    await deaths.armed.delivered("after_outputs_sent", deliveries, "stoploss.decisions")
    async with asyncio.TaskGroup() as group:
        group.create_task(
            deaths.armed.delivered("after_outputs_sent", deliveries, "stoploss.tasks")
        )
        await asyncio.sleep(0)
        assert deaths.count == 0
        delivery.set_result(None)
    assert deaths.count == 1


async def test_a_request_is_written_before_the_death_on_its_way() -> None:
    deaths = Deaths("in_commit:1")
    deaths.armed.on_the_way("in_commit")
    for _ in range(failpoints.TURNS_TO_WRITE):
        assert deaths.count == 0
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert deaths.count == 1


def test_every_point_is_somewhere_in_the_code_and_no_other_is() -> None:
    named = {
        name
        for path in (ROOT / "streams").rglob("*.py")
        for name in re.findall(r'failpoints\.\w+\(\s*"(\w+)"', path.read_text())
    }
    assert named == set(failpoints.POINTS)
