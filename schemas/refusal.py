"""Why a record of `events` is no event: which field, what stood there, and what is allowed.

msgspec says where it stopped; what stood there is read a second time, layer by layer and without
interpreting it, and what is allowed is told from the field's type. Only refused records come here.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
from msgspec import Raw, inspect

from schemas.events import EVENT_TYPES, Event
from schemas.outputs import DeadLetterDetail

# What msgspec raises for bytes that it cannot read: some of it is no MsgspecError.
UNREADABLE = (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError)
EVENT_WORDS = "a CloudEvents 1.0 event in JSON"
VALUE_LENGTH_MAX = 80

_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_MISSING = re.compile(r"missing required field `(.+)`$")
_UNKNOWN = re.compile(r"unknown field `(.+)`$", re.DOTALL)
_PATH = re.compile(r" - at (?:`(key)` in )?`\$(.*)`$", re.DOTALL)
_ANY_ENTRY = "..."  # msgspec's word for the values of a mapping

_RAW = msgspec.json.Decoder(Raw)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_LIST = msgspec.json.Decoder(list[Raw])


class Refusal(msgspec.Struct, frozen=True):
    """Why a record is no event; the ledger keeps its bytes in `dead-letters`."""

    reason: str
    detail: DeadLetterDetail


def refusal(reason: str, field: str, value: str, allowed: str) -> Refusal:
    """Return a refusal with as much of `value` as a person needs to see."""
    return Refusal(reason, DeadLetterDetail(field, value[:VALUE_LENGTH_MAX], allowed))


def start_of(value: bytes) -> str:
    """Return as much of unread bytes as a person needs to see."""
    return value[:VALUE_LENGTH_MAX].decode(errors="replace")


def explain(value: bytes, error: Exception) -> Refusal:
    """Return why `value` is no event; never raises.

    Args:
        error: what decoding it as an event raised.
    """
    members = members_of(value)
    if members is None or not isinstance(error, msgspec.ValidationError):
        return _explain_foreign(value, error)
    tag = members.get("type")
    if tag is None or not bytes(tag).startswith(b'"'):
        types = ", ".join(EVENT_TYPES)
        return refusal(
            "not_an_event", "type", _shown(tag), f"{EVENT_WORDS}, its type one of {types}"
        )
    kind = EVENT_TYPES.get(_shown(tag))
    if kind is None:
        return refusal("unknown_type", "type", _shown(tag), f"one of {', '.join(EVENT_TYPES)}")
    try:
        return _explain_field(value, kind, str(error))
    except LookupError:
        # msgspec read another of two members with the same name than the second reading did.
        return refusal("not_an_event", "value", start_of(value), "an object without repeated names")


def members_of(value: bytes) -> dict[str, Raw] | None:
    """Return the members of the JSON object in `value`, unread; None where it is none."""
    try:
        return _OBJECT.decode(value)
    except UNREADABLE:
        return None


def _explain_foreign(value: bytes, error: Exception) -> Refusal:
    shown = start_of(value)
    try:
        _RAW.decode(value)
    except UNREADABLE as unreadable:
        return refusal("not_json", "value", shown, f"JSON in UTF-8 ({unreadable})")
    if isinstance(error, msgspec.ValidationError):
        return refusal("not_an_event", "value", shown, EVENT_WORDS)
    return refusal("not_json", "value", shown, f"JSON in UTF-8 ({error})")


def _explain_field(value: bytes, kind: type[Event], said: str) -> Refusal:
    found = _PATH.search(said)
    is_key, path = (bool(found[1]), found[2]) if found else (False, "")
    steps = [name or index for name, index in _STEP.findall(path)]
    if is_key:
        steps.append(_ANY_ENTRY)
    if _ANY_ENTRY in steps:
        index = steps.index(_ANY_ENTRY)
        steps[index] = _refused_key(value, kind, steps[:index])
    what = said[: found.start()] if found else said
    missing, unknown = _MISSING.search(what), _UNKNOWN.search(what)
    if unknown:
        allowed = f"one of {', '.join(_names(_type_at(kind, steps)))}"
        steps.append(unknown[1])
    elif missing:
        steps.append(missing[1])
        allowed = f"{_describe(_type_at(kind, steps))}; it is required"
    else:
        allowed = _describe(_type_at(kind, steps, is_key=is_key))
    shown = steps[-1] if is_key else _shown(_value_at(value, steps))
    if is_key:
        steps[-1:] = ["a key"]
    return refusal("invalid_field", _field(steps), shown, allowed)


def _field(steps: list[str]) -> str:
    return "".join(f"[{step}]" if step.isdecimal() else f".{step}" for step in steps)[1:]


def _value_at(value: bytes, steps: list[str]) -> Raw | None:
    found = _RAW.decode(value)
    for step in steps:
        try:
            is_list = bytes(found).startswith(b"[")
            found = _LIST.decode(found)[int(step)] if is_list else _OBJECT.decode(found)[step]
        except (*UNREADABLE, LookupError):
            return None
    return found


def _shown(raw: Raw | None) -> str:
    """Return what stood there: text as it is meant, anything else as it was written."""
    if raw is None:
        return "absent"
    try:
        return msgspec.json.decode(raw, type=str)
    except UNREADABLE:
        return start_of(bytes(raw))


def _refused_key(value: bytes, kind: type[Event], steps: list[str]) -> str:
    """Return the key of the entry that is refused: msgspec does not say which."""
    mapping: Any = kind
    for step in steps:
        mapping = _field_type(mapping, step)
    entries = members_of(bytes(_value_at(value, steps) or b"{}"))
    for key, entry in (entries or {}).items():
        try:
            msgspec.json.decode(msgspec.json.encode({key: entry}), type=mapping)
        except UNREADABLE:
            return key
    raise LookupError(steps)


def _field_type(struct: type[msgspec.Struct], name: str) -> Any:  # noqa: ANN401 - a type expression
    return {field.encode_name: field.type for field in msgspec.structs.fields(struct)}[name]


@cache
def _info(kind: type[Event]) -> inspect.Type:
    """Return the fields of an event, and theirs; to find them out takes longer than all else here."""
    return inspect.type_info(kind)


def _type_at(kind: type[Event], steps: list[str], *, is_key: bool = False) -> inspect.Type:
    found = _info(kind)
    for index, step in enumerate(steps):
        match _present(found):
            case inspect.StructType(fields=fields):
                found = {field.encode_name: field.type for field in fields}[step]
            case inspect.DictType(key_type=key_type, value_type=value_type):
                found = key_type if is_key and index == len(steps) - 1 else value_type
            case other:
                found = other.item_type if isinstance(other, inspect.ListType) else other
    return _present(found)


def _present(found: inspect.Type) -> inspect.Type:
    """Return the type of what is not null, without what only the JSON Schema needs."""
    match found:
        case inspect.UnionType(types=types):
            (only,) = (one for one in types if not isinstance(one, inspect.NoneType))
            return _present(only)
        case inspect.Metadata(type=inner):
            return _present(inner)
        case _:
            return found


def _names(found: inspect.Type) -> list[str]:
    fields = found.fields if isinstance(found, inspect.StructType) else ()
    return [field.encode_name for field in fields]


_WORDS: Mapping[type[inspect.Type], str] = {
    inspect.BoolType: "true or false",
    inspect.DateTimeType: "a time with its zone as in RFC 3339, such as 2026-11-22T21:00:00Z",
    inspect.DecimalType: "a number",
    inspect.RawType: "an object",
    inspect.StructType: "an object",
}


def _describe(allowed: inspect.Type) -> str:
    """Return what a field takes, in words that follow "use"."""
    match allowed:
        case inspect.EnumType(cls=members):
            return f"one of {', '.join(str(member.value) for member in members)}"
        case inspect.LiteralType(values=values):
            return " or ".join(map(str, values))
        case inspect.StrType(min_length=low, max_length=high):
            return f"text of {_range(low, high)} characters"
        case inspect.ListType(min_length=low, max_length=high):
            return f"a list of {_range(low, high)} entries"
        case inspect.DictType(min_length=low, max_length=high):
            return f"an object of {_range(low, high)} entries"
        case inspect.IntType(ge=low, le=high):
            return f"an integer from {low} to {high}"
        case _:
            return _WORDS[type(allowed)]


def _range(low: int | None, high: int | None) -> str:
    assert high is not None, "whatever comes from outside has an upper bound"
    return f"{low} to {high}" if low else f"at most {high}"
