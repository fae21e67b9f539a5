"""Fire and forget: what an enforcer does, brought to Kafka without ever making it wait."""

import atexit
import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

import msgspec

from schemas.fields import Complexity, Importance
from streams.client import encoding
from streams.client.harmless import harmless
from streams.client.spool import SPOOL_BYTES_MAX
from streams.client.tasks import Task
from streams.client.worker import Limits, Worker
from streams.kafka.settings import Settings

QUEUE_COUNT_MAX = 20_000
QUEUE_BYTES_MAX = 32 * 1024 * 1024
EXIT_TIMEOUT_S = 5.0


class EventFields(TypedDict, total=False):
    """What every event may carry: the root of its task family, and the trace it belongs to."""

    root: str | None
    traceparent: str | None


class TaskFields(EventFields, total=False):
    """Fields of `stoploss.task.started`."""

    complexity: Complexity | str | None
    importance: Importance | str | None
    importance_justification: str | None
    by: str | None
    planned_phases: list[str] | None
    parent_task_id: str | None
    budget_multiplier: float | None
    budget_overrides: dict[str, dict[str, float]] | None
    owner: str | None
    team: str | None
    task_type: str | None
    labels: dict[str, str] | None


class PhaseFields(EventFields, total=False):
    """Fields of `stoploss.phase.started`."""

    attempt: int | None


class UsageFields(PhaseFields, total=False):
    """Fields of `stoploss.phase.usage`; a part (`cache_*`, `reasoning`) is inside its whole."""

    model: str | None
    input_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    cost_usd: float | None
    duration_ms: int | None
    model_calls: int | None
    tool_calls: int | None
    files_read: int | None
    output_chars: int | None
    estimated: bool | None
    usage_known: bool | None


class PhaseEndedFields(PhaseFields, total=False):
    """Fields of `stoploss.phase.ended`."""

    duration_ms: int | None
    outcome: str | None
    transition_ms: int | None


class ExplainedFields(EventFields, total=False):
    """Fields of `stoploss.task.explained`; `by` is the emitter's name where it is left out."""

    by: str | None
    phase: str | None


class Stats(msgspec.Struct, frozen=True):
    """Events now in memory and on disk; and since the start sent, lost, and refused as wrong.

    `dropped` counts what found no room, what Kafka refuses for ever and what a disk did not give
    back; `invalid` what is no event of the wire contract.
    """

    queued: int
    spooled: int
    sent: int
    dropped: int
    invalid: int


class Emitter:
    """Publishes what an enforcer does. Thread-safe; usable from sync and async code.

    No method raises; none but `flush` and `close` blocks. What was accepted is on Kafka or on disk
    a second later, in the order in which it was said, and nothing overtakes. In a forked child it
    goes on as an emitter of its own.

    Args:
        settings: where Kafka is; None reads `STOPLOSS_*` and `stoploss.toml`, and while those are
            wrong says so and keeps the events.
        source: the name of this enforcer; each start adds a part of its own, since `sequence`
            begins anew.
        spool_dir: where events wait on disk while Kafka is away (made 0700); None: only in memory.
            Emitters may share it; what one that is no more has left there is sent first.
        queue_count_max, queue_bytes_max: of what waits in memory; then the newest are dropped.
        spool_bytes_max: of what waits on disk.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        source: str = "enforcer",
        spool_dir: Path | str | None = None,
        *,
        queue_count_max: int = QUEUE_COUNT_MAX,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
        spool_bytes_max: int = SPOOL_BYTES_MAX,
    ) -> None:
        self._settings = settings
        self._name = str(source) or "enforcer"
        self._spool_dir = None if spool_dir is None else Path(spool_dir)
        self._limits = Limits(queue_count_max, queue_bytes_max, spool_bytes_max)
        self._put: Callable[[encoding.Said], None]
        self._put_text: Callable[[encoding.Said, int], None]
        self._take_worker()
        self._use_queue()
        self._worker.start()
        _EMITTERS.add(self)

    def __repr__(self) -> str:
        return f"<Emitter {self.source} {self.stats}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def source(self) -> str:
        """CloudEvents `source` of this start, such as `enforcer-1/7f3a09c1d2e4`."""
        return self._worker.source

    @property
    def stats(self) -> Stats:
        """How it is now."""
        worker = self._worker
        lost = worker.counts.refused + worker.damaged_count
        return Stats(
            queued=worker.queued_count,
            spooled=worker.spooled_count,
            sent=worker.counts.sent,
            dropped=worker.queue.dropped_count + lost,
            invalid=worker.queue.invalid_count,
        )

    def task(self, task_id: str, /, **fields: Unpack[TaskFields]) -> Task:
        """Return a context manager that says when the task starts and ends."""
        return Task(self, task_id, dict(fields))

    @harmless
    def task_started(self, task_id: str, /, **fields: Unpack[TaskFields]) -> None:
        """Say that a task begins; `root` is its outermost ancestor, where it has one."""
        # Lists and dicts are read later, and the caller may change them meanwhile.
        said = {name: _copied(value) for name, value in fields.items()}
        self._put_text((encoding.TASK_STARTED, task_id, time.time_ns(), said), _text_bytes(said))

    @harmless
    def phase_started(self, task_id: str, phase: str, /, **fields: Unpack[PhaseFields]) -> None:
        """Say that a phase begins; without `attempt` it is the next one."""
        said = {**fields, "phase": phase}
        self._put((encoding.PHASE_STARTED, task_id, time.time_ns(), said))

    if TYPE_CHECKING:

        def usage(self, task_id: str, phase: str, /, **fields: Unpack[UsageFields]) -> None:
            """Say what was used since the last report; a few microseconds of the caller's."""

    else:
        # Called far more often than the others: `harmless` around it would double what it costs.
        def usage(self, *said: str, **fields: object) -> None:
            """Say what was used since the last report: `usage(task_id, phase, input_tokens=…)`."""
            try:
                task_id, fields["phase"] = said
                self._put((encoding.PHASE_USAGE, task_id, time.time_ns(), fields))
            except Exception as error:  # noqa: BLE001 - the enforcer's own work matters more
                self.refuse(f"usage: {error!r}")

    @harmless
    def phase_ended(self, task_id: str, phase: str, /, **fields: Unpack[PhaseEndedFields]) -> None:
        """Say that a phase ended; `duration_ms` is the enforcer's own measurement."""
        said = {**fields, "phase": phase}
        self._put((encoding.PHASE_ENDED, task_id, time.time_ns(), said))

    @harmless
    def task_ended(
        self, task_id: str, outcome: str | None = None, /, **fields: Unpack[EventFields]
    ) -> None:
        """Say that a task ended: completed (also None), failed, abandoned or blocked."""
        said = {**fields, "outcome": outcome}
        self._put((encoding.TASK_ENDED, task_id, time.time_ns(), said))

    @harmless
    def explained(self, task_id: str, text: str, /, **fields: Unpack[ExplainedFields]) -> None:
        """Publish the written explanation that a review or block asks for."""
        said = {"by": self._name, **fields, "text": text}
        self._put_text((encoding.TASK_EXPLAINED, task_id, time.time_ns(), said), _text_bytes(said))

    def refuse(self, complaint: str) -> None:
        """Count and log something that was to be said and is no event."""
        self._worker.queue.complain(complaint)

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until Kafka has everything said before; whether it has.

        Blocks: from async code, `await asyncio.to_thread(emitter.flush)`.
        """
        return self._worker.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> bool:
        """Send for at most `timeout_s` and put the rest on disk; whether Kafka has all of it.

        What is said afterwards is dropped and counted. Called at exit, where nobody else does.
        """
        return self._worker.close(timeout_s)

    def _take_worker(self) -> None:
        self._worker = Worker(self._settings, self._name, self._spool_dir, self._limits)
        _WORKERS.add(self._worker)
        # An emitter that nobody holds any more: its thread sends what was said, and ends.
        self._end = weakref.finalize(self, self._worker.begin_to_close, EXIT_TIMEOUT_S)
        self._end.atexit = False  # `_close_all` waits, this does not

    def after_fork_in_child(self) -> None:
        """Leave what is the parent's alone; begin again with the first event that is said here."""
        self._end.detach()
        _WORKERS.discard(self._worker)
        _LEFT_TO_PARENT.append(self._worker)
        self._worker.abandon()
        self._take_worker()
        self._put = self._begin_with
        self._put_text = self._begin_with

    def _use_queue(self) -> None:
        self._put = self._worker.queue.put
        self._put_text = self._worker.queue.put_text

    def _begin_with(self, said: encoding.Said, _text_bytes: int = 0) -> None:
        self._use_queue()
        self._worker.start()
        self._put(said)


_EMITTERS: weakref.WeakSet[Emitter] = weakref.WeakSet()
_WORKERS: weakref.WeakSet[Worker] = weakref.WeakSet()  # a thread that runs keeps its own alive
_LEFT_TO_PARENT: list[Worker] = []  # their finalizers would close, and warn of, what is not ours


def _after_fork() -> None:
    for emitter in list(_EMITTERS):
        emitter.after_fork_in_child()


def _close_all() -> None:
    workers = list(_WORKERS)
    for worker in workers:
        worker.begin_to_close(EXIT_TIMEOUT_S)
    for worker in workers:
        worker.close(EXIT_TIMEOUT_S)


def _text_bytes(value: object) -> int:
    """Return about how much the texts in `value` take."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_text_bytes(name) + _text_bytes(inner) for name, inner in value.items())
    return sum(map(_text_bytes, value)) if isinstance(value, list) else 0


def _copied(value: Any) -> Any:  # noqa: ANN401 - whatever the enforcer passes
    if isinstance(value, dict):
        return {name: _copied(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, list) else value


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
