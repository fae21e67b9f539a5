"""How deeply JSON may be nested: the same bytes are the same answer, whoever decodes them."""

import msgspec
import pytest

from schemas.decode import Headers, Refusal, decode_event
from schemas.events import PhaseUsage
from schemas.outputs import DeadLetterDetail
from schemas.topics import EVENT_BYTES_MAX

USAGE: dict[str, object] = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "enforcer-1/7f3a",
    "type": "stoploss.phase.usage",
    "subject": "TASK-17",
    "time": "2026-11-22T21:00:00.123Z",
}


def event(extension: object) -> bytes:
    """A usage that says more than we know."""
    return msgspec.json.encode(USAGE | {"data": {"phase": "THINK", "extension": extension}})


def at_depth(frames: int, value: bytes, given_headers: Headers) -> object:
    """Decode it with so many frames on the stack more than the test has."""
    return (
        at_depth(frames - 1, value, given_headers) if frames else decode_event(value, given_headers)
    )


BINARY_USAGE: Headers = [(f"ce_{name}", str(value).encode()) for name, value in USAGE.items()]


@pytest.mark.parametrize("frames", [0, 200, 500])
@pytest.mark.parametrize("levels", [1, 250, 251, 254, 255, 256, 300, 500, 900, 2_000])
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"a":"[[\\"[[","b":'])
@pytest.mark.parametrize("closed", [True, False])
def test_what_is_nested_too_deeply_does_not_depend_on_the_stack(
    frames: int, levels: int, opening: bytes, *, closed: bool
) -> None:
    closing = b"]" if opening == b"[" else b"}"
    nested = opening * levels + b"1" + closing * levels * closed
    in_an_event = event("HERE").replace(b'"HERE"', nested)
    in_data = b'{"phase":"THINK","extension":' + nested + b"}"
    headers: Headers = ()
    for value, given_headers, around in [
        (nested, headers, 0),
        (in_an_event, headers, 2),
        (in_data, BINARY_USAGE, 2 if closed else 1),  # it is put into an event where it is JSON
    ]:
        found = at_depth(frames, value, given_headers)
        assert found == decode_event(value, given_headers)
        too_deep = isinstance(found, Refusal) and "nested" in found.detail.allowed
        assert too_deep == (levels + around > 256)
        assert isinstance(found, PhaseUsage) == (around > 0 and closed and not too_deep)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 100_000, id="a text of brackets"),
        pytest.param('"{' * 100_000, id="each behind a quotation mark"),
        pytest.param("\\" * 100_001 + "[" * 1_000, id="behind backslashes"),
        pytest.param('\\"[' * 50_000, id="behind both"),
    ],
)
def test_brackets_in_a_text_are_no_nesting(text: str) -> None:
    assert isinstance(decode_event(event(text)), PhaseUsage)
    assert isinstance(decode_event(event({text: [text]})), PhaseUsage)


def test_many_brackets_beside_each_other_are_no_nesting() -> None:
    assert isinstance(decode_event(event([[{}]] * 100_000)), PhaseUsage)


@pytest.mark.parametrize("given_headers", [(), BINARY_USAGE])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_the_largest_record_of_nothing_but_brackets_is_refused(
    opening: bytes, given_headers: Headers
) -> None:
    value = (opening * EVENT_BYTES_MAX)[:EVENT_BYTES_MAX]
    assert decode_event(value, given_headers) == Refusal(
        "not_json",
        DeadLetterDetail("value", value[:80].decode(), "JSON nested at most 256 levels deep"),
    )


@pytest.mark.parametrize(
    "value", [b'"' + b'\\"[' * 300_000, b'{"a":"' + b"\\" * 400_001, b'"[' * 400_000]
)
def test_a_text_without_end_is_looked_at_once(value: bytes) -> None:
    assert isinstance(
        decode_event(value), Refusal
    )  # the rest of it once for each quotation mark would take hours
