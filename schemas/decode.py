"""Bytes of `events` become a typed event, or a refusal that says which field was wrong.

The good path is one call into msgspec. Only a record that it refuses is read a second time, to name
the field and the value.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from schemas.events import EVENT_TYPES, Event, PartitionEventBase
from schemas.outputs import DeadLetterDetail
from schemas.topics import EVENT_BYTES_MAX

Headers = Sequence[tuple[str, bytes]]

_DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_WHERE = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>.+)`)?$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(?P<field>[^`]+)`")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_BINARY_ATTRIBUTES = frozenset(
    {"specversion", "id", "source", "type", "subject", "time", "sequence", "partitionkey"}
    | {"traceparent"}
)
VALUE_LENGTH_MAX = 80


class Refusal(msgspec.Struct, frozen=True):
    """Why a record is no event; the ledger keeps its bytes in `dead-letters`."""

    reason: str
    detail: DeadLetterDetail


def decode_event(value: bytes | None, headers: Headers = ()) -> Event | Refusal:
    """Return the event in a record of `events`, in structured or binary CloudEvents mode.

    Never raises: whatever the bytes are, the answer is an event or a refusal with one of the
    reasons `not_json`, `not_an_event`, `unknown_type`, `invalid_field`, `too_large`.
    """
    if value is None:
        return _refusal("not_an_event", "value", "null", "a CloudEvents 1.0 event in JSON")
    if len(value) > EVENT_BYTES_MAX:
        return _refusal("too_large", "value", f"{len(value)} bytes", f"at most {EVENT_BYTES_MAX}")
    try:
        if headers and any(name.startswith("ce_") for name, _ in headers):
            return _decode_binary(value, headers)
        event = _DECODER.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _explain(value, error)
    return _checked_subject(event)


def _checked_subject(event: Event) -> Event | Refusal:
    """An event for a whole partition names one; the fold checks that it is the right one."""
    if isinstance(event, PartitionEventBase) and not event.subject.startswith("partition/"):
        return _refusal("invalid_field", "subject", event.subject, "partition/N for this type")
    return event


def _decode_binary(value: bytes, headers: Headers) -> Event | Refusal:
    fields: dict[str, Any] = {}
    for name, raw in headers:
        attribute = name.removeprefix("ce_")
        if name.startswith("ce_") and attribute in _BINARY_ATTRIBUTES:
            fields[attribute] = raw.decode()
    data = value.strip() or b"null"
    msgspec.json.decode(data)  # else what is no JSON would be spliced into the text below
    if data != b"null":
        fields["data"] = msgspec.Raw(data)
    whole = msgspec.json.encode(fields)
    try:
        return _checked_subject(_DECODER.decode(whole))
    except msgspec.ValidationError as error:
        return _explain(whole, error)


def _explain(value: bytes, error: Exception) -> Refusal:
    if not isinstance(error, msgspec.ValidationError):
        return _refusal("not_json", "value", _shown(value), f"JSON ({error})")
    found = _WHERE.match(str(error))
    what, path = (found["what"], found["path"] or "$") if found else (str(error), "$")
    missing = _MISSING.search(what)
    if missing:
        path = f"{path}.{missing['field']}"
    field = path.removeprefix("$").removeprefix(".") or "value"
    if "." not in field and field != "type":
        known = _value_at(value, "$.type") in EVENT_TYPES
        if not known and (missing or field == "value"):
            return _refusal("not_an_event", field, _shown(value), "a CloudEvents 1.0 event in JSON")
    if field == "type":
        shown = _value_at(value, "$.type")
        if not isinstance(shown, str):
            return _refusal("not_an_event", "type", shown, "a type of the wire contract")
        return _refusal("unknown_type", "type", shown, ", ".join(EVENT_TYPES))
    shown = "absent" if missing else _value_at(value, path)
    return _refusal("invalid_field", field, shown, _allowed(what, missing=bool(missing)))


def _allowed(what: str, *, missing: bool) -> str:
    if missing:
        return "a value: it is required"
    return what.replace("Expected ", "").removesuffix(".")


def _value_at(value: bytes, path: str) -> object:
    try:
        found: Any = orjson.loads(value)
        for name, index in _STEP.findall(path):
            if index == "...":
                return found
            found = found[name] if name else found[int(index)]
    except (ValueError, LookupError, TypeError):
        return _shown(value)
    return found


def _shown(value: bytes) -> str:
    return value[:VALUE_LENGTH_MAX].decode(errors="replace")


def _refusal(reason: str, field: str, value: object, allowed: str) -> Refusal:
    shown = value if isinstance(value, str) else repr(value)
    return Refusal(reason, DeadLetterDetail(field, shown[:VALUE_LENGTH_MAX], allowed))


def original_bytes(original: str) -> bytes:
    """Return the bytes of a refused record from the `original` of its dead letter.

    Raises:
        ValueError: `original` is not base64.
    """
    try:
        return base64.b64decode(original, validate=True)
    except binascii.Error as error:
        raise ValueError(f"original: not base64 ({error})") from error
