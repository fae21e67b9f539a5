"""Where two JSON texts first differ, in words for people. Pure."""

from decimal import Decimal

import msgspec

from schemas.refusal import UNREADABLE

SHOWN_LENGTH_MAX = 200
ABSENT = "nothing"

_DECODER = msgspec.json.Decoder(float_hook=Decimal)
_ENCODER = msgspec.json.Encoder(decimal_format="number")
Unlike = tuple[str, str, str]  # field, expected, found


def first_difference(expected: bytes, found: bytes) -> Unlike | None:
    """Return the first field that differs, and both values; None where they say the same.

    The order of members and the way a number is written make no difference.
    """
    wanted = _DECODER.decode(expected)
    try:
        there = _DECODER.decode(found)
    except UNREADABLE:
        return "value", shown(expected), f"no JSON: {found[:SHOWN_LENGTH_MAX]!r}"
    return _walk(wanted, there, "")


def shown(value: bytes) -> str:
    """Return the data of an event, or the whole of another record, shortened."""
    try:
        decoded = _DECODER.decode(value)
    except UNREADABLE:
        return f"{value[:SHOWN_LENGTH_MAX]!r}"
    if isinstance(decoded, dict) and "data" in decoded:
        decoded = decoded["data"]
    return _short(decoded)


def _walk(wanted: object, there: object, path: str) -> Unlike | None:
    if isinstance(wanted, dict) and isinstance(there, dict):
        for name in [*wanted, *(name for name in there if name not in wanted)]:
            inner = f"{path}.{name}" if path else str(name)
            if name not in there:
                return inner, _short(wanted[name]), ABSENT
            if name not in wanted:
                return inner, ABSENT, _short(there[name])
            if (unlike := _walk(wanted[name], there[name], inner)) is not None:
                return unlike
        return None
    if isinstance(wanted, list) and isinstance(there, list):
        for index, (one, other) in enumerate(zip(wanted, there, strict=False)):
            if (unlike := _walk(one, other, f"{path}[{index}]")) is not None:
                return unlike
        if len(wanted) != len(there):
            return path, f"{len(wanted)} entries", f"{len(there)} entries"
        return None
    # Python takes true for 1.
    if wanted == there and isinstance(wanted, bool) == isinstance(there, bool):
        return None
    return path or "value", _short(wanted), _short(there)


def _short(value: object) -> str:
    text = _ENCODER.encode(value).decode()
    return text if len(text) <= SHOWN_LENGTH_MAX else f"{text[:SHOWN_LENGTH_MAX]}…"
