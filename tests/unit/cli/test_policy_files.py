"""`policy check` says everything that is wrong at once; `policy show` prints what `check` takes."""

from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from streams.budget.policy import Policy, builtin_policy, policy_from_toml, policy_json
from streams.importers.demo import demo_policy_path
from streams.insight.policy_text import toml
from tests.unit.cli.command_line import run

EXACT = msgspec.json.Decoder(float_hook=Decimal)


def test_a_policy_that_is_fine_is_exit_code_0(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('version = "mine"\n')
    ran = run(capsys, "policy", "check", str(file))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{file}: fine; version mine, hash ")


def test_every_error_is_a_line_and_the_answer_is_no(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('fail = "ajar"\n[multipliers.complexity]\nlarge = 0\n')
    ran = run(capsys, "policy", "check", str(file))
    assert (ran.code, ran.out) == (1, "")
    assert ran.error_lines == [
        f"{file}: fail: 'ajar' is not allowed; use open, closed",
        (
            f"{file}: multipliers.complexity.large: 0 is not allowed; "
            "use a number above 0, at most 10, with up to 4 decimals"
        ),
    ]


def test_a_mistake_in_the_table_of_alerts_is_said_like_any_other(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[alerts.stop_loss_rate]\nfires_above = 10\n")
    ran = run(capsys, "policy", "check", str(file))
    assert (ran.code, ran.out) == (1, "")
    assert ran.error_lines == [
        (
            f"{file}: alerts.stop_loss_rate.fires_above: 10 is not allowed; "
            "use a number above 0, at most 1, with up to 4 decimals"
        )
    ]


def test_the_same_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('fail = "ajar"\n')
    ran = run(capsys, "policy", "check", "--json", str(file))
    assert ran.code == 1
    assert msgspec.json.decode(ran.out) == {
        "file": str(file),
        "version": None,
        "hash": None,
        "errors": [{"field": "fail", "value": "ajar", "allowed": "open, closed"}],
    }


def test_a_bad_policy_given_to_another_command_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('fail = "ajar"\n')
    for command in (("policy", "apply", str(file)), ("replay", "x", "--policy", str(file))):
        assert run(capsys, *command).code == 2


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(builtin_policy(), id="built-in"),
        pytest.param(
            policy_from_toml(demo_policy_path().read_text(), "demo-policy.toml"), id="of the demo"
        ),
        pytest.param(
            policy_from_toml(
                '[multipliers.task_type]\n"gpt-5 \\"mini\\"" = 0.25\n'
                '[phases."A.B"]\ntokens = 1\nlatency_ms = 1\nweight = 1\ncost_usd = 0.000000001\n'
                "[phases.default]\ntokens = 2\nlatency_ms = 2\nweight = 2\n",
                "odd.toml",
            ),
            id="with odd names and small numbers",
        ),
        pytest.param(
            policy_from_toml("[alerts.queue_depth]\nfires_above = 60\n", "busy.toml"),
            id="with alerts",
        ),
    ],
)
def test_what_show_prints_is_the_same_policy(policy: Policy) -> None:
    printed = toml(EXACT.decode(policy_json(policy)))
    assert policy_from_toml(printed, "shown").hash == policy.hash
