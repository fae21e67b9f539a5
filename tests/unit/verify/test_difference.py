"""Where two JSON texts first differ."""

import pytest

from streams.verify.difference import first_difference, shown


@pytest.mark.parametrize(
    ("expected", "found", "difference"),
    [
        (b'{"a":1}', b'{"a":1}', None),
        (b'{"a":1,"b":2}', b'{ "b": 2, "a": 1.0 }', None),
        (b'{"a":{"b":[1,2]}}', b'{"a":{"b":[1,3]}}', ("a.b[1]", "2", "3")),
        (b'{"a":[1,2]}', b'{"a":[1]}', ("a", "2 entries", "1 entries")),
        (b'{"a":1,"b":2}', b'{"b":2}', ("a", "1", "nothing")),
        (b'{"b":2}', b'{"a":1,"b":2}', ("a", "nothing", "1")),
        (b'{"a":true}', b'{"a":1}', ("a", "true", "1")),
        (b'{"a":null}', b"{}", ("a", "null", "nothing")),
        (b'{"a":0.1}', b'{"a":0.10000000000000001}', ("a", "0.1", "0.10000000000000001")),
        (b'{"a":{}}', b'{"a":[]}', ("a", "{}", "[]")),
        (b"1", b"2", ("value", "1", "2")),
        (b"1", b"x", ("value", "1", "no JSON: b'x'")),
    ],
    ids=[
        "the same bytes",
        "order and the way a number is written",
        "inside a list",
        "a list that is shorter",
        "a member that is not there",
        "a member too many",
        "true is not 1",
        "null is not nothing",
        "the last decimal counts",
        "another kind",
        "no object",
        "no JSON",
    ],
)
def test_the_first_field_that_differs_is_named(
    expected: bytes, found: bytes, difference: tuple[str, str, str] | None
) -> None:
    assert first_difference(expected, found) == difference


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b'{"id":"1","data":{"a":1}}', '{"a":1}'),
        (b"[1]", "[1]"),
        (b"no json", "b'no json'"),
        (b'"' + b"x" * 300 + b'"', '"' + "x" * 199 + "…"),
    ],
    ids=["the data of an event", "another record", "no JSON", "a long one, shortened"],
)
def test_a_record_is_shown_to_people(value: bytes, text: str) -> None:
    assert shown(value) == text
