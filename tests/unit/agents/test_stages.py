"""Entries are those that are stored, with what a batch has changed on top, not written yet."""

import msgspec
import pytest

from streams.agents.stages import Entries


def entries() -> Entries[int]:
    return Entries({b"a": b"1", b"b": b"2"}, msgspec.json.Decoder(int))


def test_what_is_stored_is_there() -> None:
    found = entries()
    assert (dict(found), len(found), found.changed) == ({"a": 1, "b": 2}, 2, {})
    assert found.get("c") is None
    assert "c" not in found
    assert not found.__contains__(7), "keys are texts"


def test_what_is_changed_is_seen_at_once_and_told_at_the_end() -> None:
    found = entries()
    found["a"] = 10
    found["c"] = 3
    del found["b"]
    assert dict(found) == {"a": 10, "c": 3}
    assert found.changed == {"a": 10, "c": 3, "b": None}
    with pytest.raises(KeyError):
        found["b"]
    with pytest.raises(KeyError):
        del found["b"]
    found["b"] = 5
    assert found["b"] == 5


def test_nothing_is_written_to_what_is_stored() -> None:
    stored = {b"a": b"1"}
    found = Entries(stored, msgspec.json.Decoder(int))
    found["a"] = 2
    assert stored == {b"a": b"1"}


def test_how_many_there_are_is_known_without_looking_at_all() -> None:
    found = Entries({b"a": b"1", b"b": b"2"}, msgspec.json.Decoder(int))
    found["b"] = 3
    found["c"] = 4
    assert len(found) == len(dict(found)) == 3
    del found["a"]
    del found["c"]
    assert (len(found), dict(found)) == (1, {"b": 3})
