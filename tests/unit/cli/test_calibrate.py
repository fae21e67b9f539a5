"""`calibrate` and `init` write a policy that the data supports, and apply nothing."""

import json
from pathlib import Path

import msgspec
import pytest

from streams.budget.policy import builtin_policy, policy_from_toml
from streams.cli.calibrating import NOTHING
from tests.unit.cli.command_line import run
from tests.unit.cli.usage_logs import write_sessions

AMOUNTS = range(10_000, 50_000, 100)  # 400 sessions; three in four use less than 40,000


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_sessions(tmp_path / "usage.jsonl", AMOUNTS)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "policy.toml"


def test_it_writes_a_policy_whose_numbers_say_what_they_rest_on(
    capsys: pytest.CaptureFixture[str], log: Path, out: Path
) -> None:
    ran = run(capsys, "calibrate", str(log), "--out", str(out))
    assert (ran.code, ran.err) == (0, "")
    text = out.read_text()
    assert run(capsys, "policy", "check", str(out)).code == 0
    policy = policy_from_toml(text, "out")
    think, old = policy.phases["THINK"], builtin_policy().phases["THINK"]
    assert think.tokens * think.weight == pytest.approx(40_000, rel=0.05)
    assert policy.phases["VERIFY"] == builtin_policy().phases["VERIFY"]
    (line,) = [each for each in text.splitlines() if each.startswith(f"tokens = {think.tokens}")]
    assert f"# was {old.tokens:,}: p75 of " in line
    assert "# never seen: it stays" in text
    assert text.startswith("# Calibrated from ")
    assert "--hold-out 0.3 --seed 1" in text


def test_it_says_what_the_proposal_would_have_blocked_and_what_comes_next(
    capsys: pytest.CaptureFixture[str], log: Path, out: Path
) -> None:
    lines = run(capsys, "calibrate", str(log), "--out", str(out)).out.splitlines()
    assert lines[1].split()[:2] == ["phases.THINK.tokens", "4,000"]
    assert any(line.startswith("made from ") and " 0, 0.0 %" in line for line in lines)
    assert any(line.startswith("held out: ") for line in lines)
    assert lines[-4] == f"{out}: written, and not applied. Next:"
    assert lines[-1].split("#")[0].split() == ["stoploss", "policy", "apply", str(out)]


def test_json_has_every_number_and_the_same_policy(
    capsys: pytest.CaptureFixture[str], log: Path, out: Path
) -> None:
    answer = json.loads(run(capsys, "calibrate", str(log), "--out", str(out), "--json").out)
    (change,) = [each for each in answer["changes"] if each["field"] == "phases.THINK.tokens"]
    policy = policy_from_toml(out.read_text(), "out")
    assert change["new"] == policy.phases["THINK"].tokens
    assert change["count"] == answer["made_from"]["tasks"]
    assert (answer["hash"], answer["version"]) == (policy.hash, policy.version)
    assert answer["made_from"]["tasks"] + answer["held_out"]["tasks"] == 400
    # The built-in policy blocks at twice the 23,400 tokens of all its phases.
    assert answer["before"]["blocked"] == sum(amount >= 46_800 for amount in AMOUNTS)
    assert answer["held_out"]["interval"]["upper"] < 0.05


def test_nothing_is_held_out_where_nothing_shall_be(
    capsys: pytest.CaptureFixture[str], log: Path, out: Path
) -> None:
    ran = run(capsys, "calibrate", str(log), "--out", str(out), "--hold-out", "0")
    assert "made from 400 tasks" in ran.out
    assert "held out:" not in ran.out


def test_a_factor_for_each_agent_and_what_is_left_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Path, out: Path
) -> None:
    twice = write_sessions(tmp_path / "b.jsonl", [2 * each for each in AMOUNTS], agent="twice")
    few = write_sessions(tmp_path / "c.jsonl", [5] * 3, agent="few")
    arguments = ["calibrate", str(log), str(twice), str(few), "--out", str(out), "--hold-out", "0"]
    ran = run(capsys, *arguments)
    policy = policy_from_toml(out.read_text(), "out")
    assert float(policy.task_type["twice"]) == pytest.approx(2, rel=0.001)
    assert "3 of 20 tasks of known use: too few, it stays" in ran.out
    assert "    few: 3 tasks: it would have blocked 0, 0.0 % (0.0 to 56.1 % at 95 %)" in ran.out


def test_it_begins_with_the_policy_that_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Path, out: Path
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('version = "mine"\n[multipliers.complexity]\nlarge = 3.0\n')
    ran = run(capsys, "calibrate", str(log), "--out", str(out), "--policy", str(mine))
    assert "policy mine would have blocked" in ran.out
    assert policy_from_toml(out.read_text(), "out").complexity["large"] == 3


def test_too_little_for_any_number_is_an_answer_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, out: Path
) -> None:
    few = write_sessions(tmp_path / "few.jsonl", [5_000] * 19)
    ran = run(capsys, "calibrate", str(few), "--out", str(out), "--hold-out", "0")
    assert (ran.code, ran.out) == (1, "")
    assert ran.error_lines == [NOTHING]
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(
            ["calibrate", "--out", "x.toml"],
            "FILE: '' is not allowed; use at least one file, or --from live",
            id="no history",
        ),
        pytest.param(
            ["calibrate", "x", "--out", "x.toml", "--hold-out", "1"],
            "--hold-out: '1' is not allowed; use a number from 0 to 0.9",
            id="everything held out",
        ),
        pytest.param(
            ["calibrate", "x", "--out", "x.toml", "--seed", "-1"],
            "--seed: '-1' is not allowed; use a whole number from 0 to 2147483647",
            id="seed",
        ),
        pytest.param(
            ["calibrate", "x", "--out", "no/such/x.toml"],
            "--out: 'no/such/x.toml' is not allowed; use a file that you can write "
            "(no such folder)",
            id="nowhere to write",
        ),
        pytest.param(
            ["init", "--from", "x", "--out", "pyproject.toml"],
            "--out: 'pyproject.toml' is not allowed; use a file that is not there yet (it is there)",
            id="a file of somebody",
        ),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    ran = run(capsys, *arguments)
    assert (ran.code, ran.out, ran.error_lines) == (2, "", [said])


def test_without_a_file_to_write_it_says_so(capsys: pytest.CaptureFixture[str], log: Path) -> None:
    ran = run(capsys, "calibrate", str(log))
    assert ran.code == 2
    assert "--out" in ran.err


def test_a_file_that_cannot_be_written_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Path
) -> None:
    ran = run(capsys, "calibrate", str(log), "--out", str(tmp_path))
    assert ran.code == 2
    assert ran.error_lines[0].startswith(f"--out: '{tmp_path}' is not allowed")


def test_init_makes_a_first_policy_in_one_step_from_several_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Path, out: Path
) -> None:
    more = write_sessions(tmp_path / "more.jsonl", AMOUNTS, agent="other")
    ran = run(capsys, "init", "--from", str(log), str(more), "--out", str(out))
    assert (ran.code, ran.err) == (0, "")
    gate = f"replay {log} {more} --policy {out} --gate --hold-out 0.3 --seed 1"
    assert f"stoploss {gate} " in ran.out
    # On the part that nothing was made from: both commands agree on which that is.
    held_out = next(line for line in ran.out.splitlines() if line.startswith("held out: "))
    judged = run(capsys, *gate.split(), "--json")
    total = msgspec.json.decode(judged.out)["judged"]["gate"]["total"]
    assert held_out.startswith(
        f"held out: {total['tasks']} tasks: it would have blocked {total['blocked']}, "
    )
    assert policy_from_toml(out.read_text(), "out").version.startswith("calibrated-")
    before = out.read_text()
    assert run(capsys, "init", "--from", str(log), "--out", str(out)).code == 2
    assert out.read_text() == before


def test_init_answers_as_json(capsys: pytest.CaptureFixture[str], log: Path, out: Path) -> None:
    answer = json.loads(run(capsys, "init", "--from", str(log), "--out", str(out), "--json").out)
    assert (answer["out"], answer["began_with"]) == (str(out), "builtin-1")
