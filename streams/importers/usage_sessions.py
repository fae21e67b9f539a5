"""How sessions ended, as JSON lines with numbers only: one line per session, and no calls in it.

| field | means |
|---|---|
| `source`, `session` | as in a file of calls: the task |
| `resolved` | did the work turn out right; null: nobody knows |
| `exit_status`, `failure_mode` | how it ended, in the agent's words and in the benchmark's |
| `task` | what several sessions tried: they are one group |
| `agent`, `model` | who worked; the agent is the kind of task |
| `input_tokens`, `output_tokens` | of the whole session; null, or `tokens_reported` false: not known |
| `agent_seconds`, `agent_started_at`, `agent_ended_at` | how long, from when, until when |
| `api_calls`, `instance_cost` | calls and dollars of the whole session |

Where another file of the same import has the session's calls, its line tells only how it ended. Else
it is a task with one report of usage, in IMPLEMENT, where the work is done. How much of its input came
from a cache is not told: all of it is metered as uncached, and none of it priced.
"""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.fields import (
    COST_USD_MAX,
    DURATION_MS_MAX,
    NAME_LENGTH_MAX,
    Count,
    TaskOutcome,
    Tokens,
)
from streams.importers.lines import BAD_LINE, read_lines
from streams.importers.phases import ToolKind
from streams.importers.tasks import Call, safe_id

# An agent that hands its work in, and ways to fail that are the test's and not the agent's.
HANDED_IN = frozenset({"Submitted"})
NO_FAILURE = frozenset({"unset", "none", "parse_error", "test_timeout"})


class SessionRow(Struct):
    """One line; what is not named here is of no use to us."""

    source: Annotated[str, Meta(min_length=1, max_length=1_000)]
    session: Annotated[str, Meta(min_length=1, max_length=1_000)]
    resolved: bool | None = None
    exit_status: Annotated[str, Meta(max_length=1_000)] | None = None
    failure_mode: Annotated[str, Meta(max_length=1_000)] | None = None
    task: Annotated[str, Meta(min_length=1, max_length=1_000)] | None = None
    agent: Annotated[str, Meta(min_length=1, max_length=1_000)] | None = None
    model: Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH_MAX)] | None = None
    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    tokens_reported: bool | None = None
    agent_seconds: Annotated[float, Meta(ge=0, le=DURATION_MS_MAX / 1_000)] | None = None
    agent_started_at: datetime | None = None
    agent_ended_at: datetime | None = None
    api_calls: Count | None = None
    instance_cost: Decimal | None = None

    def __post_init__(self) -> None:
        cost = self.instance_cost
        if cost is not None and not (cost.is_finite() and 0 <= cost <= COST_USD_MAX):
            raise ValueError(f"instance_cost must be from 0 to {COST_USD_MAX}")
        self.agent_started_at = _aware(self.agent_started_at)
        self.agent_ended_at = _aware(self.agent_ended_at)

    @property
    def task_type(self) -> str | None:
        """Return the kind of task that the line names, if it does."""
        return None if self.agent is None else safe_id(self.agent)

    @property
    def outcome(self) -> TaskOutcome:
        """Return whether the agent came to an end of its own."""
        is_failed = (self.exit_status or "Submitted") not in HANDED_IN
        is_failed = is_failed or (self.failure_mode or "none") not in NO_FAILURE
        return TaskOutcome.FAILED if is_failed else TaskOutcome.COMPLETED

    def labels(self) -> dict[str, str]:
        """Return what a task's labels say of its end."""
        found = {}
        if self.resolved is not None:
            found["resolved"] = "true" if self.resolved else "false"
        for name, value in (
            ("exit_status", self.exit_status),
            ("failure_mode", self.failure_mode),
            ("group", self.task),
        ):
            if value:
                found[name] = safe_id(value)
        return found

    def total(self) -> Call:
        """Return the whole session as one report."""
        known = self.input_tokens is not None and self.output_tokens is not None
        seconds = self.agent_seconds
        return Call(
            time=self.agent_ended_at,
            model=self.model,
            input=self.input_tokens or 0,
            output=self.output_tokens or 0,
            cost_usd=self.instance_cost,
            duration_ms=None if seconds is None else round(seconds * 1_000),
            kind=ToolKind.EDIT,
            known=known and self.tokens_reported is not False,
            calls=1 if self.api_calls is None else self.api_calls,
            is_total=True,
        )


class _Looked(Struct):
    source: str
    session: str
    resolved: bool | UnsetType | None = UNSET
    exit_status: str | UnsetType | None = UNSET


_ROW = msgspec.json.Decoder(SessionRow)
_LOOKED = msgspec.json.Decoder(_Looked)


def is_session_line(line: bytes) -> bool:
    """Whether a line tells how a session ended."""
    try:
        looked = _LOOKED.decode(line)
    except BAD_LINE:
        return False
    return looked.resolved is not UNSET or looked.exit_status is not UNSET


def has_sessions(path: Path) -> bool:
    """Whether a file tells how sessions ended, by its first line."""
    first = next(iter(read_lines(path)), None)
    return first is not None and is_session_line(first.data)


def decode_session(line: bytes) -> SessionRow:
    """Return what a line says.

    Raises:
        BAD_LINE: nothing of the kind.
    """
    return _ROW.decode(line)


def _aware(time: datetime | None) -> datetime | None:
    return time.replace(tzinfo=UTC) if time is not None and time.tzinfo is None else time
