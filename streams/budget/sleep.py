"""Idle tasks are put to sleep: kept as the bytes of their stored state until they are asked for.

No rule of the budget model; it decides about memory alone (see `tasks`). Who is held stays awake:
a change of mode speaks to each of them. A task's first deadline wakes it.
"""

from msgspec import Struct

from streams.budget.clock import lay_down
from streams.budget.encode import ENCODER
from streams.budget.ladder import REVIEW
from streams.budget.restore import wake
from streams.budget.snapshot import task_state
from streams.budget.state import PartitionState, Task
from streams.budget.tasks import pack

AT_ONCE_MAX = 50  # 3 ms, between two batches


class Patience(Struct, frozen=True):
    """How long a task stays awake that nothing has changed: shorter where many are awake."""

    idle_ms: int = 300_000
    crowded_idle_ms: int = 10_000
    awake_max: int = 10_000  # 60 MB of a partition
    look_every_ms: int = 5_000


class Sleep:
    """Puts the idle tasks of one partition to sleep, a few at a time."""

    def __init__(self, state: PartitionState, patience: Patience) -> None:
        self._state, self._patience = state, patience
        self._idle_ms = self._patience.idle_ms
        self._drowsy: list[str] = []
        self._due_ms = 0
        state.tasks.wake = lambda task_id: wake(state, task_id)

    def __repr__(self) -> str:
        return f"<Sleep {self._state.tasks!r} drowsy={len(self._drowsy)}>"

    def step(self) -> None:
        """Put some to sleep; to be called between batches, when all that changed is committed."""
        state = self._state
        if not self._drowsy:
            if state.clock_ms < self._due_ms:
                return
            self._look()
        for _ in range(min(AT_ONCE_MAX, len(self._drowsy))):
            task = state.tasks.awake.get(self._drowsy.pop())
            if task is not None and self._may_sleep(task):
                data = task_state(task)
                assert data.due_ms is not None
                del state.tasks[task.task_id]
                lay_down(state, task.task_id, pack(ENCODER.encode({"data": data})), data.due_ms)

    def _look(self) -> None:
        awake, patience = self._state.tasks.awake, self._patience
        is_crowded = len(awake) > patience.awake_max
        self._idle_ms = patience.crowded_idle_ms if is_crowded else patience.idle_ms
        self._drowsy = [task.task_id for task in awake.values() if self._may_sleep(task)]
        self._due_ms = self._state.clock_ms + patience.look_every_ms

    def _may_sleep(self, task: Task) -> bool:
        if task.is_changed or (task.verdict >= REVIEW and not task.is_ended):
            return False
        return self._state.clock_ms - task.seen_ms >= self._idle_ms
