"""A batch of records becomes what is to be sent and what is to be remembered. Pure."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec

from schemas.errors import InvalidFieldError
from schemas.outputs import DeadLetterDetail
from schemas.refusal import UNREADABLE, Refusal, refusal, start_of
from schemas.topics import MESSAGE_BYTES_MAX
from streams.agents.letters import Refused, letter
from streams.agents.stages import (
    Entries,
    Everywhere,
    Inbound,
    Outbound,
    Read,
    Source,
    Stage,
    encode,
)

log = logging.getLogger("stoploss.agents")

Stored = Callable[[int], Mapping[bytes, bytes]]


@dataclass
class Change:
    """What becomes of an entry; None deletes it."""

    partition: int
    key: bytes
    value: bytes | None


@dataclass
class Folded:
    """What a batch causes, in the order in which it is to be sent."""

    outputs: list[Outbound] = field(default_factory=list)
    everywhere: list[Everywhere] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    refused: int = 0
    dropped: int = 0


def fold_batch(stage: Stage, prefix: str, records: Sequence[Read], stored: Stored) -> Folded:
    """Fold records, in the order in which they were read.

    A record that cannot be decoded, or that the fold fails at, becomes a dead letter and changes
    nothing: then the batch is folded again without it, from what is stored.
    """
    sources = {source.topic: source for source in stage.sources}
    refused: dict[int, Refusal] = {}
    decoded: dict[int, Inbound] = {}
    for index, record in enumerate(records):
        topic = record.topic.removeprefix(prefix)
        found = _decode(sources[topic], topic, record)
        if isinstance(found, Refusal):
            refused[index] = found
        else:
            decoded[index] = found
    while True:
        folded = _fold(stage, decoded, stored, refused)
        if folded is not None:
            break
    folded.refused = len(refused)
    folded.outputs[:0] = [
        letter(Refused(records[index], prefix, why)) for index, why in sorted(refused.items())
    ]
    return folded


def _decode(source: Source, topic: str, record: Read) -> Inbound | Refusal:
    value = record.value
    if value is None and source.has_deletions:
        return _inbound(topic, record, None)
    if value is None:
        return refusal("not_an_event", "value", "null", "a record that says something")
    if len(value) > MESSAGE_BYTES_MAX:
        return refusal("too_large", "value", f"{len(value)} bytes", f"at most {MESSAGE_BYTES_MAX}")
    try:
        data = source.decoder.decode(value)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        return refusal("invalid_field", where.rstrip("`").lstrip(".") or "value", "", what)
    except UNREADABLE as error:
        return refusal("not_json", "value", start_of(value), f"JSON ({error})")
    if source.type is not None and data.type != source.type:
        return refusal("unknown_type", "type", data.type, source.type)
    return _inbound(topic, record, data)


def _inbound(topic: str, record: Read, data: Any) -> Inbound:  # noqa: ANN401 - as its source decodes it
    return Inbound(
        topic,
        record.partition,
        record.offset,
        round(record.timestamp * 1000),
        (record.key or b"").decode(errors="replace"),
        data,
    )


def _fold(
    stage: Stage, decoded: dict[int, Inbound], stored: Stored, refused: dict[int, Refusal]
) -> Folded | None:
    """Fold what was decoded; where the fold fails at one, refuse that one and return None."""
    decoder = None if stage.entry is None else _decoder(stage.entry)
    entries: dict[int, Any] = {}
    folded = Folded()
    for index, record in decoded.items():
        partition = record.partition
        if partition not in entries:
            entries[partition] = None if decoder is None else Entries(stored(partition), decoder)
        try:
            for caused in stage.fold(entries[partition], record):
                if isinstance(caused, Everywhere):
                    folded.everywhere.append(caused)
                else:
                    folded.outputs.append(caused)
        except InvalidFieldError as error:
            refused[index] = refusal("invalid_field", error.field, f"{error.value}", error.allowed)
            del decoded[index]
            return None
        except Exception as error:  # here the room ends: a defect of ours stops nobody
            at = f"{record.topic} partition {partition} offset {record.offset}"
            log.exception("agents: %s: fails at %s", stage.name, at)
            why = f"{type(error).__name__}: {error}"[:80]
            refused[index] = Refusal(
                "agent_failed", DeadLetterDetail("value", why, "a record that the agent can fold")
            )
            del decoded[index]
            return None
    for partition, of_partition in entries.items():
        folded.outputs += stage.finish(of_partition)
        if of_partition is not None and decoder is not None:
            folded.changes += _changes(partition, of_partition)
            folded.dropped += _dropped(stage, decoder, stored(partition), of_partition)
    return folded


def _dropped(
    stage: Stage,
    decoder: msgspec.json.Decoder[Any],
    stored: Mapping[bytes, bytes],
    entries: Entries[Any],
) -> int:
    """Return how much more the entries say now that there was no room for."""
    more = 0
    for key, entry in entries.changed.items():
        now = 0 if entry is None else stage.dropped(key, entry)
        if now and (raw := stored.get(key.encode())) is not None:
            # Decoded anew: the entry that was folded may be the same object, changed.
            now = max(now - stage.dropped(key, decoder.decode(raw)), 0)
        more += now
    return more


@cache
def _decoder(entry: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401 - a type
    """Made once: it takes longer than many a batch."""
    return msgspec.json.Decoder(entry)


def _changes(partition: int, entries: Entries[Any]) -> list[Change]:
    """Return what was changed, in the order of the keys: the broker has a prefix after a crash."""
    return [
        Change(partition, key.encode(), None if entry is None else encode(entry))
        for key, entry in sorted(entries.changed.items(), key=lambda item: item[0])
    ]
