"""Files that only their user reads and writes: budget data never gets to others by accident."""

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

FOLDER_MODE = 0o700
FILE_MODE = 0o600


def write_private(path: Path, content: bytes | str) -> None:
    """Write `path` whole or not at all, mode 0600: a reader never sees half of it."""
    # Another process may write the same file: each under a name of its own until it is whole.
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.new")
    with open_private(unfinished, os.O_TRUNC) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    unfinished.replace(path)


def open_private(path: Path, flag: int = os.O_APPEND) -> BinaryIO:
    """Open `path` for writing, made with mode 0600; appends unless `flag` says otherwise."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flag, FILE_MODE), "wb")


def read_from(path: Path, offset: int) -> bytes:
    """Return what stands in `path` after `offset` bytes; nothing where there is no such file."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(offset)
        return file.read()
    return b""
