"""`replay` holds a policy against how tasks ended: what it prints, and when it says no."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from streams.insight.split import HoldOut
from tests.unit.cli.command_line import Ran, run

# One phase for all: a task is blocked at twice its tokens.
POLICY = 'version = "{}"\n[phases.IMPLEMENT]\ntokens = {}\nlatency_ms = 1000000\nweight = 1\n'
RIGHT, FAILED = 1_000, 9_000


def session(number: int, *, resolved: bool, tokens: int, agent: str = "droid") -> str:
    line = {
        "source": "bench:runs",
        "session": f"run-{number}",
        "task": f"task-{number // 2}",
        "agent": agent,
        "input_tokens": tokens,
        "output_tokens": 0,
        "agent_seconds": tokens / 100,
        "resolved": resolved,
    }
    return json.dumps(line) + "\n"


def sessions(count: int) -> str:
    """Return so many runs: every fourth failed, and used nine times as much."""
    return "".join(
        session(n, resolved=n % 4 > 0, tokens=RIGHT if n % 4 else FAILED) for n in range(count)
    )


@pytest.fixture
def policy(tmp_path: Path) -> str:
    return policy_file(tmp_path, "new", 2_000)


def policy_file(folder: Path, version: str, tokens: int) -> str:
    file = folder / f"{version}.toml"
    file.write_text(POLICY.format(version, tokens))
    return str(file)


def log_file(folder: Path, count: int = 120) -> str:
    file = folder / "runs.jsonl"
    file.write_text(sessions(count))
    return str(file)


def answer(ran: Ran) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ran.out)
    return found


def test_a_gate_that_holds_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, policy: str
) -> None:
    ran = run(capsys, "replay", log_file(tmp_path), "--policy", policy, "--gate")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].startswith("policy new (")
    assert lines[0].endswith(" on 120 tasks: say --hold-out where it was made from them")
    total = next(line.split() for line in lines if line.startswith("all "))
    assert total[:10] == ["all", "120", "0", "0", "0", "30", "30/30", "0", "0", "0"]
    assert "\n".join(lines[-2:]) == (
        "partial: holds; 0 of 120 tasks would have been wrongly blocked: 0.0 %, and it must be below "
        "5.0 %\n"
        "enforce: holds; with 0 of 120 tasks the share of wrongly blocked ones is up to 3.1 % (95 %), "
        "and it must be below 5.0 %"
    )


def test_a_gate_that_does_not_hold_is_the_answer_no(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tight = policy_file(tmp_path, "tight", 100)
    ran = run(capsys, "replay", log_file(tmp_path), "--policy", tight, "--gate")
    assert ran.code == 1
    assert ran.err == (
        "the gate does not hold: 90 of 120 tasks would have been wrongly blocked: 75.0 %, and it must "
        "be below 5.0 %\n"
    )
    assert (
        "was right, and would have been stopped in IMPLEMENT at 200 of the 1,000 tokens that it used: "
        "2.0 × its limit of 100 tokens"
    ) in ran.out


def test_a_few_tasks_pass_no_gate_whatever_they_say(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, policy: str
) -> None:
    ran = run(capsys, "replay", log_file(tmp_path, 49), "--policy", policy, "--gate")
    assert ran.code == 1
    assert ran.error_lines == [
        "the gate does not hold: 49 tasks to judge by, and it must be at least 50"
    ]


def test_without_gate_it_is_said_and_nothing_is_answered_no(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, policy: str
) -> None:
    ran = run(capsys, "replay", log_file(tmp_path, 40), "--policy", policy, "--against", policy)
    assert ran.code == 0
    assert "partial: does not hold; 40 tasks to judge by" in ran.out


def test_two_policies_stand_side_by_side(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, policy: str
) -> None:
    tight, log = policy_file(tmp_path, "tight", 100), log_file(tmp_path)
    ran = run(capsys, "replay", log, "--policy", policy, "--against", tight)
    assert ran.code == 0
    rows = {" ".join(line.split()) for line in ran.out.splitlines()}
    assert {
        "new tight",
        "block 30 120",
        "failed, blocked 30 of 30 30 of 30",
        "right, blocked 0 90",
        "partial holds does not hold",
    } <= rows
    found = answer(run(capsys, "replay", log, "--policy", policy, "--against", tight, "--json"))
    assert found["judged"]["policy"]["version"] == "new"
    assert found["against"]["policy"]["version"] == "tight"
    assert found["against"]["gate"]["total"]["false_positives"] == 90
    assert [each["verdict"] for each in found["judged"]["tasks"]].count("block") == 30
    first = found["against"]["tasks"][1]
    assert (first["ended"], first["blocked_at"]["tokens"]) == ("right", RIGHT)
    assert (first["phase"], first["task_type"]) == ("IMPLEMENT", "droid")


def test_the_part_held_out_is_the_one_that_its_seed_names(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, policy: str
) -> None:
    log, options = log_file(tmp_path), ("--hold-out", "0.5", "--seed", "7", "--json")
    found = answer(run(capsys, "replay", log, "--policy", policy, *options))
    held_out = [n for n in range(120) if HoldOut(0.5, 7).has(f"group/task-{n // 2}")]
    assert 30 < len(held_out) < 90
    assert found["judged"]["gate"]["total"]["tasks"] == len(held_out)
    assert found["hold_out"] == {"share": 0.5, "seed": 7}
    assert (found["tasks"], found["savings"], found["against"]) == (120, None, None)
    ran = run(capsys, "replay", log, "--policy", policy, "--hold-out", "0.5", "--seed", "7")
    assert f"on {len(held_out)} of 120 tasks, those held out (share 0.5, seed 7)" in ran.out


@pytest.mark.parametrize(
    ("name", "begins"), [("curve.png", b"\x89PNG"), ("curve.svg", b"<?xml")], ids=["png", "svg"]
)
def test_what_blocks_would_save_is_drawn_and_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, policy: str, name: str, begins: bytes
) -> None:
    drawn = tmp_path / name
    ran = run(capsys, "replay", log_file(tmp_path), "--policy", policy, "--curve", str(drawn))
    assert ran.code == 0
    assert drawn.read_bytes().startswith(begins)
    _, _, savings = ran.out.partition("NOT SPENT ON FAILED RUNS")
    row = next(line for line in savings.splitlines() if line.startswith("all "))
    # Above what honest runs use, 0.5 × the limit, and below what failed ones do, 4.5 × it.
    assert "×0.6" in row
    assert "86.7 %" in row
    assert "assumed: where only totals of a run are known" in ran.out


def test_the_curve_is_in_the_json_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, policy: str
) -> None:
    curve = str(tmp_path / "curve.svg")
    options = ("--policy", policy, "--curve", curve, "--json")
    found = answer(run(capsys, "replay", log_file(tmp_path), *options))["savings"]
    assert found["hold_out"] == {"share": 0.3, "seed": 1}
    (droid,) = found["by_task_type"]
    assert droid["chosen"]["times"] == 0.6
    assert droid["chosen"]["saved"]["tokens"] == droid["failed"] * (FAILED - 1_200)


def test_where_nothing_failed_an_empty_curve_is_drawn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, policy: str
) -> None:
    log, drawn = tmp_path / "right.jsonl", tmp_path / "curve.svg"
    log.write_text("".join(session(n, resolved=True, tokens=RIGHT) for n in range(60)))
    ran = run(capsys, "replay", str(log), "--policy", policy, "--curve", str(drawn))
    assert ran.code == 0
    assert drawn.stat().st_size > 0
    assert "no run is known to have failed" in ran.out


def test_without_matplotlib_it_is_said_how_to_get_it(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    policy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    curve = str(tmp_path / "curve.png")
    ran = run(capsys, "replay", log_file(tmp_path), "--policy", policy, "--curve", curve)
    # Before the history is folded, which may take minutes.
    assert (ran.code, ran.out) == (1, "")
    assert ran.error_lines == ["--curve needs matplotlib: pip install 'stoploss[analysis]'"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--hold-out", "0"], "--hold-out: 0.0 is not allowed; use a number above 0 and below 1"),
        (["--hold-out", "most"], "--hold-out: 'most' is not allowed; use a number from 0 to 1"),
        (["--gate", "--seed", "-1"], "--seed: '-1' is not allowed; use a whole number from 0 to"),
        (["--curve", "out.pdf"], "--curve: 'out.pdf' is not allowed; use a name that ends in .png or"),
        (["--curve", "no/where.png"], "--curve: 'no/where.png' is not allowed; use a file in a fold"),
        (["--gate", "--mode", "partial"], "--mode: 'partial' is not allowed; use it without --gate"),
        (["--against", "no.toml"], "--against: 'no.toml' is not allowed; use a file that can be rea"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_named_in_a_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, policy: str, options: list[str], said: str
) -> None:
    ran = run(capsys, "replay", log_file(tmp_path, 4), "--policy", policy, *options)
    assert (ran.code, len(ran.error_lines)) == (2, 1)
    assert ran.error_lines[0].startswith(said)


def test_a_replay_that_asks_for_none_of_it_answers_as_before(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, policy: str
) -> None:
    found = answer(run(capsys, "replay", log_file(tmp_path, 2), "--policy", policy, "--json"))
    assert found.keys() == {"summary", "tasks"}
    assert found["tasks"][0].keys() == {
        "task_id", "verdict", "peak", "used", "limit", "blocked_at",
    }  # fmt: skip


def test_lines_that_cannot_be_read_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, policy: str
) -> None:
    log = Path(log_file(tmp_path, 60))
    log.write_text(log.read_text() + "broken\n")
    ran = run(capsys, "replay", str(log), "--policy", policy, "--gate")
    assert ran.code == 0
    assert ran.error_lines[0] == "1 line could not be read:"
