"""One task of a log as events: start, calls, end.

Ids come from the log alone, so that importing it again gives the same events, and a log that has
grown since gives the same ones and its new ones. A task's events have a source of their own:

- `task.started` has sequence 0, each call the next number: a ledger drops what it has seen;
- `task.ended` has an id but no sequence: else the calls of a log that grew after its first import
  would come after it, and be dropped as old.
"""

import contextlib
import hashlib
import re
from datetime import UTC, datetime
from decimal import Decimal

from msgspec import Struct

from schemas.envelope import epoch_ms
from schemas.events import (
    PhaseUsage,
    PhaseUsageData,
    TaskEnded,
    TaskEndedData,
    TaskStarted,
    TaskStartedData,
)
from schemas.fields import NAME_LENGTH_MAX, TaskOutcome
from streams.importers.phases import FIRST_PHASE, ToolKind, phase_of
from streams.importers.prices import PricedTokens, cost_usd
from streams.importers.summary import ImportSummary

# Where a log tells no time at all. Not the time of the import: that would be another one each time.
NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
# The longest time that one step can take. Clocks jump by seconds and by hours, and people leave
# sessions open over night: beyond this a difference of two times in a log measures nothing.
STEP_MS_MAX = 15 * 60 * 1000

_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,60}")


class Options(Struct, frozen=True):
    """What the user chose for all tasks of an import."""

    phase: str | None = None
    task_type: str | None = None


class Call(Struct, kw_only=True):
    """One model call, in our terms: `input` is all input, `output` all output, parts inside.

    `is_total`: not one call but all `calls` of a session, of which classes of tokens are not told.
    """

    time: datetime | None
    model: str | None = None
    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int | None = None
    cost_usd: Decimal | None = None  # what the log says; None: to be priced
    duration_ms: int | None = None
    kind: ToolKind = ToolKind.OTHER
    tool_calls: int = 0
    files_read: int = 0
    output_chars: int = 0
    known: bool = True
    calls: int = 1
    is_total: bool = False


def safe_id(text: str) -> str:
    """Return `text`, where it looks like an id; else its digest.

    Ids in a log may be anything, also a path or a name, and those must not get into events.
    """
    if _SAFE_ID.fullmatch(text):
        return text
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()


def step_ms(since: datetime | None, until: datetime | None) -> int | None:
    """Return the milliseconds between two times of one log; None where they cannot be trusted."""
    if since is None or until is None:
        return None
    passed_ms = epoch_ms(until) - epoch_ms(since)
    return passed_ms if 0 <= passed_ms <= STEP_MS_MAX else None


class TaskLog:
    """Makes the events of one task, and counts them in the summary."""

    def __init__(
        self,
        options: Options,
        summary: ImportSummary,
        *,
        task_id: str,
        source: str,
        task_type: str,
        parent_task_id: str | None = None,
        root_task_id: str | None = None,
        labels: dict[str, str] | None = None,
        sequence: int = 0,
    ) -> None:
        self.task_id = task_id
        self.source = source
        self._parent_task_id = parent_task_id
        self._partitionkey = None if root_task_id == task_id else root_task_id
        self._options = options
        self._summary = summary
        self._task_type = options.task_type or task_type
        self._labels = {"phases": "inferred" if options.phase is None else "given"} | (labels or {})
        self._phase = options.phase or FIRST_PHASE
        self.sequence = sequence  # of the last call; above 0 where a task is taken up again
        self._time = NO_TIME
        self._model: str | None = None

    def __repr__(self) -> str:
        return f"<TaskLog {self.task_id} sequence={self.sequence} in {self._phase}>"

    def start(self, time: datetime | None) -> TaskStarted:
        """Return the task's first event."""
        self._passes(time)
        self._summary.sessions += 1
        if self._parent_task_id is not None:
            self._summary.subagents += 1
        return TaskStarted(
            id=f"{self.source}/start"[-NAME_LENGTH_MAX:],
            source=self.source,
            subject=self.task_id,
            time=self._time,
            sequence="0",
            partitionkey=self._partitionkey,
            data=TaskStartedData(
                parent_task_id=self._parent_task_id,
                task_type=self._task_type,
                labels=self._labels,
            ),
        )

    def usage(self, call: Call, *, sequence: int | None = None) -> PhaseUsage:
        """Return the event of one call; `sequence` where the log's own lines give a better number."""
        self.sequence = self.sequence + 1 if sequence is None else sequence
        self._passes(call.time)
        self._model = call.model or self._model
        if self._options.phase is None:
            self._phase = phase_of(call.kind, self._phase)
        return PhaseUsage(
            id=f"{self.source}/{self.sequence}"[-NAME_LENGTH_MAX:],
            source=self.source,
            subject=self.task_id,
            time=self._time,
            sequence=str(self.sequence),
            partitionkey=self._partitionkey,
            data=self._known(call) if call.known else self._unknown(call),
        )

    def end(
        self, time: datetime | None = None, outcome: TaskOutcome = TaskOutcome.COMPLETED
    ) -> TaskEnded:
        """Return the task's last event; most logs do not tell how the work ended, only that it did."""
        self._passes(time)
        return TaskEnded(
            id=f"{self.source}/end"[-NAME_LENGTH_MAX:],
            source=self.source,
            subject=self.task_id,
            time=self._time,
            partitionkey=self._partitionkey,
            data=TaskEndedData(outcome=outcome),
        )

    def _passes(self, time: datetime | None) -> None:
        """An event without a time has that of the one before it."""
        if time is not None:
            with contextlib.suppress(OverflowError):  # a clock in the year 1, east of Greenwich
                self._time = time.astimezone(UTC)

    def _known(self, call: Call) -> PhaseUsageData:
        cost = call.cost_usd
        if cost is None and not call.is_total:
            priced = PricedTokens(
                call.input, call.cache_read, call.cache_write, call.cache_write_1h, call.output
            )
            cost = cost_usd(self._model, priced, self._time)
        summary = self._summary
        summary.calls += call.calls
        summary.count_cost(self._model, cost)
        tokens = summary.tokens
        tokens.uncached_input += call.input - call.cache_read - call.cache_write
        tokens.cache_read += call.cache_read
        tokens.cache_write += call.cache_write
        tokens.output += call.output
        tokens.reasoning += call.reasoning or 0
        return PhaseUsageData(
            phase=self._phase,
            model=self._model,
            input_tokens=call.input,
            cache_read_tokens=call.cache_read,
            cache_write_tokens=call.cache_write,
            output_tokens=call.output,
            reasoning_tokens=call.reasoning,
            cost_usd=cost,
            duration_ms=call.duration_ms,
            model_calls=call.calls,
            tool_calls=call.tool_calls,
            files_read=call.files_read,
            output_chars=call.output_chars,
        )

    def _unknown(self, call: Call) -> PhaseUsageData:
        self._summary.calls += call.calls
        self._summary.unknown_usage += call.calls
        return PhaseUsageData(
            phase=self._phase,
            model=self._model,
            cost_usd=call.cost_usd,
            duration_ms=call.duration_ms,
            model_calls=call.calls,
            tool_calls=call.tool_calls,
            files_read=call.files_read,
            output_chars=call.output_chars,
            usage_known=False,
        )
