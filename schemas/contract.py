"""Every message with its topic, and its JSON Schema as it is on the wire.

msgspec derives the schemas from the Structs; what it cannot know (a decimal travels as a number, what
is inside a field that is read later) is put right here.
"""

import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from schemas.alerts import ALERT_TYPES
from schemas.audit import AUDIT_TYPES
from schemas.baselines import BASELINE_TYPES
from schemas.envelope import Envelope
from schemas.events import EVENT_TYPES, PhaseLimits
from schemas.feedback import FEEDBACK_TYPES
from schemas.health import HEALTH_TYPES
from schemas.outputs import OUTPUT_TYPES
from schemas.reports import REPORT_TYPES
from schemas.state import STATE_TYPES
from schemas.topics import Topic

VERSION = "1.2.0"  # of the contract; its second place grows with each optional field or type
DIALECT = "https://json-schema.org/draft/2020-12/schema"
DEFINITIONS = "#/$defs/"
_INTEGER, _NUMBER = {"type": "integer"}, {"type": "number"}

JsonSchema = dict[str, Any]


class Message(Struct, frozen=True):
    """One type of record: its CloudEvents `type`, its topic, and the name of its schema."""

    type: str
    topic: Topic
    name: str
    shape: Any  # of the whole record, the envelope included


_TOPICS: Mapping[str, Topic] = {
    "stoploss.decision": Topic.DECISIONS,
    "stoploss.breach": Topic.BREACHES,
    "stoploss.execution": Topic.EXECUTIONS,
    "stoploss.lifecycle": Topic.LIFECYCLE,
    "stoploss.heartbeat": Topic.HEARTBEATS,
    "stoploss.dead_letter": Topic.DEAD_LETTERS,
    "stoploss.task.state": Topic.TASKS,
    "stoploss.partition.state": Topic.TASKS,
    "stoploss.policy.state": Topic.TASKS,
    "stoploss.health": Topic.HEALTH,
    "stoploss.feedback": Topic.FEEDBACK,
    "stoploss.alert": Topic.ALERTS,
    "stoploss.baseline": Topic.BASELINES,
    "stoploss.report": Topic.REPORTS,
    "stoploss.audit": Topic.AUDIT,
}
_AGENT_TYPES = ALERT_TYPES | BASELINE_TYPES | REPORT_TYPES | AUDIT_TYPES
_TYPES = OUTPUT_TYPES | STATE_TYPES | HEALTH_TYPES | FEEDBACK_TYPES | _AGENT_TYPES


def _event_name(data: type[Struct]) -> str:
    return f"{data.__name__.removesuffix('Record').removesuffix('Data')}Event"


MESSAGES: tuple[Message, ...] = (
    *(Message(name, Topic.EVENTS, kind.__name__, kind) for name, kind in EVENT_TYPES.items()),
    *(
        Message(name, _TOPICS[name], _event_name(data), Envelope[data])  # type: ignore[valid-type]
        for name, data in _TYPES.items()
    ),
)


def message_schema(message: Message) -> JsonSchema:
    """Return the JSON Schema of one message, with the definitions that it uses."""
    definitions = all_definitions()
    used = sorted(_reachable(message.name, definitions))
    return {
        "$schema": DIALECT,
        "$id": f"urn:stoploss:{VERSION}:{message.type}",
        "title": message.type,
        "$ref": f"{DEFINITIONS}{message.name}",
        "$defs": {name: definitions[name] for name in used},
    }


@functools.cache  # read only: nobody changes what it returned
def all_definitions() -> dict[str, JsonSchema]:
    """Return the schema of every Struct and enum of the contract, by name."""
    shapes = [message.shape for message in MESSAGES]
    (*roots, limits), found = msgspec.json.schema_components([*shapes, PhaseLimits])
    names = {
        root["$ref"].removeprefix(DEFINITIONS): message.name
        for root, message in zip(roots, MESSAGES, strict=True)
    }
    definitions = {
        names.get(name, name): _polished(schema, names) for name, schema in found.items()
    }
    assert len(definitions) == len(found), "an event has the name of what is in it"
    for message in MESSAGES:
        if message.topic is not Topic.EVENTS:
            _close_envelope(definitions[message.name], message)
    _describe_later_read(definitions, limits)
    return definitions


def _close_envelope(record: JsonSchema, message: Message) -> None:
    """Say what is the same in every record of a type: we write all of these, always."""
    record["title"] = message.name
    record["properties"]["type"] = {"const": message.type}
    record["properties"]["specversion"] = {"const": "1.0"}
    record["required"] = ["specversion", *record["required"]]


def _describe_later_read(definitions: dict[str, JsonSchema], limits: JsonSchema) -> None:
    """Describe what the types leave open, because the fold reads it and refuses it in its own way."""
    started = definitions["TaskStartedData"]["properties"]
    started["budget_overrides"] = {
        "description": 'Absolute limits, by phase or by "task". One that is invalid refuses all '
        "overrides of the task, not the task",
        "anyOf": [_polished(limits, {}), {"type": "null"}],
    }
    policy = definitions["PolicySetData"]["properties"]
    policy["policy"] = {
        "type": "object",
        "description": "The whole policy, normalised: the TOML as JSON, every default filled in",
    }
    histogram = definitions["Histogram"]["properties"]
    histogram["buckets"]["propertyNames"] = {"pattern": "^-?[0-9]+$"}


def _polished(schema: JsonSchema, names: Mapping[str, str]) -> JsonSchema:
    """Return a schema as the wire has it, its references renamed by `names`."""
    polished = {key: _polished_keyword(key, value, names) for key, value in schema.items()}
    if polished.get("format") == "decimal":
        del polished["format"]
        polished["type"] = "number"
    if polished.get("default", ...) is None:
        del polished["default"]  # null is the same as absent everywhere
    if "anyOf" in polished:
        parts = polished["anyOf"]
        if _NUMBER in parts:
            parts = [part for part in parts if part != _INTEGER]  # an integer is a number
        polished["anyOf"] = parts
        if len(parts) == 1:
            del polished["anyOf"]
            polished |= parts[0]
    return polished


def _polished_keyword(key: str, value: Any, names: Mapping[str, str]) -> Any:  # noqa: ANN401 - any JSON
    match key, value:
        case "$ref", str(reference):
            name = reference.removeprefix(DEFINITIONS)
            return f"{DEFINITIONS}{names.get(name, name)}"
        case "description", str(text):
            return inspect.cleandoc(text)
        case "default", dict(fields):
            return {name: field for name, field in fields.items() if field is not None}
        case "properties", dict(fields):
            return {name: _polished(field, names) for name, field in fields.items()}
        case (("anyOf" | "prefixItems"), list(parts)):
            return [_polished(part, names) for part in parts]
        case (("items" | "additionalProperties" | "propertyNames"), dict(inner)):
            return _polished(inner, names)
        case _:
            return value


def _reachable(name: str, definitions: Mapping[str, JsonSchema]) -> set[str]:
    """Return the names of the definitions that a message is made of, its own among them."""
    found: set[str] = set()
    ahead = {name}
    while ahead:
        found |= ahead
        ahead = {to for one in ahead for to in _references(definitions[one])} - found
    return found


def _references(node: Any) -> Iterator[str]:  # noqa: ANN401 - any part of a schema
    match node:
        case {"$ref": str(reference)}:
            yield reference.removeprefix(DEFINITIONS)
        case dict():
            for value in node.values():
                yield from _references(value)
        case list():
            for value in node:
                yield from _references(value)
        case _:
            pass
