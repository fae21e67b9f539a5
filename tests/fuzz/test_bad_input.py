"""No input, however broken, raises, changes a state, or is lost; the next good one counts."""

import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fuzz.target
import tests.unit.verify.random_log
from schemas.decode import Headers, Refusal, decode_event
from schemas.events import Event
from schemas.topics import EVENT_BYTES_MAX
from streams.budget.effects import Effect
from streams.budget.fold import fold
from streams.budget.state import PartitionState
from tests.fuzz import corpus
from tests.fuzz.mutate import Broken, Mutator
from tests.fuzz.run import run_chunk, run_judged
from tests.fuzz.target import PartitionTarget
from tests.unit.budget.histories import anything, examples
from tests.unit.budget.world import START_MS, record

GOOD = record("phase.usage", "T0", "e-1", {"phase": "A", "input_tokens": 1}, START_MS)


def with_tokens(value: bytes) -> bytes:
    return GOOD.replace(b'"input_tokens":1', b'"input_tokens":' + value)


def with_time(value: str) -> bytes:
    return record("phase.usage", "T0", "e-1", {"phase": "A"}, START_MS).replace(
        b"2026-01-01T00:00:00.000Z", value.encode()
    )


def binary(*headers: tuple[str, bytes | None], data: bytes = b'{"phase":"A"}') -> Broken:
    attributes: dict[str, bytes | None] = {
        "ce_specversion": b"1.0",
        "ce_type": b"stoploss.phase.usage",
        "ce_id": b"e-1",
        "ce_source": b"s",
        "ce_subject": b"T0",
        "ce_time": b"2026-01-01T00:00:00Z",
    }
    return Broken(data, tuple((attributes | dict(headers)).items()))


@pytest.mark.parametrize(
    ("broken", "became"),
    [
        pytest.param(Broken(GOOD), "folded", id="as it should be"),
        pytest.param(Broken(None), "refused: not_an_event", id="a tombstone"),
        pytest.param(Broken(None, key=None), "refused: not_an_event", id="no key either"),
        pytest.param(Broken(b""), "refused: not_json", id="empty"),
        pytest.param(Broken(GOOD, key=b"\xff" * 40_000), "folded", id="a key that is no text"),
        pytest.param(Broken(b"[" * 5_000), "refused: not_json", id="nested and cut"),
        pytest.param(
            Broken(b"[" * 100_000 + b"]" * 100_000), "refused: not_json", id="nested deeply"
        ),
        pytest.param(Broken(with_tokens(b"-1")), "refused: invalid_field", id="a negative count"),
        pytest.param(Broken(with_tokens(b"9" * 400)), "refused: invalid_field", id="a huge number"),
        pytest.param(Broken(with_tokens(b"1e400")), "refused: invalid_field", id="beyond a float"),
        pytest.param(Broken(with_tokens(b"NaN")), "refused: not_json", id="not a number"),
        pytest.param(Broken(with_tokens(b"-Infinity")), "refused: not_json", id="infinity"),
        pytest.param(
            Broken(with_tokens(b'0,"model":"\\ud800"')), "refused: not_json", id="lone surrogate"
        ),
        pytest.param(
            Broken(with_tokens(b'0,"model":"' + b"x" * EVENT_BYTES_MAX + b'"')),
            "refused: too_large",
            id="more than 1 MiB",
        ),
        pytest.param(
            Broken(with_tokens(b'0,"model":"' + b"x" * (EVENT_BYTES_MAX - 500) + b'"')),
            "refused: invalid_field",
            id="a text of 1 MB",
        ),
        pytest.param(Broken(with_tokens(b'1,"input_tokens":2')), "folded", id="a name twice"),
        pytest.param(Broken(GOOD.decode().encode("utf-16")), "refused: not_json", id="in UTF-16"),
        pytest.param(Broken(b"\xef\xbb\xbf" + GOOD), "refused: not_json", id="byte order mark"),
        pytest.param(
            Broken(GOOD.replace(b'"T0"', b'"T\xe9"')), "refused: not_json", id="in latin-1"
        ),
        pytest.param(Broken(with_time("9999-12-31T23:59:59.999999Z")), "folded", id="year 9999"),
        pytest.param(Broken(with_time("0001-01-01T00:00:00+23:59")), "folded", id="year 1"),
        pytest.param(
            Broken(with_time("0000-01-01T00:00:00Z")), "refused: invalid_field", id="year 0"
        ),
        pytest.param(
            Broken(GOOD, (("traceparent", b"\xff"), ("content-type", None))),
            "folded",
            id="foreign headers",
        ),
        pytest.param(Broken(GOOD, (("\udcff", b""),)), "refused: not_an_event", id="header name"),
        pytest.param(binary(), "folded", id="binary mode"),
        pytest.param(binary(("ce_time", None)), "refused: invalid_field", id="a null header"),
        pytest.param(binary(("ce_id", b"\xff")), "refused: invalid_field", id="header no text"),
        pytest.param(binary(data=b"{"), "refused: not_json", id="binary mode, data cut"),
    ],
)
def test_what_becomes_of_awkward_input(broken: Broken, became: str) -> None:
    target = PartitionTarget(random.Random(1))
    assert target.take(broken) == became
    target.take_good()
    target.check_restore()


@pytest.mark.parametrize("chunk", range(3))
def test_broken_real_input_is_harmless(chunk: int) -> None:
    result = run_chunk(0, chunk)
    assert result.failures == []
    assert result.by_reason["folded"] > 0
    assert sum(count for reason, count in result.by_reason.items() if "refused" in reason) > 0


def test_the_second_judge_says_the_same_of_broken_events() -> None:
    result = run_judged(0, 0, histories=20)
    assert result.failures == []


def test_the_second_judge_finds_a_ledger_out_that_refuses_with_a_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tests.unit.verify.random_log, "fold", careless_fold)
    failures = run_judged(0, 0, histories=3).failures
    assert any("the second judge" in failure.error for failure in failures), failures


@st.composite
def broken_events(draw: st.DrawFn) -> Broken:
    """Any event that the schemas allow, with odd values in it, or odd bytes."""
    mutator = Mutator(draw(st.randoms()), corpus.events())
    value = draw(anything())
    return Broken(draw(st.sampled_from((mutator.odd, mutator.value)))(value))


@examples(60)
@given(st.lists(broken_events() | anything().map(Broken) | st.binary(max_size=9).map(Broken)))
def test_broken_events_of_any_type_are_harmless(events: list[Broken]) -> None:
    target = PartitionTarget(random.Random(1))
    for event in events:
        target.take(event)
    target.take_good()
    target.check_restore()


def careless_decode(value: bytes | None, headers: Headers = ()) -> Event | Refusal:
    """Raises on a number that is none."""
    if value is not None and b"NaN" in value:
        raise ValueError("NaN")
    return decode_event(value, headers)


def careless_fold(
    state: PartitionState, event: Event | Refusal, *, offset: int, append_ms: int
) -> Sequence[Effect]:
    """Leaves a trace of what it refuses."""
    if isinstance(event, Refusal) and len(state.tasks):
        next(iter(state.tasks.values())).limits_version += 1
    return fold(state, event, offset=offset, append_ms=append_ms)


def forgetful_fold(
    state: PartitionState, event: Event | Refusal, *, offset: int, append_ms: int
) -> Sequence[Effect]:
    """Loses what it refuses."""
    effects = fold(state, event, offset=offset, append_ms=append_ms)
    return [] if isinstance(event, Refusal) else effects


@pytest.mark.parametrize(
    ("name", "careless", "said"),
    [
        ("decode_event", careless_decode, "ValueError: NaN"),
        ("fold", careless_fold, "left a trace"),
        ("fold", forgetful_fold, "without a dead letter"),
    ],
    ids=["raises", "leaves a trace", "loses"],
)
def test_a_careless_ledger_is_found_out(
    monkeypatch: pytest.MonkeyPatch, name: str, careless: object, said: str
) -> None:
    monkeypatch.setattr(tests.fuzz.target, name, careless)
    failures = run_chunk(0, 0).failures
    assert any(said in failure.error for failure in failures), failures


def test_a_chunk_is_the_same_every_time() -> None:
    first, again = run_chunk(7, 1), run_chunk(7, 1)
    first.slowest_ms = again.slowest_ms
    assert msgspec.to_builtins(first) == msgspec.to_builtins(again)
