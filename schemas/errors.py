"""The root of our errors: each says what is wrong in one line, and carries what to do about it."""

import enum


class Remedy(enum.Enum):
    """What the caller does about an error; nobody parses its text."""

    DEAD_LETTER = "dead_letter"  # the input is bad: keep it where a person can see it, go on
    RESTORE = "restore"  # what was written is uncertain: throw away and read the state again
    WAIT = "wait"  # a part is away: try again later
    STOP = "stop"  # a person has to change something first


class StoplossError(Exception):
    """Root of everything this project raises on purpose."""

    remedy = Remedy.STOP


class InvalidFieldError(StoplossError):
    """A value that came from outside is not allowed."""

    remedy = Remedy.DEAD_LETTER
    shown_max = 80  # characters

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field}: {value!r:.{self.shown_max}} is not allowed; use {allowed}")
        self.field, self.value, self.allowed = field, value, allowed


class InvalidFileError(InvalidFieldError):
    """A file that was named cannot be used: it is not there, or not what it should be."""

    shown_max = 5_000  # longer than any path: its end tells which file it is

    def __init__(self, field: str, path: object, allowed: str, problem: str) -> None:
        super().__init__(field, str(path), f"{allowed} ({problem})")
        self.problem = problem


class UnavailableError(StoplossError):
    """A part that is needed now cannot be reached."""

    remedy = Remedy.WAIT
