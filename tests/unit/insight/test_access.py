"""One who reads many reports at once is looked at; most people read a few."""

from streams.insight import windows
from streams.insight.monitors import Clock, dropped
from streams.insight.windows import load
from tests.unit.budget.world import START_MS
from tests.unit.insight.signalling import monitored


def test_more_reports_than_a_person_reads_in_an_hour_are_an_alert() -> None:
    said = monitored("""
        tick
        reads ann ×60
        reads bob ×30
        reads ann                        → access_anomaly ann firing 1
        reads ann ×20
        tick +30m
        tick +40m                        → access_anomaly ann resolved 2
    """).messages
    assert said == [
        "ann has read 61 reports in 1 h; stoploss audit shows which",
        "ann has read 0 reports in 1 h",
    ]


def test_what_fired_does_not_flap() -> None:
    monitored("""
        tick
        reads ann ×30
        tick +30m
        reads ann ×41                    → access_anomaly ann firing 1
        tick +31m
        reads ann
        tick +1m
        tick +30m                        → access_anomaly ann resolved 2
    """)


def test_a_reader_that_dates_a_report_in_the_future_moves_no_clock() -> None:
    monitors = monitored("""
        tick
        reads ann ×60 own=+9d
        reads ann                        → access_anomaly ann firing 1
    """)
    assert load(monitors.windows, "clock", Clock).now_ms == START_MS


def test_whoever_reads_nothing_any_more_makes_room_one_that_has_fired_later() -> None:
    monitors = monitored("""
        tick
        reads bob
        reads ann ×61                    → access_anomaly ann firing 1
        tick +2h                         → access_anomaly ann resolved 2
    """)
    assert "access_anomaly/bob" not in monitors.windows
    assert "access_anomaly/ann" in monitors.windows
    monitors = monitored("""
        tick
        reads ann ×61                    → access_anomaly ann firing 1
        tick +2h                         → access_anomaly ann resolved 2
        reads ann ×61                    → access_anomaly ann firing 3
        tick +2h                         → access_anomaly ann resolved 4
        tick +7d
    """)
    assert [key for key in monitors.windows if key.startswith("access_anomaly/")] == []


def test_readers_have_a_bound_and_those_beyond_it_are_counted() -> None:
    names = "\n".join(f"reads somebody-{number}" for number in range(windows.SCOPES_MAX + 2))
    assert dropped(monitored(f"tick\n{names}").windows) == {"readers": 2}
