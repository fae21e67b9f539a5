"""Values of JSON: compared with what must stand there, and read."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from streams.verify.independent.exact_json import loads
from streams.verify.independent.wire import Data


@dataclass(frozen=True)
class OneOf:
    """One of these: the contract leaves it open, or what would tell is gone."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return " or ".join("nothing" if one is None else str(one) for one in self.values)


@dataclass(frozen=True)
class InAnyOrder:
    """A list of these names, and perhaps of those that `may` be there."""

    names: AbstractSet[str]
    may: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return str(sorted(self.names))


@dataclass(frozen=True)
class AtLeast:
    """An object with these fields; others are not looked at."""

    fields: Data

    def __str__(self) -> str:
        return str(self.fields)


def same(expected: object, found: object) -> bool:
    """Tell whether a value is the expected one; what is absent is null, false, 0 or empty."""
    if isinstance(expected, dict):
        if not isinstance(found, dict):
            return not expected and found is None
        names = expected.keys() | found.keys()
        return all(same(expected.get(name), found.get(name)) for name in names)
    if isinstance(expected, OneOf):
        return any(same(one, found) for one in expected.values)
    if isinstance(expected, InAnyOrder):
        there = found or []
        return (
            isinstance(there, list)
            and len(set(there)) == len(there)
            and expected.names <= set(there) <= expected.names | expected.may
        )
    if isinstance(expected, AtLeast):
        return isinstance(found, dict) and all(
            same(value, found.get(name)) for name, value in expected.fields.items()
        )
    if isinstance(expected, bool) or expected is None:
        return (expected or False) is (found or False)
    if isinstance(expected, Decimal) and isinstance(found, int | Decimal):
        return expected == found
    if expected == 0 and found is None:
        return True
    return expected == found


def data_of(value: bytes) -> Data:
    """Return the data of a record; empty where it is torn."""
    try:
        data = loads(value)["data"]
    except (ValueError, LookupError, TypeError):
        return {}
    return data if isinstance(data, dict) else {}
