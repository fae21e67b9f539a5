"""Every command of the contract is there and explains itself."""

import pytest

from tests.unit.cli.command_line import run

COMMANDS = (
    "up",
    "demo",
    "ledger",
    "agents",
    "view",
    "topics create",
    "import",
    "replay",
    "baseline",
    "calibrate",
    "init",
    "tasks",
    "task",
    "report",
    "watch",
    "alerts",
    "grant",
    "mode",
    "promote",
    "demote",
    "policy check",
    "policy apply",
    "policy show",
    "reclassify",
    "explain",
    "justify",
    "audit",
    "verify",
    "doctor",
    "recover",
    "dead-letters",
    "dead-letters show",
    "dead-letters replay",
)
WITHOUT_JSON = {"ledger", "agents", "view"}  # they answer nothing


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run(capsys, *command.split(), "--help")
    assert (ran.code, ran.err) == (0, "")
    assert f"Usage: stoploss {command}" in ran.out
    assert "Example: " in ran.out
    assert f"stoploss {command}" in " ".join(ran.out.split("Example: ")[1].split())
    assert ("--json" in ran.out) == (command not in WITHOUT_JSON)


def test_alone_it_prints_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys)
    assert (ran.code, ran.err) == (0, "")
    listed = {line.split()[0] for line in ran.out.split("Commands:")[1].splitlines() if line}
    assert listed == {command.split()[0] for command in COMMANDS}


def test_no_line_of_the_list_of_commands_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert "..." not in run(capsys).out.split("Commands:")[1]


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, "--version")
    assert ran.code == 0
    assert ran.out.startswith("stoploss 0.")
