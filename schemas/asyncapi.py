"""The contract as one AsyncAPI 3 document, from the ledger's point of view."""

from collections.abc import Iterable, Iterator
from typing import Any

from schemas.contract import DEFINITIONS, MESSAGES, VERSION, JsonSchema, Message, all_definitions
from schemas.topics import (
    DEFAULT_PREFIX,
    PARTITIONS_PRODUCTION,
    TOPICS,
    Topic,
    TopicSpec,
    topic_config,
)

ASYNCAPI_VERSION = "3.0.0"
KAFKA_BINDING_VERSION = "0.5.0"
_COMPONENTS = "#/components/schemas/"

# What the ledger itself appends to its input: time, and the policy of an empty partition.
_OWN_EVENTS = ("stoploss.clock.tick", "stoploss.policy.set")
_WRITTEN = (
    Topic.TASKS,
    Topic.DECISIONS,
    Topic.HEARTBEATS,
    Topic.LIFECYCLE,
    Topic.BREACHES,
    Topic.EXECUTIONS,
    Topic.DEAD_LETTERS,
)
_DESCRIPTIONS = {
    Topic.EVENTS: "Everything that is decided on, in the order in which it is folded.",
    Topic.TASKS: "The state of each task, of each partition (key `partition/N`), and the policies "
    "that tasks refer to (key `policy/{hash}`). A record without a value: the task has left.",
    Topic.DECISIONS: "What the enforcer obeys: changes of a task's verdict. A record without a "
    "value: the task has left. No decision means continue.",
    Topic.HEARTBEATS: "The ledger lives: at most one record a second and partition.",
    Topic.LIFECYCLE: "Starts, changes and ends of tasks, and daily checkpoints of partitions.",
    Topic.BREACHES: "Each crossing of a level, for alerting and reports.",
    Topic.EXECUTIONS: "The phase ledger: finished runs of phases.",
    Topic.DEAD_LETTERS: "What was refused, whole, and why.",
    Topic.HEALTH: "How enforcers are.",
    Topic.FEEDBACK: "Answers to: was this block a false positive?",
    Topic.ALERTS: "Alerts, once when they fire and once when they are resolved.",
    Topic.BASELINES: "What finished executions used, by phase, complexity and importance.",
    Topic.REPORTS: "Reports of finished tasks.",
    Topic.AUDIT: "Who changed what, when and why.",
}


def asyncapi_document() -> dict[str, Any]:
    """Return the document: every topic is a channel, every type a message."""
    definitions = all_definitions()
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "id": "urn:stoploss:ledger",
        "info": {
            "title": "stoploss",
            "version": VERSION,
            "description": "A budget stop-loss for autonomous coding agents. Every record is a "
            "CloudEvents 1.0 event in JSON, structured mode; `events` may also arrive in binary "
            "mode. Unknown fields are ignored. Operations are those of the ledger.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/cloudevents+json",
        "servers": {"kafka": _server()},
        "channels": {spec.topic.value: _channel(spec) for spec in TOPICS},
        "operations": dict(_operations()),
        "components": {
            "messages": {message.name: _message(message) for message in MESSAGES},
            "parameters": {"prefix": _prefix()},
            "schemas": {name: _moved(schema) for name, schema in definitions.items()},
        },
    }


def _server() -> dict[str, Any]:
    return {
        "host": "{bootstrap_servers}",
        "protocol": "kafka",
        "description": "Apache Kafka 3.5 or later. The key is partitioned by murmur2 as Java "
        "clients do; librdkafka needs partitioner=murmur2_random.",
        "variables": {
            "bootstrap_servers": {
                "default": "127.0.0.1:9092",
                "description": "STOPLOSS_BOOTSTRAP_SERVERS",
            }
        },
    }


def _prefix() -> dict[str, str]:
    return {"default": DEFAULT_PREFIX, "description": "STOPLOSS_TOPIC_PREFIX"}


def _channel(spec: TopicSpec) -> dict[str, Any]:
    partitions = spec.partitions or PARTITIONS_PRODUCTION
    return {
        "address": f"{{prefix}}{spec.topic.value}",
        "description": f"{_DESCRIPTIONS[spec.topic]} Key: {spec.key}. Written by: {spec.writers}.",
        "parameters": {"prefix": {"$ref": "#/components/parameters/prefix"}},
        "messages": {
            message.name: {"$ref": f"#/components/messages/{message.name}"}
            for message in _messages_of(spec.topic)
        },
        "bindings": {
            "kafka": {
                "topic": f"{DEFAULT_PREFIX}{spec.topic.value}",
                "partitions": partitions,
                "topicConfiguration": _configuration(topic_config(spec.topic)),
                "bindingVersion": KAFKA_BINDING_VERSION,
            }
        },
    }


def _configuration(config: dict[str, str]) -> dict[str, object]:
    """Return the settings of a topic in the types that the Kafka binding gives them."""
    return {
        name: value.split(",") if name == "cleanup.policy" else _integer_or_text(value)
        for name, value in config.items()
    }


def _integer_or_text(value: str) -> int | str:
    return int(value) if value.isdecimal() else value


def _message(message: Message) -> dict[str, Any]:
    key = next(spec.key for spec in TOPICS if spec.topic is message.topic)
    return {
        "name": message.type,
        "contentType": "application/cloudevents+json",
        "payload": {"$ref": f"{_COMPONENTS}{message.name}"},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": key},
                "bindingVersion": KAFKA_BINDING_VERSION,
            }
        },
    }


def _messages_of(topic: Topic) -> list[Message]:
    return [message for message in MESSAGES if message.topic is topic]


def _operations() -> Iterator[tuple[str, dict[str, Any]]]:
    own = [message for message in MESSAGES if message.type in _OWN_EVENTS]
    events, tasks = _messages_of(Topic.EVENTS), _messages_of(Topic.TASKS)
    yield "foldEvents", _operation("receive", Topic.EVENTS, events, "Fold each event, in order.")
    yield "restoreTasks", _operation("receive", Topic.TASKS, tasks, "Read the state on assignment.")
    yield "appendOwnEvents", _operation("send", Topic.EVENTS, own, "Append time and first policy.")
    for topic in _WRITTEN:
        name = f"publish{topic.value.title().replace('-', '')}"
        summary = f"Publish what an event caused to {topic.value}."
        yield name, _operation("send", topic, _messages_of(topic), summary)


def _operation(
    action: str, topic: Topic, messages: Iterable[Message], summary: str
) -> dict[str, Any]:
    channel = f"#/channels/{topic.value}"
    return {
        "action": action,
        "summary": summary,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{message.name}"} for message in messages],
    }


def _moved(schema: JsonSchema) -> JsonSchema:
    """Return a definition with its references where AsyncAPI keeps schemas."""

    def moved(node: Any) -> Any:  # noqa: ANN401 - any part of a schema
        match node:
            case dict():
                return {key: moved(value) for key, value in node.items()}
            case list():
                return [moved(value) for value in node]
            case str() if node.startswith(DEFINITIONS):
                return _COMPONENTS + node.removeprefix(DEFINITIONS)
            case _:
                return node

    return {key: moved(value) for key, value in schema.items()}
