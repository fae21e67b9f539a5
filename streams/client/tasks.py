"""Tasks and phases as `with` blocks that measure and say how they ended.

    with emitter.task("TASK-17", complexity="large") as task:
        with task.phase("THINK") as think:
            think.usage(model="…", input_tokens=1200, output_tokens=300)

An exception ends its phase and task as failed, and goes on.
"""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from schemas.fields import PhaseOutcome, TaskOutcome
from streams.client.harmless import harmless

if TYPE_CHECKING:
    from streams.client.emitter import Emitter, ExplainedFields, TaskFields, UsageFields

NS_PER_MS = 1_000_000


class Task:
    """One task of an enforcer; made by `Emitter.task` and `child`. Its phases follow each other."""

    def __init__(self, emitter: "Emitter", task_id: str, fields: dict[str, Any]) -> None:
        self.task_id = task_id
        self._emitter = emitter
        self._fields = fields
        self._root: str | None = fields.get("root")
        self._outcome: str | None = None
        self._phase_ended_ns: int | None = None
        if self._root is None and fields.get("parent_task_id") is not None:
            # Without more knowledge: a parent that has no parent itself.
            self._root = fields["root"] = fields["parent_task_id"]

    def __repr__(self) -> str:
        return f"<Task {self.task_id} root={self.root}>"

    def __enter__(self) -> Self:
        self._emitter.task_started(self.task_id, **self._fields)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        ended = TaskOutcome.COMPLETED if kind is None else TaskOutcome.FAILED
        self._emitter.task_ended(self.task_id, self._outcome or ended, root=self._root)

    @property
    def root(self) -> str:
        """The task whose id is the Kafka key of the whole family."""
        return self.task_id if self._root is None else self._root

    def phase(self, phase: str, *, attempt: int | None = None) -> "Phase":
        """Return a context manager that measures a phase; without `attempt`, its next one."""
        return Phase(self._emitter, self, phase, attempt)

    def child(self, task_id: str, **fields: "Unpack[TaskFields]") -> "Task":
        """Return a task whose usage counts for this one too, and goes to the same partition."""
        of_family = {**fields, "parent_task_id": self.task_id, "root": self.root}
        return Task(self._emitter, task_id, of_family)

    @harmless
    def usage(self, phase: str, /, **fields: "Unpack[UsageFields]") -> None:
        """Say what was used in a phase since the last report."""
        fields["root"] = self._root
        self._emitter.usage(self.task_id, phase, **fields)

    @harmless
    def explain(self, text: str, /, **fields: "Unpack[ExplainedFields]") -> None:
        """Publish the written explanation that a review or block asks for."""
        fields["root"] = self._root
        self._emitter.explained(self.task_id, text, **fields)

    @harmless
    def outcome(self, outcome: TaskOutcome | str) -> None:
        """Say how the task ends, where it is not just completed or failed: abandoned or blocked."""
        self._outcome = outcome

    def refuse(self, complaint: str) -> None:
        """Count and log something that was to be said and is no event."""
        self._emitter.refuse(complaint)

    def since_last_phase_ms(self, now_ns: int) -> int | None:
        """Return what the change of phase took; None for the first phase."""
        if self._phase_ended_ns is None:
            return None
        return (now_ns - self._phase_ended_ns) // NS_PER_MS

    def phase_ended_at(self, now_ns: int) -> None:
        """Remember when the last phase ended, on the monotonic clock."""
        self._phase_ended_ns = now_ns


class Phase:
    """One run of a phase; made by `Task.phase`."""

    def __init__(self, emitter: "Emitter", task: Task, phase: str, attempt: int | None) -> None:
        self.phase = phase
        self._emitter = emitter
        self._task = task
        self._attempt = attempt
        self._outcome: str | None = None
        self._started_ns = 0
        self._transition_ms: int | None = None

    def __repr__(self) -> str:
        return f"<Phase {self.phase} of {self._task.task_id}>"

    def __enter__(self) -> Self:
        self._started_ns = time.monotonic_ns()
        self._transition_ms = self._task.since_last_phase_ms(self._started_ns)
        self._emitter.phase_started(
            self._task.task_id, self.phase, attempt=self._attempt, root=self._task.root
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        ended_ns = time.monotonic_ns()
        ended = PhaseOutcome.COMPLETED if kind is None else PhaseOutcome.FAILED
        self._emitter.phase_ended(
            self._task.task_id,
            self.phase,
            attempt=self._attempt,
            duration_ms=(ended_ns - self._started_ns) // NS_PER_MS,
            outcome=self._outcome or ended,
            transition_ms=self._transition_ms,
            root=self._task.root,
        )
        self._task.phase_ended_at(ended_ns)

    @harmless
    def usage(self, **fields: "Unpack[UsageFields]") -> None:
        """Say what was used in this phase since the last report."""
        fields.setdefault("attempt", self._attempt)
        self._task.usage(self.phase, **fields)

    @harmless
    def outcome(self, outcome: PhaseOutcome | str) -> None:
        """Say how the phase ends, where it is not just completed or failed: backtracked, …."""
        self._outcome = outcome

    def refuse(self, complaint: str) -> None:
        """Count and log something that was to be said and is no event."""
        self._emitter.refuse(complaint)
