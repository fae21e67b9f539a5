"""A batch is folded as if its bad records were not there, and each of them becomes a dead letter."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from schemas.envelope import Envelope
from schemas.errors import InvalidFieldError
from schemas.letters import AGENTS_SOURCE
from schemas.outputs import DeadLetter
from schemas.topics import MESSAGE_BYTES_MAX
from streams.agents.folding import Change, Folded, fold_batch
from streams.agents.stages import Entries, Everywhere, Inbound, Outbound, Source, Stage, nothing
from streams.kafka.producers import RECORD_BYTES_MAX

PREFIX = "x."


class Amount(msgspec.Struct):
    amount: int


@dataclass
class Record:
    """A record as it is read."""

    value: bytes | None
    offset: int = 0
    partition: int = 0
    key: bytes | None = b"k"
    topic: str = "x.in"
    timestamp: float = 1.5
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)


def of(amount: int, offset: int = 0, partition: int = 0, key: bytes = b"k") -> Record:
    envelope = Envelope(id="i", source="s", type="t", subject="s", time="…", data=Amount(amount))
    return Record(msgspec.json.encode(envelope), offset, partition, key)


def add(entries: Entries[int], record: Inbound) -> list[Outbound]:
    amount = record.data.data.amount
    entries[record.key] = entries.get(record.key, 0) + amount
    if amount == 0:
        raise InvalidFieldError("data.amount", amount, "a number that is not 0")
    if amount < 0:
        raise ValueError("less than nothing")
    return [Outbound("out", record.key.encode(), str(amount).encode())]


def totals(entries: Entries[int]) -> Iterable[Outbound]:
    return [Outbound("totals", key.encode(), str(n).encode()) for key, n in entries.changed.items()]


STAGE = Stage(
    name="sums",
    sources=(Source("in", msgspec.json.Decoder(Envelope[Amount]), "t"),),
    fold=add,
    finish=totals,
    entry=int,
)


def fold(records: list[Record], stored: dict[int, dict[bytes, bytes]] | None = None) -> Folded:
    return fold_batch(STAGE, PREFIX, records, lambda partition: (stored or {}).get(partition, {}))


def letters(folded: Folded) -> list[Envelope[DeadLetter]]:
    return [
        msgspec.json.decode(output.value or b"", type=Envelope[DeadLetter])
        for output in folded.outputs
        if output.topic == "dead-letters"
    ]


class Full(msgspec.Struct):
    """A table with room for one: what comes for another one is counted."""

    kept: str
    dropped: int = 0


def keep_one(entries: Entries[Full], record: Inbound) -> list[Outbound]:
    full = entries.get("table") or Full(record.key)
    full.dropped += full.kept != record.key
    entries["table"] = full
    return []


def test_what_finds_no_room_is_counted_by_how_much_more_of_it_the_entries_say() -> None:
    stage = replace(
        STAGE, fold=keep_one, finish=nothing, entry=Full, dropped=lambda _key, full: full.dropped
    )
    records = [of(1, offset, key=key) for offset, key in enumerate((b"a", b"b", b"c", b"a"))]
    first = fold_batch(stage, PREFIX, records, lambda _: {})
    assert first.dropped == 2
    (change,) = first.changes
    stored = {change.key: change.value or b""}
    again = fold_batch(stage, PREFIX, [of(1, 9, key=b"d")], lambda _: stored)
    assert again.dropped == 1
    assert fold_batch(stage, PREFIX, [of(1, 9, key=b"a")], lambda _: stored).dropped == 0


def test_each_partition_has_entries_of_its_own_whatever_the_key() -> None:
    folded = fold([of(1), of(2, 1, partition=1), of(4, 2)], {1: {b"k": b"100"}})
    assert folded.changes == [Change(0, b"k", b"5"), Change(1, b"k", b"102")]
    assert [(one.topic, one.value) for one in folded.outputs] == [
        ("out", b"1"),
        ("out", b"2"),
        ("out", b"4"),
        ("totals", b"5"),
        ("totals", b"102"),
    ]


def test_changes_come_in_the_order_of_their_keys() -> None:
    folded = fold([of(1, 0, key=b"z"), of(1, 1, key=b"a"), of(1, 2, key=b"m")])
    assert [change.key for change in folded.changes] == [b"a", b"m", b"z"]


@pytest.mark.parametrize(
    ("value", "reason", "where"),
    [
        pytest.param(None, "not_an_event", "value", id="a deletion"),
        pytest.param(b"\xff", "not_json", "value", id="no json"),
        pytest.param(b'{"x":' + b"[" * 100_000, "not_json", "value", id="nested too deep"),
        pytest.param(b"{}", "invalid_field", "value", id="no envelope"),
        pytest.param((of(1).value or b"").replace(b"1}", b'"1"}'), "invalid_field", "data.amount"),
        pytest.param((of(1).value or b"").replace(b'"t"', b'"u"'), "unknown_type", "type"),
        pytest.param(b" " * (MESSAGE_BYTES_MAX + 1), "too_large", "value", id="too large"),
        pytest.param(of(0).value, "invalid_field", "data.amount", id="the fold refuses it"),
        pytest.param(of(-1).value, "agent_failed", "value", id="the fold fails at it"),
    ],
)
def test_a_bad_record_becomes_a_letter_and_changes_nothing(
    value: bytes | None, reason: str, where: str
) -> None:
    bad = Record(value, offset=1, partition=1, headers=[("h", b"\xff"), ("g", None)])
    folded = fold([of(1), bad, of(2, 2, partition=1)])
    (letter,) = letters(folded)
    assert (letter.source, letter.data.reason, letter.data.detail.field) == (
        AGENTS_SOURCE,
        reason,
        where,
    )
    where_it_is = letter.data.input
    assert (where_it_is.topic, where_it_is.partition, where_it_is.offset) == ("x.in", 1, 1)
    assert [one.name for one in letter.data.headers] == ["h", "g"]
    kept = base64.b64decode(letter.data.original)
    assert (value or b"").startswith(kept)
    assert len(kept) == len(value or b"") or letter.data.original_bytes == len(value or b"")
    assert folded.outputs[0].partition == 1
    assert folded.refused == 1
    assert folded.changes == [Change(0, b"k", b"1"), Change(1, b"k", b"2")]


def test_the_same_record_makes_the_same_letter() -> None:
    bad = Record(b"\xff", offset=7, key=None)
    first, again = fold([bad]), fold([of(1), bad])
    assert first.outputs[0] == again.outputs[0]
    assert first.outputs[0].key is None


def test_the_letter_of_what_is_too_large_passes_the_broker() -> None:
    headers: list[tuple[str, bytes | None]] = [(f"h{n}", b"\xff" * 1_000) for n in range(1_000)]
    folded = fold([Record(b"\xff" * (MESSAGE_BYTES_MAX * 2), headers=headers)])
    (letter,) = letters(folded)
    assert len(folded.outputs[0].value or b"") < RECORD_BYTES_MAX
    assert letter.data.original_bytes == MESSAGE_BYTES_MAX * 2
    assert letter.data.headers_count == 1_000
    assert "bytes are kept here" in letter.data.detail.allowed


def test_a_stage_without_entries_is_given_none() -> None:
    given: list[Any] = []

    def note(entries: object, _record: Inbound) -> list[Outbound]:
        given.append(entries)
        return []

    stage = Stage(name="bare", sources=STAGE.sources, fold=note)
    folded = fold_batch(stage, PREFIX, [of(1)], lambda _: {})
    assert (given, folded.outputs, folded.changes) == ([None], [], [])


def test_a_deletion_is_told_where_the_source_has_some() -> None:
    given: list[Any] = []

    def note(_entries: object, record: Inbound) -> list[Outbound]:
        given.append((record.key, record.data, record.timestamp_ms))
        return []

    source = Source("in", msgspec.json.Decoder(Envelope[Amount]), "t", has_deletions=True)
    folded = fold_batch(
        Stage(name="bare", sources=(source,), fold=note), PREFIX, [Record(None)], lambda _: {}
    )
    assert (given, folded.outputs, folded.refused) == ([("k", None, 1_500)], [], 0)


def test_what_is_for_every_partition_is_told_apart() -> None:
    everywhere = Everywhere("out", lambda number: Outbound("out", None, b"%d" % number, number))

    def tell(_entries: object, _record: Inbound) -> list[Outbound | Everywhere]:
        return [everywhere, Outbound("out", None, b"x")]

    stage = Stage(name="bare", sources=STAGE.sources, fold=tell)
    folded = fold_batch(stage, PREFIX, [of(1)], lambda _: {})
    assert folded.outputs == [Outbound("out", None, b"x")]
    assert folded.everywhere == [everywhere]
