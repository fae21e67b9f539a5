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

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field}: {value!r:.80} is not allowed; use {allowed}")
        self.field, self.value, self.allowed = field, value, allowed


class UnavailableError(StoplossError):
    """A part that is needed now cannot be reached."""

    remedy = Remedy.WAIT
