import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from schemas.errors import UnavailableError
from streams.local.process import ServerProcess, server_environ, tail

SLEEPER = [sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"]
GONE_WITHIN_S = 30  # the guard looks once a second where the pipe does not tell


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


async def started(command: list[str], tmp_path: Path) -> ServerProcess:
    return await ServerProcess.start("sleeper", command, output=tmp_path / "output")


async def test_stop_asks_first(tmp_path: Path) -> None:
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('ready', flush=True)\n"
        "signal.pause()"
    )
    server = await started(python(code), tmp_path)
    while "ready" not in (tmp_path / "output").read_text():
        assert server.running
    await server.stop()
    assert await server.ended_within(0) == 7


async def test_kill_does_not_ask(tmp_path: Path) -> None:
    server = await started(SLEEPER, tmp_path)
    await server.kill()
    assert await server.ended_within(0) == 128 + signal.SIGKILL
    await server.stop()  # nothing to do any more


async def test_a_server_may_end_by_itself(tmp_path: Path) -> None:
    server = await started(python("print('done'); raise SystemExit(3)"), tmp_path)
    assert await server.ended_within(GONE_WITHIN_S) == 3
    assert tail(tmp_path / "absent", tmp_path / "output") == f"{tmp_path}/output ends with: done"


async def test_a_command_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"sleeper: /absent cannot be run; .*No such file"):
        await started(["/absent"], tmp_path)


STARTER = """
import asyncio, sys
from pathlib import Path
from streams.local.process import ServerProcess

async def main():
    server = await ServerProcess.start("sleeper", sys.argv[2:], output=Path(sys.argv[1]))
    print(server.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_server_ends_with_its_starter_even_when_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path / "output"), *SLEEPER],
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        server = psutil.Process(int(starter.stdout.readline()))
        guard = server.parent()
        assert guard is not None
        assert server.is_running()
        starter.kill()
    gone, alive = psutil.wait_procs([server, guard], timeout=GONE_WITHIN_S)
    assert (len(gone), alive) == (2, [])


def test_a_fork_of_the_starter_that_holds_the_pipe_keeps_no_server_alive(tmp_path: Path) -> None:
    forked = STARTER.replace(
        "print(server.pid", "import os, time\n    os.fork() or time.sleep(60)\n    print(server.pid"
    )
    with subprocess.Popen(
        [sys.executable, "-c", forked, str(tmp_path / "output"), *SLEEPER],
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        server = psutil.Process(int(starter.stdout.readline()))
        (fork,) = (
            child for child in psutil.Process(starter.pid).children() if child != server.parent()
        )
        starter.kill()
        gone, _ = psutil.wait_procs([server], timeout=GONE_WITHIN_S)
        fork.kill()
    assert gone == [server]


def test_servers_see_little_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:+UseG1GC")
    assert "JAVA_TOOL_OPTIONS" not in server_environ()
    assert server_environ()["PATH"] == os.environ["PATH"]
