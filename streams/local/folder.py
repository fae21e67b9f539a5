"""The data folder of a local cluster, `.stoploss/` by default, and what it knows of itself.

.gitignore     *: nothing of it gets into a repository
cluster.lock   held by the process that runs the cluster, as long as it lives
cluster.json   how to reach what runs now
kafka/ redis/  their data, settings and logs
"""

import contextlib
import shlex
from datetime import datetime
from pathlib import Path

import msgspec
import psutil

from schemas.errors import InvalidFileError, StoplossError
from schemas.refusal import UNREADABLE
from streams.local.private import FOLDER_MODE, write_private

GITIGNORE = "# Made by stoploss: data of this machine.\n*\n"

CREATED_TOLERANCE_S = 1.0
# A clock that is set right moves all creation times a little; a pid is not used again so soon.


class NoDataFolderError(StoplossError):
    """There is no data folder to read from."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: there is no data folder of stoploss; start one with "
            f"`stoploss up --dir {shlex.quote(str(path))}`, "
            f"or name a running Kafka in STOPLOSS_BOOTSTRAP_SERVERS"
        )
        self.path = path


class ProcessMark(msgspec.Struct, frozen=True):
    """A process that is meant: its pid alone may belong to another one by now."""

    pid: int
    created_unix_s: float

    @classmethod
    def of(cls, pid: int) -> "ProcessMark":
        """Return the mark of a process that lives.

        Raises:
            psutil.NoSuchProcess: it does not.
        """
        return cls(pid, psutil.Process(pid).create_time())

    @property
    def lives(self) -> bool:
        """Whether this very process has not ended."""
        try:
            process = psutil.Process(self.pid)
            created_unix_s = process.create_time()
            ended = process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False
        return not ended and abs(created_unix_s - self.created_unix_s) < CREATED_TOLERANCE_S


class ClusterState(msgspec.Struct, frozen=True):
    """What `cluster.json` says."""

    bootstrap_servers: str
    redis_url: str | None
    kafka: ProcessMark
    redis: ProcessMark | None
    starter: ProcessMark
    started: datetime

    @property
    def processes(self) -> list[ProcessMark]:
        """The servers."""
        return [self.kafka, *([self.redis] if self.redis is not None else [])]

    @property
    def runs(self) -> bool:
        """Whether its Kafka lives, and will go on; a Redis that has died is missed by its readers alone.

        Servers whose starter has been killed answer for another second, while they end.
        """
        return self.starter.lives and self.kafka.lives


class DataFolder:
    """A folder that is ours."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.kafka = self.path / "kafka"
        self.redis = self.path / "redis"
        self.lock = self.path / "cluster.lock"
        self._state = self.path / "cluster.json"
        self._gitignore = self.path / ".gitignore"

    def __repr__(self) -> str:
        return f"<DataFolder {self.path}>"

    @property
    def exists(self) -> bool:
        """Whether this is a folder that stoploss made."""
        with contextlib.suppress(OSError):
            return self._gitignore.read_text() == GITIGNORE
        return False

    def make(self) -> None:
        """Make the folder, mode 0700 and ignored by git, or take the one that is there.

        Raises:
            InvalidFieldError: it is a file, holds something that is not ours, or cannot be written.
        """
        self._refuse_file()
        try:
            self.path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            if not self.exists:
                # In somebody's repository our .gitignore would hide all that is theirs.
                if any(self.path.iterdir()):
                    raise InvalidFileError(
                        "--dir",
                        self.path,
                        "a new or empty folder, or one that stoploss made",
                        "it has other files",
                    )
                write_private(self._gitignore, GITIGNORE)
            self.path.chmod(FOLDER_MODE)
        except OSError as error:
            problem = error.strerror or str(error)
            raise InvalidFileError(
                "--dir", self.path, "a folder that you can write", problem
            ) from error

    def require(self) -> None:
        """Do nothing where the folder exists.

        Raises:
            InvalidFieldError: it is a file.
            NoDataFolderError: it does not exist.
        """
        self._refuse_file()
        if not self.exists:
            raise NoDataFolderError(self.path)

    def _refuse_file(self) -> None:
        if self.path.is_file():
            raise InvalidFileError("--dir", self.path, "a folder", "this is a file")

    def state(self) -> ClusterState | None:
        """Return what was last written; None where nothing was, or nothing that can be read."""
        with contextlib.suppress(OSError, *UNREADABLE):
            return msgspec.json.decode(self._state.read_bytes(), type=ClusterState)
        return None

    def running(self) -> ClusterState | None:
        """Return how to reach the cluster that runs here, None where none does."""
        state = self.state()
        return state if state is not None and state.runs else None

    def write_state(self, state: ClusterState) -> None:
        """Tell others how to reach what runs now."""
        write_private(self._state, msgspec.json.format(msgspec.json.encode(state)))

    def remove_state(self) -> None:
        """Tell others that nothing runs."""
        self._state.unlink(missing_ok=True)
