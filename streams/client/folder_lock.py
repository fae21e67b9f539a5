"""A lock that the operating system releases when its process ends, however it ends."""

import os
import sys
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class FolderLock:
    """Held from `acquire` until `release`; the file `lock` of the folder carries it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, folder: Path) -> "FolderLock | None":
        """Return the lock of `folder`, or None where another process, or emitter, holds it."""
        path = folder / "lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            return None  # the folder was removed by whoever drained it
        try:
            _try_lock(descriptor)
            # Locked, but perhaps a file that its last owner has just unlinked.
            current = path.stat().st_ino == os.fstat(descriptor).st_ino
        except OSError:
            current = False
        if current:
            return cls(descriptor)
        os.close(descriptor)
        return None

    def release(self) -> None:
        """Let others have the folder; a forked child calls this too, which frees nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
