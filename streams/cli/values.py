"""How the text of an option becomes its value, or an error that names field, value and allowed."""

import enum
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from schemas.envelope import epoch_ms
from schemas.errors import InvalidFieldError

UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 24 * 3_600_000}
AGO_MAX = 1_000_000_000
Choice = TypeVar("Choice", bound=enum.StrEnum)


def number(field: str, *, at_least: float, at_most: float) -> Callable[[str], float]:
    """Return a reader of numbers within bounds."""
    allowed = f"a number from {at_least:.10g} to {at_most:.10g}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise InvalidFieldError(field, text, allowed) from None
        if not at_least <= value <= at_most:  # not a number is not, either
            raise InvalidFieldError(field, text, allowed)
        return value

    return read


def whole(field: str, *, at_least: int, at_most: int) -> Callable[[str], int]:
    """Return a reader of whole numbers within bounds."""
    allowed = f"a whole number from {at_least} to {at_most}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise InvalidFieldError(field, text, allowed) from None
        if not at_least <= value <= at_most:
            raise InvalidFieldError(field, text, allowed)
        return value

    return read


def moment(field: str, now_ms: Callable[[], int]) -> Callable[[str], int]:
    """Return a reader of times: how long ago, or RFC 3339; in milliseconds since 1970."""
    allowed = "how long ago, such as 90m, 24h or 7d; or a time such as 2026-11-22T21:00:00Z"

    def read(text: str) -> int:
        unit_ms = UNITS_MS.get(text[-1:])
        if unit_ms is not None and text[:-1].isascii() and text[:-1].isdigit():
            return max(0, now_ms() - min(int(text[:-1]), AGO_MAX) * unit_ms)
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            raise InvalidFieldError(field, text, allowed) from None
        if time.tzinfo is None:
            raise InvalidFieldError(field, text, allowed)
        return max(0, epoch_ms(time))

    return read


def choice(field: str, choices: type[Choice]) -> Callable[[str], Choice]:
    """Return a reader of one of `choices`."""

    def read(text: str) -> Choice:
        try:
            return choices(text)
        except ValueError:
            raise InvalidFieldError(field, text, ", ".join(choices)) from None

    return read
