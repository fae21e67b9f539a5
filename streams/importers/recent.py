"""Which keys were seen, in bounded memory."""

from collections.abc import Hashable

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
