"""Numbers as people read them."""

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.fields import Metric, Number
from streams.insight.numbers import (
    amount,
    compact,
    counted,
    duration,
    metric_name,
    percent,
    period,
    ratio_of,
    share_of,
)


@pytest.mark.parametrize(
    ("passed_ms", "shown"),
    [
        (0, "0.0 s"),
        (9_949, "9.9 s"),
        (10_000, "10 s"),
        (59_999, "59 s"),
        (200_000, "3 m 20 s"),
        (7_500_000, "2 h 5 m"),
        (273_600_000, "3 d 4 h"),
    ],
)
def test_a_duration_is_said_in_its_two_largest_units(passed_ms: int, shown: str) -> None:
    assert duration(passed_ms) == shown


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [
        (0, "0"),
        (99_999, "99,999"),
        (100_000, "100k"),
        (999_999, "999k"),
        (1_239_999, "1.23M"),
        (Decimal("12345.678"), "12,345"),
    ],
)
def test_many_tokens_are_rounded_down(tokens: Number, shown: str) -> None:
    assert compact(tokens) == shown


def test_one_is_not_said_as_many() -> None:
    assert [counted(count, "file") for count in (0, 1, 1_200)] == [
        "0 files",
        "1 file",
        "1,200 files",
    ]
    assert counted(1, "event waits", "events wait") == "1 event waits"
    assert counted(2, "event waits", "events wait") == "2 events wait"


@pytest.mark.parametrize(
    ("length_ms", "shown"),
    [
        (28 * 86_400_000, "28 days"),
        (86_400_000, "24 h"),
        (5_400_000, "90 min"),
        (600_000, "10 min"),
        (1_000, "1 s"),
        (1_500, "1,500 ms"),
    ],
)
def test_a_period_is_said_in_its_largest_whole_unit(length_ms: int, shown: str) -> None:
    assert period(length_ms) == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(None, "–"), (0.0, "0 %"), (0.8999, "89 %"), (12.0, "1,200 %")]
)
def test_a_share_shows_90_percent_only_when_it_is_reached(share: float | None, shown: str) -> None:
    assert percent(share) == shown


@given(used=st.integers(0, 10**18), limit=st.integers(1, 10**18))
@example(used=89_996, limit=100_000)
def test_a_share_of_a_limit_is_exact_and_rounded_down(used: int, limit: int) -> None:
    """In per cent as in the 4 decimals of the wire: neither says what has not been reached."""
    assert percent(share_of(used, limit)) == f"{used * 100 // limit:,} %"
    assert percent(share_of(Decimal(used) / 1000, Decimal(limit) / 1000)) == (
        f"{used * 100 // limit:,} %"
    )
    assert ratio_of(used, limit) == used * 10_000 // limit / 10_000


@given(places=st.integers(0, 10**9))
@example(places=2_900)
@example(places=11_300)
def test_a_ratio_that_is_read_as_a_float_shows_the_percentage_it_was_written_with(
    places: int,
) -> None:
    assert percent(places / 10_000) == f"{places // 100:,} %"


def test_where_there_is_no_limit_there_is_no_share_of_it() -> None:
    for limit in (None, 0):
        assert (share_of(5, limit), ratio_of(5, limit)) == (None, None)


@pytest.mark.parametrize(
    ("value", "metric", "shown"),
    [
        (12_345, Metric.TOKENS, "12,345"),
        (61_000, Metric.LATENCY_MS, "1 m 1 s"),
        (Decimal("1234.567"), Metric.COST_USD, "$1,234.57"),
    ],
)
def test_an_amount_is_said_in_the_unit_of_its_metric(
    value: Number, metric: Metric, shown: str
) -> None:
    assert amount(value, metric) == shown


def test_a_metric_is_named_without_its_unit() -> None:
    assert [metric_name(metric) for metric in Metric] == ["tokens", "latency", "cost"]
