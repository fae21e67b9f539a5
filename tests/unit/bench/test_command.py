"""However a measure ends: by itself, late, or with whoever has asked for it, nothing stays behind."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench import command

WITHIN_S = 60.0
NO_GRACE_S = 0.2
IGNORES_SIGTERM = "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
# A measure that never ends, and a child of it that says who both are as soon as both have begun.
MEASURE = """
import os, signal, subprocess, sys
{measure}
child = 'import os, pathlib, signal, sys; {child}pathlib.Path(sys.argv[2]).write_text(sys.argv[1]); ' \\
    'os.rename(sys.argv[2], sys.argv[3]); signal.pause()'
said = sys.argv[1]
subprocess.Popen([sys.executable, '-I', '-S', '-c', child, str(os.getpid()), said + '.new', said]{session})
signal.pause()
"""
STARTER = """
import sys
from bench import command
command.run([sys.executable, "-c", *sys.argv[1:]], 600, 0.2)
"""
KINDS = [
    pytest.param(MEASURE.format(measure="", child="", session=""), id="that ends when told to"),
    pytest.param(
        MEASURE.format(measure=IGNORES_SIGTERM, child=IGNORES_SIGTERM, session=""),
        id="that ignores it",
    ),
    pytest.param(
        MEASURE.format(measure="", child=IGNORES_SIGTERM, session=", start_new_session=True"),
        id="whose child has a session of its own, and ignores it",
    ),
]


def command_lines(said: Path) -> list[str]:
    """Return the command lines of those that are alive and know the file that is theirs alone."""
    found = []
    for one in psutil.process_iter(["cmdline", "status"]):
        words = one.info["cmdline"] or []
        if str(said) in words and one.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(" ".join(words))
    return found


def test_what_a_measure_prints_comes_with_how_it_ended() -> None:
    program = "import sys; print('one'); print('two'); sys.exit(3)"
    ended = command.run([sys.executable, "-c", program], WITHIN_S)
    assert ended == command.Ended(code=3, printed="one\ntwo\n")


@pytest.mark.parametrize("program", KINDS)
def test_a_measure_that_takes_too_long_leaves_no_process(program: str, tmp_path: Path) -> None:
    said, within_s = tmp_path / "said", 0.5
    while not said.exists():  # a run that was over before its child had begun has shown nothing
        within_s *= 2
        with pytest.raises(subprocess.TimeoutExpired):
            command.run([sys.executable, "-c", program, str(said)], within_s, NO_GRACE_S)
    assert command_lines(said) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("program", KINDS)
def test_who_is_told_to_end_ends_the_measure_first(
    program: str, number: int, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, program, str(said)], stderr=subprocess.DEVNULL
    ) as starter:
        while not said.exists():
            assert starter.poll() is None
        starter.send_signal(number)
        starter.wait(WITHIN_S)
    assert starter.returncode in {-signal.SIGINT, 128 + signal.SIGTERM}
    assert command_lines(said) == []


def test_a_measure_that_ends_leaves_no_child_of_its_session(tmp_path: Path) -> None:
    said = tmp_path / "said"
    program = MEASURE.format(measure="", child="", session=", stdout=subprocess.DEVNULL").replace(
        "signal.pause()\n", "\nwhile not os.path.exists(said): pass\n"
    )
    assert command.run([sys.executable, "-c", program, str(said)], WITHIN_S).code == 0
    assert said.exists()
    assert command_lines(said) == []
