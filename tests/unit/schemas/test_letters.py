"""The headers of a refused record are kept whole, whatever bytes they are."""

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.decode import is_binary_mode, structured
from schemas.letters import is_agents_letter, kept_header, original_bytes, original_headers
from schemas.outputs import DeadLetterHeader

NOT_UTF_8 = b"\xffname\xc3"


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        pytest.param("ce_id", b"e-1", {"name": "ce_id", "value": "e-1"}, id="text"),
        pytest.param("größe", b"", {"name": "größe", "value": ""}, id="an empty value"),
        pytest.param("ce_id", None, {"name": "ce_id"}, id="no value"),
        pytest.param(
            "ce_id", b"\xff", {"name": "ce_id", "value_base64": "/w=="}, id="a value of bytes"
        ),
        pytest.param(
            NOT_UTF_8.decode(errors="surrogateescape"),
            b"1",
            {"name_base64": "/25hbWXD", "value": "1"},
            id="a name of bytes",
        ),
    ],
)
def test_a_header_is_text_where_it_is_text(
    name: str, value: bytes | None, kept: dict[str, str]
) -> None:
    assert msgspec.to_builtins(kept_header(name, value)) == kept


@given(st.lists(st.tuples(st.binary(), st.none() | st.binary())))
def test_headers_come_back_as_they_were(raw: list[tuple[bytes, bytes | None]]) -> None:
    headers = [(name.decode(errors="surrogateescape"), value) for name, value in raw]
    written = msgspec.json.encode([kept_header(name, value) for name, value in headers])
    read = msgspec.json.decode(written, type=list[DeadLetterHeader])
    assert original_headers(read) == headers


@pytest.mark.parametrize(
    ("header", "words"),
    [
        pytest.param(DeadLetterHeader(value="1"), "one has no name", id="no name"),
        pytest.param(DeadLetterHeader(name_base64="%"), "not base64", id="no base64"),
    ],
)
def test_headers_that_nobody_wrote_are_named(header: DeadLetterHeader, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        original_headers([header])


def test_an_event_of_the_binary_mode_can_be_seen_in_one_piece() -> None:
    headers = [("ce_type", b"stoploss.task.ended"), ("ce_id", b"e-1"), ("other", b"x")]
    assert is_binary_mode(headers)
    assert not is_binary_mode([("other", b"x")])
    event = structured(b'{"outcome": "failed"}', headers)
    assert event == b'{"type":"stoploss.task.ended","id":"e-1","data":{"outcome": "failed"}}'


def test_the_original_of_a_dead_letter_is_given_back_as_bytes() -> None:
    assert original_bytes(base64.b64encode(b"\xff{").decode()) == b"\xff{"
    with pytest.raises(ValueError, match="original: not base64"):
        original_bytes("%")


@pytest.mark.parametrize(
    ("value", "is_agents"),
    [
        pytest.param(b'{"source":"stoploss-agents"}', True, id="an agent's"),
        pytest.param(b'{"source":"stoploss/ledger"}', False, id="the ledger's"),
        pytest.param(b"{}", False, id="nobody's"),
        pytest.param(b"{", False, id="no JSON"),
        pytest.param(None, False, id="a deletion"),
    ],
)
def test_an_agents_letter_is_told_from_the_ledgers(value: bytes | None, *, is_agents: bool) -> None:
    assert is_agents_letter(value) is is_agents
