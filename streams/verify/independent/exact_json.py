"""JSON as the wire has it: exact numbers, and no more than a reader in any language understands."""

import json
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

NESTING_MAX = 256  # of objects and lists; deeper, and a reader's stack would decide


class Repeated(dict[str, Any]):
    """An object in which names repeat: the last one counts, and each of them must be allowed."""

    pairs: list[tuple[str, Any]]


def each(members: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """Return the names and values of an object, of one that repeats each time."""
    return members.pairs if isinstance(members, Repeated) else members.items()


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    repeated = Repeated(members)
    repeated.pairs = pairs
    return repeated


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _whole(text: str) -> int | Decimal:
    try:
        return int(text)
    except ValueError:  # too long to be read as one; no field takes so many digits
        return Decimal(text)


def _fraction(text: str) -> Decimal | tuple[()]:
    try:
        return Decimal(text)
    except ArithmeticError:  # beyond all exponents: what no field takes
        return ()


_DECODER = json.JSONDecoder(
    parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_members
)
_PATIENT = json.JSONDecoder(
    parse_float=_fraction,
    parse_int=_whole,
    parse_constant=_no_constant,
    object_pairs_hook=_members,
)
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])')
_HALVES = re.compile(
    r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F])"
)


def loads(value: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Return JSON with exact numbers.

    Raises:
        ValueError: it is none: not in UTF-8, half a character (a lone surrogate), or nested too deeply.
    """
    try:
        text = value.decode()
        if len(text) > 2 * NESTING_MAX and nesting(text) > NESTING_MAX:
            raise ValueError("nested too deeply")
        if "\\u" in text and any(one[1] for one in _HALVES.finditer(text)):
            raise ValueError("half a character")
        return _read(text)
    except RecursionError as error:
        raise ValueError("not read") from error


def _read(text: str) -> Any:  # noqa: ANN401 - any JSON
    try:
        if text[:1] == "{":  # nearly all; to look for blanks around it takes as long as to read it
            found, end = _DECODER.raw_decode(text)
            if end == len(text):
                return found
        return _DECODER.decode(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, ArithmeticError):  # a number that is too long or too large
        return _PATIENT.decode(text)


def nesting(text: str) -> int:
    """Return how many objects and lists stand in each other."""
    if text.count("[") + text.count("{") < NESTING_MAX:
        return 0  # not looked at
    level = deepest = 0
    for piece in _PIECE.finditer(text):
        level += bool(piece[1]) - bool(piece[2])
        deepest = max(deepest, level)
    return deepest
