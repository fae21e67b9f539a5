"""A refused record, as its dead letter keeps it and as it was.

A name that is not UTF-8 is text with lone surrogates as it is read ("surrogateescape").
"""

import base64
import binascii
from collections.abc import Iterable

import msgspec

from schemas.decode import Headers
from schemas.outputs import DeadLetterHeader
from schemas.refusal import UNREADABLE

# Of letters that an agent has written, about what it reads. The ledger's have another one.
AGENTS_SOURCE = "stoploss-agents"


class _Sourced(msgspec.Struct):
    source: str


_SOURCE = msgspec.json.Decoder(_Sourced)


def original_bytes(original: str) -> bytes:
    """Return the bytes of a refused record from the `original` of its dead letter.

    Raises:
        ValueError: `original` is not base64.
    """
    return _from_base64("original", original)


def kept_header(name: str, value: bytes | None) -> DeadLetterHeader:
    """Return a header as a dead letter keeps it: nothing of it is lost."""
    name_text, name_base64 = _text_or_base64(name.encode(errors="surrogateescape"))
    value_text, value_base64 = (None, None) if value is None else _text_or_base64(value)
    return DeadLetterHeader(
        name=name_text, name_base64=name_base64, value=value_text, value_base64=value_base64
    )


def original_headers(kept: Iterable[DeadLetterHeader]) -> Headers:
    """Return the headers of a refused record from those of its dead letter.

    Raises:
        ValueError: one has no name, or what should be base64 is not.
    """
    return [(_name(header), _value(header)) for header in kept]


def is_agents_letter(value: bytes | None) -> bool:
    """Whether a record of `dead-letters` is an agent's: the ledger's own are judged, these are not."""
    if value is None:
        return False
    try:
        return _SOURCE.decode(value).source == AGENTS_SOURCE
    except UNREADABLE:
        return False


def _text_or_base64(raw: bytes) -> tuple[str | None, str | None]:
    try:
        return raw.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(raw).decode()


def _name(header: DeadLetterHeader) -> str:
    if header.name is not None:
        return header.name
    if header.name_base64 is None:
        raise ValueError("headers: one has no name")
    return _from_base64("headers", header.name_base64).decode(errors="surrogateescape")


def _value(header: DeadLetterHeader) -> bytes | None:
    if header.value is not None:
        return header.value.encode()
    return None if header.value_base64 is None else _from_base64("headers", header.value_base64)


def _from_base64(field: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{field}: not base64 ({error})") from error
