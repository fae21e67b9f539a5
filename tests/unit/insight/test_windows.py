"""Windows go by the records' time, and do not care in which order records come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alerts import Origin
from schemas.quantiles import count
from schemas.sketches import Histogram
from streams.insight.windows import (
    Counters,
    Sketches,
    Span,
    admit,
    dismiss,
    is_new,
    load,
    save,
    scopes_of,
)

HOUR = Span(window_ms=60, bucket_ms=10)
ONE = Histogram(buckets={5: 1})


def counted(*times: int) -> Counters:
    ring = Counters()
    for at_ms in times:
        ring.add(HOUR, at_ms, "task")
    return ring


@pytest.mark.parametrize(
    ("times", "now_ms", "total"),
    [
        pytest.param([0], 69, 1, id="the oldest bucket still reaches into the window"),
        pytest.param([0], 70, 0, id="and has left it then"),
        pytest.param([9], 70, 0, id="all of a bucket leaves at once"),
        pytest.param([10, 5, 70], 70, 2, id="a late record counts where it belongs"),
        pytest.param([70, 5], 70, 1, id="one from before the window does not count"),
        pytest.param([0, 0, 0, 1_000_000], 0, 1, id="nothing of a long time ago is left"),
    ],
)
def test_what_is_in_a_window(times: list[int], now_ms: int, total: int) -> None:
    ring = counted(*times)
    ring.advance(HOUR, now_ms)
    assert ring.total("task") == total


def test_time_never_runs_backwards() -> None:
    ring = counted(100)
    ring.advance(HOUR, 5)
    assert ring.now_ms == 100


def test_what_came_too_late_is_counted_apart() -> None:
    assert counted(100, 5, 6).late == 2


def test_what_is_taken_back_was_never_there() -> None:
    ring = counted(3, 25)
    ring.add(HOUR, 25, "answer")
    ring.add(HOUR, 25, "answer", -1)
    ring.add(HOUR, 3, "task", -1)
    assert ring == counted(25)


def test_totals_are_by_name() -> None:
    ring = counted(1, 15)
    ring.add(HOUR, 30, "block", 2)
    assert ring.totals() == {"block": 2, "task": 2}


MOMENTS = st.lists(st.tuples(st.integers(0, 300), st.sampled_from("ab")), max_size=30)


@given(MOMENTS, st.data())
def test_a_window_is_the_same_in_whatever_order_its_records_came(
    moments: list[tuple[int, str]], data: st.DataObject
) -> None:
    def ring_of(order: list[tuple[int, str]]) -> Counters:
        ring = Counters()
        for at_ms, name in order:
            ring.add(HOUR, at_ms, name)
        ring.late = 0  # how much came too late is what depends on the order
        return ring

    assert ring_of(data.draw(st.permutations(moments))) == ring_of(moments)


def test_what_leaves_a_window_is_handed_over_once() -> None:
    ring = Sketches()
    for at_ms in (3, 25, 26):
        assert ring.add(HOUR, at_ms, ONE)
    assert count(ring.merged()) == 3
    assert ring.advance(HOUR, 69) == {}
    assert ring.advance(HOUR, 1_000) == {0: ONE, 20: Histogram(buckets={5: 2})}
    assert ring.merged() == Histogram()
    assert ring.advance(HOUR, 2_000) == {}


def test_a_measurement_from_before_the_window_is_not_taken() -> None:
    ring = Sketches()
    ring.advance(HOUR, 100)
    assert not ring.add(HOUR, 5, ONE)
    assert ring == Sketches(now_ms=100, late=1)


@pytest.mark.parametrize(
    ("window_ms", "bucket_ms"),
    [(86_400_000, 1_800_000), (600_000, 12_500), (1, 1), (49, 2)],
)
def test_a_span_has_at_most_48_buckets(window_ms: int, bucket_ms: int) -> None:
    assert Span.of(window_ms) == Span(window_ms, bucket_ms)


def test_an_entry_that_was_read_is_nobody_elses() -> None:
    windows: dict[str, bytes] = {}
    entry = load(windows, "rule/all", Counters)
    entry.add(HOUR, 5, "task")
    assert load(windows, "rule/all", Counters) == Counters()
    save(windows, "rule/all", entry)
    assert load(windows, "rule/all", Counters) == entry


def origin(offset: int, partition: int = 0, topic: str = "lifecycle") -> Origin:
    return Origin(topic, partition, offset)


def test_a_signal_counts_once() -> None:
    windows: dict[str, bytes] = {}
    signals = [(3, 0), (3, 1), (3, 1), (4, 0), (3, 0), (4, 0), (9, 0)]
    counted_ones = [is_new(windows, origin(offset), index) for offset, index in signals]
    assert counted_ones == [True, True, False, True, False, False, True]


def test_partitions_and_topics_are_counted_apart() -> None:
    windows: dict[str, bytes] = {}
    assert is_new(windows, origin(9))
    assert is_new(windows, origin(3, partition=1))
    assert is_new(windows, origin(3, topic="decisions"))
    assert not is_new(windows, origin(3))


def test_scopes_have_a_bound_and_what_is_dropped_is_counted() -> None:
    windows: dict[str, bytes] = {}
    assert [admit(windows, "queue_depth", scope, 2) for scope in ("a", "b", "a", "c", "d")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert list(scopes_of(windows, "queue_depth")) == ["a", "b"]
    assert b'"dropped":2' in windows["scopes/queue_depth"]
    dismiss(windows, "queue_depth", "a")
    assert admit(windows, "queue_depth", "c", 2)
    assert list(scopes_of(windows, "queue_depth")) == ["b", "c"]
    assert list(scopes_of(windows, "another")) == []
