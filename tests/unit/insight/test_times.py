"""A time has one form, wherever a command or a report shows one."""

import pytest

from streams.insight.times import ago, ago_of, instant


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        pytest.param("2026-11-26T17:30:05.999Z", "2026-11-26T17:30:05Z", id="cut, not rounded"),
        pytest.param("2026-11-26T17:30:05Z", "2026-11-26T17:30:05Z", id="as it is shown"),
        pytest.param("2026-11-26T18:30:05+01:00", "2026-11-26T17:30:05Z", id="in UTC"),
        pytest.param("2026-11-26T17:30:05", "2026-11-26T17:30:05", id="of no zone, so of no time"),
        pytest.param("this morning", "this morning", id="what somebody else has written"),
    ],
)
def test_a_time_is_shown_in_utc_to_the_second(time: str, shown: str) -> None:
    assert instant(time) == shown


@pytest.mark.parametrize(
    ("passed_ms", "shown"),
    [
        (0, "0 s ago"),
        (59_999, "59 s ago"),
        (60_000, "1 min ago"),
        (3_599_999, "59 min ago"),
        (3_600_000, "1 h ago"),
        (86_399_999, "23 h ago"),
        (200_000_000, "2 d ago"),
    ],
)
def test_an_age_is_in_its_largest_unit_and_rounded_down(passed_ms: int, shown: str) -> None:
    assert ago(passed_ms) == shown


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        pytest.param("1970-01-01T00:01:00.000Z", "1 min ago", id="a time"),
        pytest.param("1970-01-01T00:03:00.000Z", "0 s ago", id="of a clock that is ahead"),
        pytest.param("1970-01-01T00:01:00", "1970-01-01T00:01:00", id="of no zone"),
        pytest.param("this morning", "this morning", id="what somebody else has written"),
    ],
)
def test_how_long_ago_a_time_was_is_told_where_it_is_one(time: str, shown: str) -> None:
    assert ago_of(time, 120_000) == shown
