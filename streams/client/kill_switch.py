"""Turns holding off, here and now: an environment variable, a file, or a call.

Measuring and deciding go on; only nobody is held. Looked at every second, never on the hot path.
"""

import os
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "DISABLE_BUDGET_ENFORCEMENT"
FILE_VARIABLE = "STOPLOSS_KILL_SWITCH_FILE"
_OFF = frozenset({"", "0", "false", "no", "off"})


class KillSwitch:
    """Whether enforcement is disabled, and by what.

    Args:
        environ: read again at each look: a process may change its own.
        file: disables as long as it exists; None: the one that STOPLOSS_KILL_SWITCH_FILE names.
    """

    def __init__(
        self, environ: Mapping[str, str] | None = None, file: Path | str | None = None
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._file = file
        self._called = False
        self._seen: str | None = None
        self.look()

    @property
    def by(self) -> str | None:
        """What disables enforcement, as of the last look or call; None where nothing does."""
        return "a call" if self._called else self._seen

    def call(self, *, disabled: bool) -> None:
        """Disable, or no longer disable, whatever variable and file say."""
        self._called = disabled

    def look(self) -> None:
        """Look at the variable and the file."""
        if self._environ.get(VARIABLE, "").strip().lower() not in _OFF:
            self._seen = VARIABLE
            return
        file = self._file or self._environ.get(FILE_VARIABLE)
        try:
            self._seen = str(file) if file and Path(file).exists() else None
        except (OSError, ValueError):
            self._seen = None  # unreadable is not present
