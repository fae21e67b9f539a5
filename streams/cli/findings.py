"""What `doctor` finds."""

from msgspec import Struct


class Finding(Struct, frozen=True):
    """One thing that is wrong: about what, what it is, and what mends it."""

    about: str
    problem: str
    remedy: str
