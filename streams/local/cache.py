"""The folder for what is downloaded or computed once per machine, and the lock on it."""

import asyncio
import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from schemas.errors import InvalidFieldError, UnavailableError
from streams.local.private import FILE_MODE, FOLDER_MODE


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the cache folder, made if it does not exist.

    `STOPLOSS_CACHE_DIR`, else `stoploss` in `XDG_CACHE_HOME` or `~/.cache`; where no home can be
    written, a folder of this user's under the system's temporary folder.

    Raises:
        InvalidFieldError: `STOPLOSS_CACHE_DIR` cannot be written.
        UnavailableError: nothing can be written.
    """
    if named := environ.get("STOPLOSS_CACHE_DIR"):
        folder = Path(named).expanduser().absolute()
        if not _is_ours(folder):
            raise InvalidFieldError("STOPLOSS_CACHE_DIR", named, "a folder that you can write")
        return folder
    for folder in _candidates(environ):
        if _is_ours(folder):
            return folder
    raise UnavailableError(
        "there is no folder to keep Kafka in; name one that you can write in STOPLOSS_CACHE_DIR"
    )


def _candidates(environ: Mapping[str, str]) -> list[Path]:
    candidates = []
    if xdg := environ.get("XDG_CACHE_HOME"):
        candidates.append(Path(xdg) / "stoploss")
    if home := environ.get("HOME"):
        candidates.append(Path(home) / ".cache" / "stoploss")
    candidates.append(Path(tempfile.gettempdir()) / f"stoploss-cache-{os.getuid()}")
    # A relative one would be another cache in each folder.
    return [folder for folder in candidates if folder.is_absolute()]


def _is_ours(folder: Path) -> bool:
    """Whether `folder` exists now, is this user's, and nobody else can put jars into it."""
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError:
        return False
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return found.st_uid == os.getuid() and not others_write and os.access(folder, os.W_OK | os.X_OK)


class FileLock:
    """A lock between processes. The system frees it when its holder dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Take the lock, unless somebody else holds it; say whether it is ours."""
        assert self._descriptor is None, "already ours"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                return False
            raise
        self._descriptor = descriptor
        return True

    def free(self) -> None:
        """Give the lock back. Its file stays: another one may be waiting for that very file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextlib.asynccontextmanager
async def locked(path: Path, *, deadline_s: float, purpose: str) -> AsyncIterator[None]:
    """Hold the lock file `path`.

    Raises:
        UnavailableError: another process has held it for `deadline_s` seconds.
    """
    lock = FileLock(path)
    try:
        async with asyncio.timeout(deadline_s):
            while not lock.take():  # noqa: ASYNC110 - other processes set no event of ours
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise UnavailableError(
            f"{path}: another process is {purpose} for more than {deadline_s:g} s; "
            f"wait for it or end it"
        ) from None
    try:
        yield
    finally:
        lock.free()
