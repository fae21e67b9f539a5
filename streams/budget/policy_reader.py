"""Reads a policy's document key by key and collects every error, instead of stopping at the first.

Each method returns a usable value even where the document has none, so that the rest is still
checked; `out` grows into the normalised document, in which every key is present.
"""

from decimal import Context, Decimal
from typing import Any

from schemas.errors import InvalidFieldError

Document = dict[str, Any]
DIGITS_MAX = 28
_NO = False
_EXACT = Context(prec=DIGITS_MAX)


class Reader:
    """One table of the document. `path` is its dotted name, empty at the top."""

    def __init__(self, table: object, path: str, errors: list[InvalidFieldError]) -> None:
        self.path, self.errors = path, errors
        self.out: Document = {}
        if not isinstance(table, dict):
            errors.append(InvalidFieldError(path or "policy", table, "a table"))
            self.table: Document = {}
            self._complete = False  # its keys are not missed one by one as well
        else:
            self.table = table
            self._complete = True

    def name(self, key: str) -> str:
        """Return the dotted name of a key of this table."""
        return f"{self.path}.{key}" if self.path else key

    def refuse(self, key: str, value: object, allowed: str) -> None:
        """Add an error about one key."""
        self.errors.append(InvalidFieldError(self.name(key), _plain(value), allowed))

    def child(self, key: str) -> "Reader":
        """Return the table under `key`; an absent one is an error, of which its keys say nothing."""
        reader = Reader(self._take(key, {}, "a table"), self.name(key), self.errors)
        reader._complete &= key in self.table
        self.out[key] = reader.out
        return reader

    def text(self, key: str, length_max: int) -> str:
        """Return a string that is neither empty nor longer than `length_max`."""
        allowed = f"a text of 1 to {length_max} characters"
        value = self._take(key, "?", allowed)
        if not isinstance(value, str) or not 1 <= len(value) <= length_max:
            self.refuse(key, value, allowed)
            value = "?"
        self.out[key] = value
        return value

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """Return one of `allowed`."""
        value = self._take(key, allowed[0], ", ".join(allowed))
        if value not in allowed:
            self.refuse(key, value, ", ".join(allowed))
            value = allowed[0]
        self.out[key] = value
        return str(value)

    def flag(self, key: str) -> bool:
        """Return true or false."""
        value = self._take(key, _NO, "true or false")
        if not isinstance(value, bool):
            self.refuse(key, value, "true or false")
            value = _NO
        self.out[key] = value
        return value

    def names(self, key: str, known: frozenset[str], described: str) -> tuple[str, ...]:
        """Return a list of different names, each of them in `known`."""
        value = self._take(key, [], described)
        if not isinstance(value, list):
            self.refuse(key, value, described)
            value = []
        for index, name in enumerate(value):
            if not isinstance(name, str) or name not in known or name in value[:index]:
                self.refuse(f"{key}[{index}]", name, described)
        names = tuple(name for name in value if isinstance(name, str) and name in known)
        self.out[key] = list(names)
        return names

    def whole(self, key: str, at_least: int, at_most: int) -> int:
        """Return a whole number within bounds."""
        allowed = f"a whole number from {at_least} to {at_most}"
        value = self._take(key, at_least, allowed)
        value = _plain(value)
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or not at_least <= value <= at_most
        ):
            self.refuse(key, value, allowed)
            value = at_least
        self.out[key] = value
        return value

    def decimal(
        self,
        key: str,
        *,
        above: int | None = None,
        at_least: int | None = None,
        at_most: int,
        places: int,
    ) -> Decimal:
        """Return an exact number within bounds, with at most `places` decimals."""
        lower = f"above {above}" if above is not None else f"from {at_least}"
        allowed = f"a number {lower}, at most {at_most}, with up to {places} decimals"
        value = self._take(key, Decimal(at_most), allowed)
        found = self._as_decimal(value)
        if (
            found is None
            or found > at_most
            or (above is not None and found <= above)
            or (at_least is not None and found < at_least)
            or int(found.as_tuple().exponent) < -places
        ):
            self.refuse(key, value, allowed)
            found = Decimal(at_most)
        self.out[key] = found
        return found

    def finish(self, *optional: str) -> None:
        """Refuse every key that nothing asked for: a misspelt one would do nothing, silently.

        Args:
            optional: keys that are allowed and need not be there.
        """
        known = ", ".join(dict.fromkeys((*self.out, *optional))) or "nothing"
        for key in self.table:
            if key not in self.out:
                self.refuse(key, self.table[key], f"one of: {known}")

    def _take(self, key: str, default: object, allowed: str) -> object:
        if key in self.table:
            return self.table[key]
        if self._complete:
            self.errors.append(InvalidFieldError(self.name(key), "absent", allowed))
        return default

    @staticmethod
    def _as_decimal(value: object) -> Decimal | None:
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            return None
        found = Decimal(value)
        if not found.is_finite() or len(found.as_tuple().digits) > DIGITS_MAX:
            return None
        if found and abs(found.adjusted()) > DIGITS_MAX:
            return None  # 1e999999999 has one digit, and no context can hold it
        return found.normalize(_EXACT)


def _plain(value: object) -> object:
    """A number as it was written, not as `Decimal('0')`."""
    if not isinstance(value, Decimal):
        return value
    # int() of 1e999999999 would fill the memory.
    if value.is_finite() and value.adjusted() < 18 and value == value.to_integral_value():  # noqa: PLR2004 - as many as an int of 64 bits
        return int(value)
    return float(value)
