"""What a letter keeps is shown as it was, and named where it is not what a ledger writes."""

import base64

import msgspec
import pytest

from schemas.envelope import Envelope
from schemas.errors import InvalidFieldError
from schemas.outputs import DeadLetter, DeadLetterDetail, DeadLetterHeader, DeadLetterInput
from streams.cli.letters import (
    Letter,
    LetterNumber,
    UnreadableLetterError,
    editable,
    headers_of,
    letter_answer,
    letter_number,
    value_of,
)

NUMBER = LetterNumber(0, 42)


def letter(raw: bytes, *headers: DeadLetterHeader, **more: object) -> Letter:
    data = DeadLetter(
        reason="not_json",
        detail=DeadLetterDetail("value"),
        input=DeadLetterInput(topic="events", partition=0, offset=42),
        headers=list(headers),
        original=base64.b64encode(raw).decode(),
    )
    envelope = Envelope(
        id="0-42-0",
        source="stoploss/ledger",
        type="stoploss.dead_letter",
        subject="T",
        time="2026-01-01T00:00:00.000Z",
        data=msgspec.structs.replace(data, **more),
    )
    return Letter(NUMBER, b"T", envelope)


@pytest.mark.parametrize(
    "text",
    ["0:42", "executions/11:0", "agents-baselines-measures/0:7"],
)
def test_a_number_is_read_as_it_is_shown(text: str) -> None:
    assert str(letter_number(text)) == text


@pytest.mark.parametrize(
    "text", ["", "0", "0:", ":1", "/0:1", "a:1", "0:1/", "executions/0", "-1:2"]
)
def test_what_names_no_record_is_no_number(text: str) -> None:
    with pytest.raises(InvalidFieldError, match="use PARTITION:OFFSET of the refused record"):
        letter_number(text)


@pytest.mark.parametrize(
    ("original", "text", "digits"),
    [
        pytest.param("größe".encode(), "größe", None, id="text"),
        pytest.param(b"\xff\x00", None, "ff00", id="bytes"),
        pytest.param(b"", "", None, id="nothing"),
    ],
)
def test_an_original_is_text_or_hexadecimal_digits(
    original: bytes, text: str | None, digits: str | None
) -> None:
    answer = letter_answer(letter(original))
    assert (answer.original, answer.original_hex) == (text, digits)
    assert (answer.kept_bytes, answer.original_bytes) == (len(original), len(original))


def test_what_was_cut_is_counted() -> None:
    cut = letter(b"x", DeadLetterHeader(name="h"), original_bytes=9, headers_count=7)
    answer = letter_answer(cut)
    assert (answer.kept_bytes, answer.original_bytes) == (1, 9)
    assert (len(answer.headers), answer.headers_count) == (1, 7)


def test_an_event_in_binary_mode_is_edited_in_one_piece_where_it_can_be() -> None:
    kind = DeadLetterHeader(name="ce_type", value="stoploss.task.ended")
    assert editable(letter(b"{}", kind)) == b'{"type":"stoploss.task.ended","data":{}}'
    assert editable(letter(b"{", kind)) == b"{"
    assert editable(letter(b"{}", DeadLetterHeader(name="other", value="1"))) == b"{}"


def test_a_letter_that_no_ledger_wrote_is_named() -> None:
    for read in (value_of, letter_answer, editable):
        with pytest.raises(UnreadableLetterError, match=r"^0:42: .* original: not base64"):
            read(letter(b"", original="%"))
    with pytest.raises(UnreadableLetterError, match=r"^0:42: .* headers: one has no name"):
        headers_of(letter(b"", DeadLetterHeader(value="1")))
