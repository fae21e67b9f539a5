"""What a record of `events` is refused for: the field, what stood there, what is allowed."""

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.decode import Headers, Refusal, decode_event
from schemas.events import EVENT_TYPES, ClockTick, PhaseUsage, TaskEnded, TaskStarted
from schemas.outputs import DeadLetterDetail
from schemas.topics import EVENT_BYTES_MAX

TYPES = ", ".join(EVENT_TYPES)
EVENT = "a CloudEvents 1.0 event in JSON"
TIME = "a time with its zone as in RFC 3339, such as 2026-11-22T21:00:00Z"
USAGE: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "enforcer-1/7f3a",
    "type": "stoploss.phase.usage",
    "subject": "TASK-17",
    "time": "2026-11-22T21:00:00.123Z",
    "data": {"phase": "THINK", "input_tokens": 1_200, "cost_usd": 0.25},
}


def event(**changes: Any) -> bytes:  # noqa: ANN401 - whatever JSON has
    return msgspec.json.encode(USAGE | changes)


def usage(**data: Any) -> bytes:  # noqa: ANN401 - whatever JSON has
    return event(data={"phase": "THINK"} | data)


def other(kind: str, data: object, subject: str = "TASK-17") -> bytes:
    return event(type=f"stoploss.{kind}", data=data, subject=subject)


def without(name: str) -> bytes:
    return msgspec.json.encode({key: value for key, value in USAGE.items() if key != name})


def spliced(number: str) -> bytes:
    """A usage whose `input_tokens` and `cost_usd` are this text."""
    return usage(input_tokens=0).replace(b'"input_tokens":0', f'"input_tokens":{number}'.encode())


def refused(reason: str, field: str, value: str, allowed: str) -> Refusal:
    return Refusal(reason, DeadLetterDetail(field, value, allowed))


INVALID_FIELDS = [
    pytest.param(event(id=""), "id", "", "text of 1 to 200 characters", id="empty text"),
    pytest.param(
        event(id="x" * 201), "id", "x" * 80, "text of 1 to 200 characters", id="text too long"
    ),
    pytest.param(event(id=7), "id", "7", "text of 1 to 200 characters", id="a number as text"),
    pytest.param(
        without("id"),
        "id",
        "absent",
        "text of 1 to 200 characters; it is required",
        id="no id",
    ),
    pytest.param(event(specversion="2.0"), "specversion", "2.0", "1.0", id="another CloudEvents"),
    pytest.param(event(time="yesterday"), "time", "yesterday", TIME, id="no time"),
    pytest.param(
        event(time="2026-11-22T21:00:00"), "time", "2026-11-22T21:00:00", TIME, id="no zone"
    ),
    pytest.param(
        event(sequence="9" * 41), "sequence", "9" * 41, "text of at most 40 characters", id="long"
    ),
    pytest.param(without("data"), "data", "absent", "an object; it is required", id="no data"),
    pytest.param(event(data=None), "data", "absent", "an object; it is required", id="null data"),
    pytest.param(event(data=[1]), "data", "[1]", "an object", id="data is a list"),
    pytest.param(
        event(data={}),
        "data.phase",
        "absent",
        "text of 1 to 64 characters; it is required",
        id="no phase",
    ),
    pytest.param(
        usage(attempt=0), "data.attempt", "0", "an integer from 1 to 1000000", id="below the range"
    ),
    pytest.param(
        usage(input_tokens=-1),
        "data.input_tokens",
        "-1",
        "an integer from 0 to 10000000000",
        id="negative",
    ),
    pytest.param(
        usage(input_tokens=1.5),
        "data.input_tokens",
        "1.5",
        "an integer from 0 to 10000000000",
        id="a fraction of a token",
    ),
    pytest.param(
        spliced("1e3"),
        "data.input_tokens",
        "1e3",
        "an integer from 0 to 10000000000",
        id="shown as it was written",
    ),
    pytest.param(
        spliced("9" * 5_000),
        "data.input_tokens",
        "9" * 80,
        "an integer from 0 to 10000000000",
        id="more digits than Python turns into a number",
    ),
    pytest.param(usage(cost_usd=[]), "data.cost_usd", "[]", "a number", id="a list as a number"),
    pytest.param(
        usage(cost_usd="cheap"), "data.cost_usd", "cheap", "a number", id="a word as a number"
    ),
    pytest.param(
        usage(estimated=1), "data.estimated", "1", "true or false", id="a number as a truth"
    ),
    pytest.param(
        other("phase.ended", {"phase": "THINK", "outcome": "done"}),
        "data.outcome",
        "done",
        "one of completed, failed, backtracked, abandoned",
        id="an unknown word",
    ),
    pytest.param(
        other("mode.set", {"mode": 3, "by": "ada", "reason": "night"}, "partition/0"),
        "data.mode",
        "3",
        "one of observe, partial, enforce",
        id="a number as a word",
    ),
    pytest.param(
        other("task.started", {"planned_phases": []}),
        "data.planned_phases",
        "[]",
        "a list of 1 to 64 entries",
        id="an empty list",
    ),
    pytest.param(
        other("task.started", {"planned_phases": ["SPEC", 5]}),
        "data.planned_phases[1]",
        "5",
        "text of 1 to 64 characters",
        id="an entry of a list",
    ),
    pytest.param(
        other("task.started", {"labels": {str(label): "x" for label in range(17)}}),
        "data.labels",
        '{"0":"x","1":"x","2":"x","3":"x","4":"x","5":"x","6":"x","7":"x","8":"x","9":"x",',
        "an object of at most 16 entries",
        id="too many entries",
    ),
    pytest.param(
        other("task.started", {"labels": {"repo": "a", "size": 5}}),
        "data.labels.size",
        "5",
        "text of at most 256 characters",
        id="an entry of a mapping, by its key",
    ),
    pytest.param(
        other("task.started", {"labels": {"fine": "a", "k" * 65: "b"}}),
        "data.labels.a key",
        "k" * 65,
        "text of at most 64 characters",
        id="a key",
    ),
    pytest.param(
        other(
            "task.granted",
            {"by": "ada", "reason": "late", "limits": {"SPEC": {}, "THINK": {"tokens": 0}}},
        ),
        "data.limits.THINK.tokens",
        "0",
        "an integer from 1 to 1000000000000000",
        id="a field of an entry",
    ),
    pytest.param(
        other("task.granted", {"by": "ada", "reason": "late", "limits": {"task": {"usd": 5}}}),
        "data.limits.task.usd",
        "5",
        "one of tokens, latency_ms, cost_usd",
        id="an unknown field where none is allowed",
    ),
    pytest.param(
        other("policy.set", {"version": "1", "hash": "h", "by": "ada"}, "partition/0"),
        "data.policy",
        "absent",
        "an object; it is required",
        id="no policy",
    ),
    pytest.param(
        other("clock.tick", {}), "subject", "TASK-17", "partition/N for this type", id="whose tick"
    ),
]


@pytest.mark.parametrize(("record", "field", "value", "allowed"), INVALID_FIELDS)
def test_a_wrong_field_is_named_with_its_value_and_what_is_allowed(
    record: bytes, field: str, value: str, allowed: str
) -> None:
    assert decode_event(record) == refused("invalid_field", field, value[:80], allowed)


@pytest.mark.parametrize(
    ("record", "reason", "field", "value", "allowed"),
    [
        pytest.param(None, "not_an_event", "value", "null", EVENT, id="a tombstone"),
        pytest.param(b"5", "not_an_event", "value", "5", EVENT, id="a number"),
        pytest.param(b"[1]", "not_an_event", "value", "[1]", EVENT, id="a list"),
        pytest.param(b"null", "not_an_event", "value", "null", EVENT, id="null"),
        pytest.param(
            b'{"a":1}',
            "not_an_event",
            "type",
            "absent",
            f"{EVENT}, its type one of {TYPES}",
            id="no type",
        ),
        pytest.param(
            event(type=None),
            "not_an_event",
            "type",
            "absent",
            f"{EVENT}, its type one of {TYPES}",
            id="a null type",
        ),
        pytest.param(
            event(type=3),
            "not_an_event",
            "type",
            "3",
            f"{EVENT}, its type one of {TYPES}",
            id="a number as type",
        ),
        pytest.param(
            event(type="stoploss.task.paused"),
            "unknown_type",
            "type",
            "stoploss.task.paused",
            f"one of {TYPES}",
            id="a type of another version",
        ),
        pytest.param(
            b'{"type":"order.placed"}',
            "unknown_type",
            "type",
            "order.placed",
            f"one of {TYPES}",
            id="somebody else's event",
        ),
        pytest.param(
            b"{" * 3, "not_json", "value", "{{{", "JSON in UTF-8 (JSON is malformed: ", id="no JSON"
        ),
        pytest.param(b"", "not_json", "value", "", "JSON in UTF-8 (", id="nothing"),
        pytest.param(b"[1,", "not_json", "value", "[1,", "JSON in UTF-8 (", id="half a list"),
        pytest.param(
            b'{"type":"\xff"', "not_json", "value", '{"type":"�"', "JSON in UTF-8 (", id="no UTF-8"
        ),
        pytest.param(
            usage(model="?").replace(b"?", b"\xff"),
            "not_json",
            "value",
            event().decode()[:80],
            "JSON in UTF-8 (",
            id="no UTF-8 in a field",
        ),
        pytest.param(
            usage(cost_usd=0).replace(b'usd":0', b'usd":NaN'),
            "not_json",
            "value",
            event().decode()[:80],
            "JSON in UTF-8 (",
            id="NaN is no JSON",
        ),
        pytest.param(
            usage(model="?").replace(b"?", rb"\ud800"),
            "not_json",
            "value",
            event().decode()[:80],
            "JSON in UTF-8 (",
            id="half a surrogate pair",
        ),
        pytest.param(
            b"[" * 100_000,
            "not_json",
            "value",
            "[" * 80,
            "JSON nested at most 256 levels deep",
            id="deep",
        ),
        pytest.param(
            b'{"type":' * 100_000,
            "not_json",
            "value",
            '{"type":' * 10,
            "JSON nested at most 256 levels deep",
            id="deep objects",
        ),
        pytest.param(
            b" " * (EVENT_BYTES_MAX + 1),
            "too_large",
            "value",
            f"{EVENT_BYTES_MAX + 1} bytes",
            f"at most {EVENT_BYTES_MAX}",
            id="one byte too many",
        ),
    ],
)
def test_a_record_that_is_no_event_says_why(
    record: bytes | None, reason: str, field: str, value: str, allowed: str
) -> None:
    found = decode_event(record)

    assert isinstance(found, Refusal)
    assert (found.reason, found.detail.field, found.detail.value) == (reason, field, value)
    assert found.detail.allowed.startswith(allowed)


@pytest.mark.parametrize(
    ("repeated", "field", "value"),
    [
        pytest.param('"phase":1', "data.phase", "THINK", id="a field"),
        pytest.param('"phase":1,"phase":2', "data.phase", "THINK", id="a field, three times"),
    ],
)
def test_of_a_repeated_name_the_last_value_is_shown(repeated: str, field: str, value: str) -> None:
    record = usage().replace(b'{"phase"', b"{" + repeated.encode() + b',"phase"')
    assert decode_event(record) == refused(
        "invalid_field", field, value, "text of 1 to 64 characters"
    )


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(
            b'{"type":"stoploss.phase.usage","data":{"phase":1},"type":"stoploss.task.ended"}',
            id="two types",
        ),
        pytest.param(
            b'{"type":"stoploss.task.started","data":{"labels":{"a":1,"a":"x"}}}', id="two labels"
        ),
        pytest.param(
            b'{"type":"stoploss.task.started","data":{"labels":{"a":1},"labels":null}}',
            id="two sets of labels",
        ),
        pytest.param(
            b'{"type":"stoploss.phase.usage","data":{"phase":1},"type":"stoploss.clock.tick"}',
            id="two types, one without fields",
        ),
    ],
)
def test_repeated_names_that_hide_what_was_wrong_are_refused_as_such(record: bytes) -> None:
    assert decode_event(record) == refused(
        "not_an_event", "value", record.decode()[:80], "an object without repeated names"
    )


def test_a_list_that_is_repeated_shorter_has_no_value_to_show() -> None:
    data = b'{"planned_phases":["SPEC",5],"planned_phases":[]}'
    record = other("task.started", {}).replace(b'"data":{}', b'"data":' + data)
    assert decode_event(record) == refused(
        "invalid_field", "data.planned_phases[1]", "absent", "text of 1 to 64 characters"
    )


@pytest.mark.parametrize(
    "unknown",
    [b'"mod\xe9l":1', b'"note":"caf\xe9"', b'"note":["\xff"]', b'"note":"\xed\xa0\x80"'],
    ids=["a name", "a text", "within a list", "half a character"],
)
def test_what_is_not_in_utf_8_is_refused_also_where_it_would_be_ignored(unknown: bytes) -> None:
    found = decode_event(usage().replace(b'"phase"', unknown + b',"phase"'))
    assert isinstance(found, Refusal)
    assert (found.reason, found.detail.field) == ("not_json", "value")
    assert "UTF-8" in found.detail.allowed


def test_a_text_in_utf_8_that_nobody_reads_is_ignored() -> None:
    record = usage().replace(b'"phase"', '"café":"☕","phase"'.encode())
    assert decode_event(record) == decode_event(usage())


def test_a_null_makes_no_repeated_name_right() -> None:
    repeated = event(traceparent=None)[:-1] + b',"id":7,"id":"e-1","specversion":null}'
    found = decode_event(repeated)
    assert isinstance(found, Refusal)
    assert found.reason == "invalid_field"


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(event(partitionkey=None, traceparent=None), id="optional"),
        pytest.param(event(specversion=None), id="with a default"),
        pytest.param(usage(model=None, attempt=None), id="in the data"),
    ],
)
def test_null_is_the_same_as_absent(record: bytes) -> None:
    assert isinstance(decode_event(record), PhaseUsage)


def test_a_null_where_the_whole_of_the_data_may_be_left_out_is_the_default() -> None:
    assert isinstance(decode_event(other("task.started", None)), TaskStarted)
    assert decode_event(other("task.ended", None)) == decode_event(other("task.ended", {}))


def headers(**attributes: bytes | None) -> Headers:
    return [(f"ce_{name}", value) for name, value in attributes.items()]


BINARY = {name: str(value).encode() for name, value in USAGE.items() if name != "data"}


def test_the_binary_mode_says_the_same_as_the_structured_one() -> None:
    data = msgspec.json.encode(USAGE["data"])
    found = decode_event(data, [("content-type", b"application/json"), *headers(**BINARY)])
    assert found == decode_event(event())


BINARY_BYTES = len(without("data")) + len(',"data":')


@pytest.mark.parametrize("value", [None, b"", b" ", b"null"])
def test_an_event_without_data_may_have_no_value_in_binary_mode(value: bytes | None) -> None:
    found = decode_event(value, headers(**BINARY | {"type": b"stoploss.task.ended"}))
    assert isinstance(found, TaskEnded)
    tick = headers(**BINARY | {"type": b"stoploss.clock.tick", "subject": b"partition/3"})
    assert isinstance(decode_event(value, tick), ClockTick)


def test_extension_attributes_of_others_are_ignored() -> None:
    data = msgspec.json.encode(USAGE["data"])
    found = decode_event(data, headers(**BINARY, tenant=b"\xff", partitionkey=None))
    assert found == decode_event(event())


def test_a_record_with_a_header_whose_name_is_no_utf_8_is_no_event() -> None:
    name = b"gr\xf6\xdfe".decode(errors="surrogateescape")  # as readers give it, here in Latin-1
    expected = refused("not_an_event", "headers", "gr��e", "names in UTF-8")
    assert decode_event(event(), [("größe", b"1"), (name, b"1")]) == expected
    assert decode_event(None, [*headers(**BINARY), (name, None)]) == expected
    assert decode_event(event(), [("größe", b"1")]) == decode_event(event())


@pytest.mark.parametrize(
    ("changes", "value", "expected"),
    [
        pytest.param(
            {"id": b"\xff"},
            b"{}",
            refused("invalid_field", "ce_id", "�", "text in UTF-8"),
            id="a header that is no UTF-8",
        ),
        pytest.param(
            {},
            b'{"phase":"A"},"id":"b"',
            refused(
                "not_json",
                "value",
                '{"phase":"A"},"id":"b"',
                "JSON in UTF-8 (JSON is malformed: trailing characters (byte 14))",
            ),
            id="data that would add attributes",
        ),
        pytest.param(
            {"type": None},
            b"{}",
            refused("not_an_event", "type", "absent", f"{EVENT}, its type one of {TYPES}"),
            id="no type",
        ),
        pytest.param(
            {},
            b'{"phase":""}',
            refused("invalid_field", "data.phase", "", "text of 1 to 64 characters"),
            id="a wrong field of the data",
        ),
        pytest.param(
            {},
            b'"' + b"x" * (EVENT_BYTES_MAX - 2) + b'"',
            refused(
                "too_large",
                "value",
                f"{EVENT_BYTES_MAX + BINARY_BYTES} bytes",
                f"at most {EVENT_BYTES_MAX}",
            ),
            id="too large together with its attributes",
        ),
    ],
)
def test_the_binary_mode_is_refused_for_the_same_reasons(
    changes: dict[str, bytes | None], value: bytes, expected: Refusal
) -> None:
    assert decode_event(value, headers(**BINARY | changes)) == expected


INVALID_RECORDS = [case.values[0] for case in INVALID_FIELDS if isinstance(case.values[0], bytes)]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = sorted(
    {field.name for kind in EVENT_TYPES.values() for field in msgspec.structs.fields(kind)}
    | {"type", "phase", "limits", "labels", "planned_phases", "budget_overrides", "policy", "mode"}
)
NEAR_EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(sorted(EVENT_TYPES))},
    optional={name: JSON for name in FIELDS if name != "type"},
)


def whatever(value: bytes | None, given_headers: Headers = ()) -> None:
    """Decode it: an event or a refusal that can be written to `dead-letters`, nothing else."""
    found = decode_event(value, given_headers)
    assert isinstance(found, Refusal) or type(found) in EVENT_TYPES.values()
    if isinstance(found, Refusal):
        assert len(found.detail.value) <= 80
        msgspec.json.encode(found)


@given(st.binary(max_size=200))
@example(b"\x00")
@example(b'"' + b"x" * EVENT_BYTES_MAX)
@example(b'{"type":"' + b"x" * (EVENT_BYTES_MAX - 11) + b'"}')
def test_no_bytes_make_it_raise(value: bytes) -> None:
    whatever(value)


@given(st.data())
def test_no_changed_byte_makes_it_raise(data: st.DataObject) -> None:
    record = bytearray(data.draw(st.sampled_from(INVALID_RECORDS)))
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(record) - 1))
        record[index] = data.draw(st.integers(0, 255))
    whatever(bytes(record))


@given(NEAR_EVENTS, st.none() | NEAR_EVENTS)
def test_no_event_with_other_values_makes_it_raise(
    record: dict[str, object], data: dict[str, object] | None
) -> None:
    whatever(
        msgspec.json.encode(USAGE | record if data is None else USAGE | record | {"data": data})
    )


@given(NEAR_EVENTS, st.sampled_from(FIELDS), JSON)
def test_no_repeated_name_makes_it_raise(
    record: dict[str, object], name: str, again: object
) -> None:
    inner = msgspec.json.encode(record)
    twice = inner[:-1] + b"," + msgspec.json.encode(name) + b":" + msgspec.json.encode(again) + b"}"
    whatever(twice)
    whatever(msgspec.json.encode(USAGE | {"type": record["type"], "data": msgspec.Raw(twice)}))


@given(st.integers(1, 1_500), st.sampled_from([b"[", b'{"data":', b'{"type":', b'{"limits":']))
def test_no_depth_makes_it_raise(depth: int, opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    nested = opening * depth + b"null" + closing * depth
    whatever(nested)
    for kind in EVENT_TYPES:
        whatever(msgspec.json.encode(USAGE | {"type": kind, "data": msgspec.Raw(nested)}))
        whatever(
            msgspec.json.encode(USAGE | {"type": kind, "id": None, "data": msgspec.Raw(nested)})
        )


@given(
    st.none() | st.binary(max_size=60),
    st.lists(
        st.tuples(
            st.sampled_from(["ce_id", "ce_type", "ce_time", "ce_sequence", "ce_x", "other"])
            | st.binary(max_size=9).map(lambda name: name.decode(errors="surrogateescape")),
            st.none()
            | st.binary(max_size=40)
            | st.sampled_from(sorted(EVENT_TYPES)).map(str.encode),
        )
    ),
)
def test_no_headers_make_it_raise(value: bytes | None, given_headers: Headers) -> None:
    whatever(value, given_headers)
