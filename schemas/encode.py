"""A typed event becomes the JSON line that `schemas.decode.decode_event` reads back.

What is absent is left out, so that `null` never travels; decimals are JSON numbers, exact.
"""

from typing import Any

import msgspec

from schemas.events import NO_OVERRIDES, Event

_ENCODER = msgspec.json.Encoder(decimal_format="number")
_TEXT_ENCODER = msgspec.json.Encoder(decimal_format="string")
_NO_NUMBERS = (b"Infinity", b"NaN")


def encode_event(event: Event) -> bytes:
    """Return `event` as one line of JSON, without a newline; `type` and `specversion` stand in it.

    Fields that are None are left out; so is `data` where the event has none at all.
    """
    fields = _present(event)
    data = fields.pop("data", None)
    envelope = {
        "specversion": fields.pop("specversion"),
        "type": event.__struct_config__.tag,
        **fields,
    }
    if data is not None:
        envelope["data"] = _present(data)
    line = _ENCODER.encode(envelope)
    if any(word in line for word in _NO_NUMBERS):
        # 1e999999999 is read as infinite; as a number it would be no JSON, and nobody could say any
        # more that it is the cost which is wrong.
        return _TEXT_ENCODER.encode(envelope)
    return line


def _present(struct: msgspec.Struct) -> dict[str, Any]:
    values = ((name, getattr(struct, name)) for name in struct.__struct_fields__)
    return {name: value for name, value in values if not _is_absent(value)}


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, msgspec.Raw) and value == NO_OVERRIDES)
