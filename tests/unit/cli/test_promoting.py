"""`promote` and `demote` refuse in a line what is no step, before they look at anything."""

import pytest

from tests.unit.cli.command_line import run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["promote", "--force"], "--reason: None is not allowed; use why, with --force"),
        (["promote", "--force", "--reason", " "], "--reason: ' ' is not allowed; use why, with --fo"),
        (["promote", "--to", "observe"], "--to: 'observe' is not allowed; use partial or enforce; "),
        (["promote", "--to", "most"], "--to: 'most' is not allowed; use observe, partial, enforce"),
        (["demote", "--to", "enforce", "--reason", "x"], "--to: 'enforce' is not allowed; use obse"),
        (["demote"], "Missing option '--reason'"),
    ],
)  # fmt: skip
def test_what_is_no_step_is_named(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    ran = run(capsys, *arguments)
    assert (ran.code, len(ran.error_lines)) == (2, 1)
    assert ran.error_lines[0].startswith(said)
