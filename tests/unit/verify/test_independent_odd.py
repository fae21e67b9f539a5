"""Of events that are hardly any, the second judge says what the ledger says."""

import pytest

from streams.budget.policy import policy_from_toml
from streams.verify.independent.judge import Judge
from streams.verify.independent.records import Input
from streams.verify.independent.times import epoch_ms, rfc3339
from tests.unit.budget.histories import POLICY
from tests.unit.budget.world import OWN_SUBJECT, START_MS, record
from tests.unit.verify.random_log import policy_data, written

BEGUN = [
    record("policy.set", OWN_SUBJECT, "p", policy_data(POLICY), START_MS),
    record("task.started", "T", "begun", {"planned_phases": ["A"]}, START_MS),
    record("phase.usage", "T", "used", {"phase": "A", "input_tokens": 60}, START_MS),
]
USAGE = record("phase.usage", "T", "e-1", {"phase": "A", "input_tokens": 7}, START_MS)
TICK = record("clock.tick", OWN_SUBJECT, "e-1", None, START_MS)
STARTED = record("task.started", "U", "e-1", {"labels": {}}, START_MS)
AGAIN = record("task.started", "T", "e-1", {"labels": {}}, START_MS)
GRANT = record("task.granted", "T", "e-1", {"by": "a", "reason": "b", "multiplier": 2}, START_MS)
FEW, MANY = b"[" * 200 + b"]" * 200, b"[" * 300 + b"]" * 300
GRANT_ALL = {"by": "a", "reason": "b", "multiplier": 2}
SET_AGAIN = record("policy.set", OWN_SUBJECT, "e-1", policy_data(POLICY), START_MS)
CHILD = record("task.started", "C", "e-1", {"parent_task_id": "T"}, START_MS)
UNKNOWN = record("phase.usage", "C", "e-2", {"phase": "PR", "usage_known": False}, START_MS)
Headers = tuple[tuple[str, bytes | None], ...]


def usage(more: bytes) -> bytes:
    """A report with something before its phase."""
    return USAGE.replace(b'"phase"', more + b',"phase"')


def envelope(more: bytes, value: bytes = USAGE) -> bytes:
    """An event with something before its other attributes."""
    return b"{" + more + b"," + value[1:]


def letters(value: bytes | None, headers: Headers = ()) -> int:
    """How many dead letters the ledger writes; the second judge has to agree on all it writes."""
    values = [*BEGUN, value, USAGE]
    inputs: list[Input] = [
        (offset, START_MS + 10 * offset, b"T", one, headers if one is value else ())
        for offset, one in enumerate(values)
    ]
    records = written(inputs)
    assert [str(one) for one in Judge(records).differences()] == []
    return len(list(records.outputs["dead-letters"]))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(usage(b'"x":1e-999999999999999999999'), id="a number beyond all, unknown"),
        pytest.param(usage(b'"x":' + b"1" * 5_000), id="5,000 digits, unknown"),
        pytest.param(usage(b'"x":"\\ud83d\\ude00"'), id="a character in two halves"),
        pytest.param(usage(b'"x":"\\\\ud83d"'), id="what only looks like half a character"),
        pytest.param(usage(b'"x":' + FEW), id="nested 200 deep"),
        pytest.param(usage(b'"cost_usd":0.' + b"3" * 80), id="an amount of 80 digits"),
        pytest.param(usage(b'"cost_usd":0.0000000015' + b"0" * 80 + b"1"), id="just over a half"),
        pytest.param(usage(b'"cost_usd":1.0000000004' + b"9" * 40), id="just below a half"),
        pytest.param(usage(b'"cost_usd":1e-999999999'), id="next to nothing"),
        pytest.param(usage(b'"input_tokens":1,"input_tokens":null'), id="a null the second time"),
        pytest.param(envelope(b'"id":"first"'), id="two ids"),
        pytest.param(envelope(b'"sequence":"x","sequence":"7"'), id="a sequence, then digits"),
        pytest.param(envelope(b'"specversion":null').replace(b',"specversion":"1.0"', b""), id="v"),
        pytest.param(USAGE.replace(b"00:00:00.000Z", b"00:00:00.0009999996Z"), id="rounded up"),
        pytest.param(USAGE.replace(b"T00:00:00.000Z", b" 00:00:00z"), id="a time in small letters"),
        pytest.param(
            USAGE.replace(b"2026-01-01T00:00:00.000Z", b"0001-01-01T00:00:00+23:59"), id="1"
        ),
        pytest.param(envelope(b'"sequence":"x"', TICK), id="a tick whose sequence is none"),
        pytest.param(
            STARTED.replace(b'"labels":{}', b'"budget_overrides":{}'), id="none overridden"
        ),
        pytest.param(
            AGAIN.replace(b'"labels":{}', b'"parent_task_id":"policy/x"'), id="known: parent"
        ),
        pytest.param(
            AGAIN.replace(b'"labels":{}', b'"budget_multiplier":0'), id="known: multiplier"
        ),
        pytest.param(GRANT.replace(b":2}", b":2.000000000}"), id="nine decimals"),
        pytest.param(USAGE.replace(b'"A"', b'"default"'), id="a phase that is called default"),
        pytest.param(
            SET_AGAIN.replace(b'"block":null', b'"block":"never"'), id="a level that is never"
        ),
        pytest.param(
            record("phase.usage", "T", "used", {"phase": "A", "cost_usd": "NaN"}, START_MS),
            id="sent before, and no number now",
        ),
    ],
)
def test_what_is_odd_and_allowed_is_folded(value: bytes) -> None:
    assert letters(value) == 0


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(usage(b'"x\xff":1'), id="a name that is not in UTF-8, unknown"),
        pytest.param(usage(b'"x":"\xe9"'), id="a text that is not in UTF-8, unknown"),
        pytest.param(usage(b'"x":"\\ud800"'), id="half a character"),
        pytest.param(usage(b'"x":"\\udc00\\ud800"'), id="two halves in the wrong order"),
        pytest.param(usage(b'"x":' + MANY), id="nested 300 deep"),
        pytest.param(usage(b'"files_read":1.0'), id="a whole number with a point"),
        pytest.param(usage(b'"files_read":1e3'), id="a whole number with an exponent"),
        pytest.param(usage(b'"files_read":0.' + b"0" * 5_000), id="5,000 zeros"),
        pytest.param(usage(b'"phase":null'), id="a phase that is null the first time"),
        pytest.param(usage(b'"phase":5'), id="two phases, one of them none"),
        pytest.param(envelope(b'"type":"stoploss.task.ended"'), id="two types"),
        pytest.param(envelope(b'"id":7'), id="two ids, one of them none"),
        pytest.param(envelope(b'"id":7,"x":null,"traceparent":null'), id="two ids, and nulls"),
        pytest.param(envelope(b'"id":"x","specversion":null').replace(b'"1.0"', b"null"), id="v"),
        pytest.param(envelope(b'"data":null'), id="two data, one of them null"),
        pytest.param(envelope(b'"sequence":"9223372036854775808"'), id="a sequence of 64 bits"),
        pytest.param(envelope(b'"sequence":"","traceparent":"00-1"'), id="an empty sequence"),
        pytest.param(USAGE.replace(b'"1.0"', b"[]"), id="a version that is a list"),
        pytest.param(USAGE.replace(b"2026-01-01T", b"2026-W01-1T"), id="a week"),
        pytest.param(
            USAGE.replace(b"2026-01-01T00:00:00.000Z", b"20260101T000000Z"), id="no dashes"
        ),
        pytest.param(
            USAGE.replace(b"2026-01-01T00:00:00.000", b"9999-12-31T23:59:59.9999996"),
            id="year 10000",
        ),
        pytest.param(GRANT.replace(b":2}", b":2.0000000000}"), id="ten decimals"),
        pytest.param(GRANT.replace(b":2}", b":1." + b"0" * 30 + b"1}"), id="31 decimals"),
        pytest.param(
            record("task.granted", "T", "used", {"by": "a", "limits": {"A": {"x": 1}}}, START_MS),
            id="sent before, and no event now",
        ),
        pytest.param(
            STARTED.replace(b'"labels":{}', b'"budget_overrides":{"":{"tokens":1}}'), id="o"
        ),
    ],
)
def test_what_is_hardly_an_event_is_refused(value: bytes) -> None:
    assert letters(value) == 1


ATTRIBUTES: Headers = (
    ("ce_type", b"stoploss.phase.usage"),
    ("ce_id", b"e-1"),
    ("ce_source", b"s"),
    ("ce_subject", b"T"),
    ("ce_time", b"2026-01-01T00:00:00Z"),
)
DATA = b'{"phase":"A","input_tokens":7}'


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        pytest.param(b" \n" + DATA + b"\r\t", 0, id="blanks around"),
        pytest.param(b"\x0c" + DATA, 1, id="a form feed is no blank"),
        pytest.param(DATA.replace(b"7", b'7,"x":' + b"[" * 254 + b"]" * 254), 0, id="255 levels"),
        pytest.param(DATA.replace(b"7", b'7,"x":' + b"[" * 255 + b"]" * 255), 1, id="one more"),
        pytest.param(
            DATA.replace(b"7", b'7,"x":"' + b"y" * (1024 * 1024 - 100) + b'"'), 1, id="1 MiB"
        ),
        pytest.param(DATA + b" " * 1024 * 1024, 1, id="blanks without end"),
    ],
)
def test_binary_mode_is_bounded_as_the_structured_one(data: bytes, refused: int) -> None:
    assert letters(data, ATTRIBUTES) == refused


def test_what_a_child_uses_keeps_its_parent_also_where_nobody_knows_how_much() -> None:
    start = record("task.started", "T", "begun", {}, START_MS)
    days = [(start, 0), (CHILD, 0), (UNKNOWN, 5), (TICK, 9)]
    inputs: list[Input] = [
        (offset, START_MS + day * 86_400_000, b"T", value, ())
        for offset, (value, day) in enumerate(days)
    ]
    records = written(inputs)
    assert [str(one) for one in Judge(records).differences()] == []
    assert not any(b'"ended"' in (value or b"") for _, _, value in records.outputs["lifecycle"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2026-01-01T00:00:00.0009994999Z", "2026-01-01T00:00:00.000Z"),
        ("2026-01-01T00:00:59.9999995-00:30", "2026-01-01T00:31:00.000Z"),
        ("0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59-0100", "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_kept_within_those_that_can_be_written(text: str, told: str) -> None:
    assert rfc3339(epoch_ms(text)) == told


def test_events_for_a_partition_are_remembered_for_as_long_as_the_policy_says() -> None:
    few = policy_from_toml('version = "few"\n[dedupe]\nrecent = 2', "few.toml")
    grants = [
        record("all.granted", OWN_SUBJECT, f"e-{number}", GRANT_ALL, START_MS)
        for number in (0, 1, 2, 0, 0)  # the first one is forgotten, and remembered
    ]
    begun = [
        record("policy.set", OWN_SUBJECT, "p", policy_data(few), START_MS),
        record("task.started", "T", "begun", {}, START_MS),
    ]
    records = written(
        [
            (offset, START_MS + offset, b"T", value, ())
            for offset, value in enumerate([*begun, *grants])
        ]
    )

    assert [str(one) for one in Judge(records).differences()] == []
    told = b"".join(value or b"" for _, _, value in records.outputs["lifecycle"])
    assert told.count(b'"change":"granted"') == 4


def test_limits_grow_to_a_bound_however_often_they_are_raised() -> None:
    raised = {"by": "a", "reason": "b", "multiplier": 10}
    grants = [record("task.granted", "T", f"e-{one}", raised, START_MS) for one in range(70)]
    records = written(
        [
            (offset, START_MS + offset, b"T", value, ())
            for offset, value in enumerate([*BEGUN, *grants, USAGE])
        ]
    )

    assert [str(one) for one in Judge(records).differences()] == []
    assert b'"tokens":1000000000000000,' in b"".join(
        value or b"" for _, _, value in records.outputs["lifecycle"]
    )
