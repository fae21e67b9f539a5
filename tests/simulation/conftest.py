"""How much was simulated stands at the end of what pytest says."""

import pytest

SAID = pytest.StashKey[list[str]]()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say it, where the histories were run."""
    for line in config.stash.get(SAID, []):
        terminalreporter.write_line(f"simulation: {line}")
