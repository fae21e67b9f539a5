"""Which keys were seen, and how far tasks came, in bounded memory."""

from collections.abc import Hashable

from streams.importers.tasks import TaskLog

# Twice as many are remembered at most: about 40 MB. The largest log seen, 1 GB, has fewer calls.
RECENT_KEYS = 200_000


class RecentKeys:
    """Remembers at least the last `size` keys, and at most twice as many."""

    def __init__(self, size: int = RECENT_KEYS) -> None:
        self._size = size
        self._new: set[int] = set()
        self._old: set[int] = set()

    def __contains__(self, key: Hashable) -> bool:
        digest = hash(key)
        return digest in self._new or digest in self._old

    def add(self, key: Hashable) -> bool:
        """Remember `key`; return whether it is new."""
        if key in self:
            return False
        if len(self._new) >= self._size:
            self._old, self._new = self._new, set()
        self._new.add(hash(key))
        return True


class Sequences:
    """The last sequence of tasks that were ended: one that goes on must not begin anew.

    A ledger would drop its calls as seen. At least the last `size` tasks are remembered.
    """

    def __init__(self, size: int = RECENT_KEYS // 2) -> None:
        self._size = size
        self._new: dict[str, int] = {}
        self._old: dict[str, int] = {}

    def leave(self, task: TaskLog) -> None:
        """Remember a task that was ended."""
        if len(self._new) >= self._size:
            self._old, self._new = self._new, {}
        self._new[task.task_id] = task.sequence

    def take_up(self, task_id: str) -> int:
        """Return the last sequence of a task, 0 where it is new."""
        return self._new.get(task_id) or self._old.get(task_id, 0)
