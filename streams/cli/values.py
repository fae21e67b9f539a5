"""How the text of an option becomes its value, or an error that names field, value and allowed."""

import enum
from collections.abc import Callable
from typing import TypeVar

from schemas.errors import InvalidFieldError

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


def choice(field: str, choices: type[Choice]) -> Callable[[str], Choice]:
    """Return a reader of one of `choices`."""

    def read(text: str) -> Choice:
        try:
            return choices(text)
        except ValueError:
            raise InvalidFieldError(field, text, ", ".join(choices)) from None

    return read
