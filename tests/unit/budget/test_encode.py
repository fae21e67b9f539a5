"""The bytes of what is published: the envelope, and dead letters of every size."""

import base64

import msgspec
import pytest

from schemas.envelope import Envelope
from schemas.letters import original_headers
from schemas.outputs import DeadLetter, DeadLetterDetail
from schemas.topics import Topic
from streams.budget.effects import Effect, Refused
from streams.budget.encode import (
    ENCODER,
    HEADERS_BYTES_MAX,
    KEPT_BYTES,
    WHOLE_BYTES_MAX,
    EffectEncoder,
)
from tests.unit.budget.story import story
from tests.unit.budget.world import START_MS, Cause, World

REFUSED = Effect(
    topic=Topic.DEAD_LETTERS,
    type="stoploss.dead_letter",
    key="",
    data=Refused("not_json", DeadLetterDetail("value", "}", "JSON")),
    offset=7,
    index=2,
)


def encoder(size_max: int) -> EffectEncoder:
    return EffectEncoder(3, "stoploss.events", lambda value: len(value) <= size_max)


def test_what_is_published_is_a_cloud_event_whose_id_follows_from_its_input() -> None:
    world = story("start TASK-1 +5s")
    topic, record = world.output[1]
    envelope = msgspec.json.decode(record.value or b"")
    data = envelope.pop("data")
    assert (topic, record.key) == (Topic.LIFECYCLE, b"TASK-1")
    assert envelope == {
        "specversion": "1.0",
        "id": "3-0-2",
        "source": "stoploss/ledger",
        "type": "stoploss.lifecycle",
        "subject": "TASK-1",
        "time": "2026-01-01T00:00:05.000Z",
    }
    assert data["change"] == "started"


def test_a_traceparent_is_carried_on() -> None:
    world = World()
    effect = story("start TASK-1").effects[1]
    record = encoder(10**6).encode(effect, START_MS, None, "00-abc-01")
    assert msgspec.json.decode(record.value or b"")["traceparent"] == "00-abc-01"
    assert world.offset == 0


def test_a_dead_letter_has_the_key_and_the_bytes_of_its_input() -> None:
    one = encoder(10**6)
    one.encode(REFUSED, START_MS, Cause(6, b"{"))  # the clock as text is made once
    record = one.encode(REFUSED, START_MS, Cause(7, b"}", b"K\xff"))
    data = msgspec.json.decode(record.value or b"")["data"]
    assert record.key == b"K\xff"
    assert base64.b64decode(data["original"]) == b"}"
    assert data["input"] == {
        "topic": "stoploss.events",
        "partition": 3,
        "offset": 7,
        "key": "K\N{REPLACEMENT CHARACTER}",
    }
    assert data["detail"] == {"field": "value", "value": "}", "allowed": "JSON"}


def test_of_what_does_not_pass_the_broker_the_first_part_is_kept() -> None:
    original = b"x" * (KEPT_BYTES + 1)
    record = encoder(KEPT_BYTES).encode(REFUSED, START_MS, Cause(7, original))
    data = msgspec.json.decode(record.value or b"")["data"]
    assert len(base64.b64decode(data["original"])) == KEPT_BYTES
    assert data["detail"]["allowed"] == (
        f"JSON (only the first {KEPT_BYTES} of {KEPT_BYTES + 1} bytes are kept here)"
    )
    assert WHOLE_BYTES_MAX > KEPT_BYTES


def test_what_nobody_wants_in_memory_three_times_is_not_even_tried_whole() -> None:
    tried: list[int] = []

    def fits(value: bytes) -> bool:
        tried.append(len(value))
        return True

    original = bytes(WHOLE_BYTES_MAX + 1)
    EffectEncoder(3, "stoploss.events", fits).encode(REFUSED, START_MS, Cause(7, original))
    assert tried == []


def letter_of(size_max: int, cause: Cause) -> DeadLetter:
    value = encoder(size_max).encode(REFUSED, START_MS, cause).value
    assert value is not None
    assert len(value) <= size_max, "the broker would refuse it"
    return msgspec.json.decode(value, type=Envelope[DeadLetter]).data


def test_a_dead_letter_has_the_headers_of_its_input() -> None:
    headers = [("ce_id", b"e-1"), ("ce_id", b"\xff"), ("other", None)]
    letter = letter_of(10**6, Cause(7, b"}", headers=headers))
    assert original_headers(letter.headers) == headers
    assert (letter.headers_count, letter.original_bytes) == (None, None)


@pytest.mark.parametrize("value", [b"v" * 10_000, b"\xff" * 10_000, b"\n" * 10_000], ids=repr)
def test_of_headers_that_do_not_pass_the_broker_the_first_are_kept(value: bytes) -> None:
    headers = [(f"h-{number}", value) for number in range(1_000)]
    letter = letter_of(HEADERS_BYTES_MAX + 10_000, Cause(7, b"}", headers=headers))
    count = len(letter.headers)
    assert original_headers(letter.headers) == headers[:count]
    assert HEADERS_BYTES_MAX - 22_000 < len(ENCODER.encode(letter.headers)) <= HEADERS_BYTES_MAX + 2
    assert letter.headers_count == 1_000
    assert letter.detail.allowed == f"JSON (only the first {count} of 1000 headers are kept here)"
    assert base64.b64decode(letter.original) == b"}"
    assert letter.original_bytes is None


def test_of_a_record_that_is_too_large_in_both_the_first_of_both_is_kept() -> None:
    original = b"x" * (KEPT_BYTES + 20_000)
    headers = [("h", b"v" * HEADERS_BYTES_MAX), ("g", b"")]
    letter = letter_of(KEPT_BYTES * 4 // 3 + 10_000, Cause(7, original, headers=headers))
    assert (letter.headers, letter.headers_count) == ([], 2)
    assert letter.original_bytes == len(original)
    assert letter.detail.allowed == (
        "JSON (only the first 0 of 2 headers are kept here; "
        f"only the first {KEPT_BYTES} of {KEPT_BYTES + 20_000} bytes are kept here)"
    )


def test_the_original_is_cut_by_what_its_headers_take() -> None:
    original = b"x" * KEPT_BYTES
    headers = [("h", b"v" * 50_000)] * 5
    letter = letter_of(KEPT_BYTES * 4 // 3 + 10_000, Cause(7, original, headers=headers))
    assert len(letter.headers) == 5
    assert len(base64.b64decode(letter.original)) < KEPT_BYTES - 250_000
    assert letter.original_bytes == KEPT_BYTES
