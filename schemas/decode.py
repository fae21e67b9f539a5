"""Bytes of `events` become a typed event, or a refusal that says which field was wrong.

The good path is one call into msgspec. Only a record that it refuses is read a second time, to name
the field and the value.
"""

import json
from collections.abc import Sequence
from typing import Final

import msgspec

from schemas.events import PARTITION_PREFIX, Event, PartitionEventBase
from schemas.nesting import NESTING_MAX, SHALLOW_BYTES, is_deeper
from schemas.refusal import (
    EVENT_WORDS,
    UNREADABLE,
    Refusal,
    explain,
    members_of,
    refusal,
    start_of,
)
from schemas.topics import EVENT_BYTES_MAX

__all__ = [
    "Headers",
    "Refusal",
    "decode_event",
    "is_binary_mode",
    "structured",
]

Headers = Sequence[tuple[str, bytes | None]]

_DECODER: Final[msgspec.json.Decoder[Event]] = msgspec.json.Decoder(Event)
# By type: to ask for the base of a Struct costs a tenth of decoding it.
_FOR_PARTITIONS: Final = frozenset(PartitionEventBase.__subclasses__())
_HEADER_PREFIX = "ce_"
_HEADER_ATTRIBUTES = frozenset(
    {"specversion", "id", "source", "type", "subject", "time", "sequence", "partitionkey"}
    | {"traceparent"}
)


def decode_event(value: bytes | None, headers: Headers = ()) -> Event | Refusal:
    """Return the event in a record of `events`, in structured or binary CloudEvents mode.

    Never raises: whatever the bytes are, the answer is an event or a refusal with one of the
    reasons `not_json`, `not_an_event`, `unknown_type`, `invalid_field`, `too_large`.
    """
    if headers:
        for name, _ in headers:
            if not name.isascii() and (refused := _refuse_name(name)) is not None:
                return refused
        if is_binary_mode(headers):
            event = structured(value or b"", headers)
            return event if isinstance(event, Refusal) else _decode(event)
    if value is None:
        return refusal("not_an_event", "value", "null", EVENT_WORDS)
    return _decode(value)


def _decode(value: bytes) -> Event | Refusal:
    if len(value) > SHALLOW_BYTES and (refused := _refuse_shape(value)) is not None:
        return refused
    try:
        event = _DECODER.decode(value)
    except UNREADABLE as error:
        if (refused := _refuse_shape(value)) is not None:
            return refused
        without_nulls = _without_nulls(value)
        return explain(value, error) if without_nulls is None else _decode(without_nulls)
    # msgspec does not look into what it skips; nobody else could read such a record.
    if not value.isascii() and (refused := _refuse_text(value)) is not None:
        return refused
    # An event for a whole partition names one; the fold checks that it is the right one.
    if type(event) in _FOR_PARTITIONS and not event.subject.startswith(PARTITION_PREFIX):
        return refusal("invalid_field", "subject", event.subject, "partition/N for this type")
    return event


def _refuse_shape(value: bytes) -> Refusal | None:
    """Refuse what must not be decoded: too large, or so deep that the stack would decide."""
    if len(value) > EVENT_BYTES_MAX:
        return refusal("too_large", "value", f"{len(value)} bytes", f"at most {EVENT_BYTES_MAX}")
    if is_deeper(value, NESTING_MAX):
        allowed = f"JSON nested at most {NESTING_MAX} levels deep"
        return refusal("not_json", "value", start_of(value), allowed)
    return None


def _refuse_text(value: bytes) -> Refusal | None:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return refusal("not_json", "value", start_of(value), f"JSON in UTF-8 ({error})")
    return None


def _refuse_name(name: str) -> Refusal | None:
    """Refuse a record with a header whose name is not UTF-8: nobody knows what it says."""
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = name.encode(errors="surrogateescape").decode(errors="replace")
        return refusal("not_an_event", "headers", shown, "names in UTF-8")
    return None


def _without_nulls(value: bytes) -> bytes | None:
    """Return the record without the attributes that are null; None where there are none.

    CloudEvents 1.0 (JSON format, 2.2) takes a null attribute for an absent one. In `data` the types
    do that; here a default or a word about what is missing has to take its place. Not where names
    repeat: each of their values must be allowed, and here the last ones alone would be left.
    """
    attributes = members_of(value) or {}
    present = {name: raw for name, raw in attributes.items() if bytes(raw) != b"null"}
    if len(present) == len(attributes) or _repeats(value):
        return None
    return msgspec.json.encode(present)


def _repeats(value: bytes) -> bool:
    """Whether a record, which is JSON, has an attribute twice."""
    members = json.loads(
        value.decode(errors="replace"), object_pairs_hook=tuple, parse_int=str, parse_float=str
    )
    return len({name for name, _ in members}) < len(members)


def is_binary_mode(headers: Headers) -> bool:
    """Whether the attributes of an event stand in the headers of its record."""
    return any(name.startswith(_HEADER_PREFIX) for name, _ in headers)


def structured(value: bytes, headers: Headers) -> bytes | Refusal:
    """Return an event in binary mode as it would be in structured mode.

    A refusal where that cannot be: an attribute is no text, or the data no JSON.
    """
    attributes: dict[str, str | msgspec.Raw] = {}
    for header, raw in headers:
        name = header.removeprefix(_HEADER_PREFIX)
        if header.startswith(_HEADER_PREFIX) and name in _HEADER_ATTRIBUTES and raw is not None:
            try:
                attributes[name] = raw.decode()
            except UnicodeDecodeError:
                shown = raw.decode(errors="replace")
                return refusal("invalid_field", header, shown, "text in UTF-8")
    if data := value.strip(b" \t\r\n"):
        if (refused := _refuse_shape(value)) is not None:
            return refused
        try:
            msgspec.json.decode(
                data, type=msgspec.Raw
            )  # else what is no JSON would be spliced into the text below
        except UNREADABLE as error:
            return explain(value, error)
        attributes["data"] = msgspec.Raw(data)
    return msgspec.json.encode(attributes)
