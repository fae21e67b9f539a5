"""Each source is judged by its own past; what is far too slow for long opens the breaker, once."""

import pytest

from schemas.fields import Mode
from streams.budget.alert_rules import AlertRules
from streams.budget.policy import policy_from_toml
from streams.insight import sources
from streams.insight.look import OpenBreaker
from streams.insight.monitors import dropped
from streams.insight.windows import SCOPES_MAX
from tests.unit.budget.world import START_MS
from tests.unit.insight.signalling import Monitors, Teller, monitored


def rules(text: str) -> AlertRules:
    return policy_from_toml(text, "policy.toml").alerts


def test_a_queue_of_more_than_30_tasks_is_an_alert_until_it_is_25() -> None:
    said = monitored("""
        tick
        heard enforcer-1 queue=30
        heard enforcer-1 queue=31        → queue_depth enforcer-1 firing 1
        heard enforcer-2 queue=40        → queue_depth enforcer-2 firing 1
        heard enforcer-1 queue=26
        heard enforcer-1
        heard enforcer-1 queue=25        → queue_depth enforcer-1 resolved 2
        heard enforcer-1 queue=1
    """).messages
    assert said == [
        "31 tasks wait at enforcer-1",
        "40 tasks wait at enforcer-2",
        "25 tasks wait at enforcer-1",
    ]


def test_a_source_that_says_nothing_more_has_no_queue() -> None:
    said = monitored("""
        tick
        heard enforcer-1 queue=31        → queue_depth enforcer-1 firing 1
        tick +29m
        tick +1m                         → queue_depth enforcer-1 resolved 2
        tick +1m
    """).messages
    assert said[-1] == "enforcer-1 has said nothing for 30 min: its queue is not counted"


def test_any_batch_that_failed_is_an_alert_until_none_has_for_a_while() -> None:
    said = monitored("""
        tick
        heard ledger-1 failed=0
        heard ledger-1 failed=1          → ledger_write_failures ledger-1 firing 1
        heard ledger-1 failed=2 +5m
        tick +14m
        tick +2m                         → ledger_write_failures ledger-1 resolved 2
    """).messages
    assert said == [
        (
            "1 batch of ledger-1 failed in 15 min; what was not committed is folded again: "
            "stoploss doctor says whether it goes on"
        ),
        "no batch of ledger-1 has failed for 15 min",
    ]


USUAL = """
    tick
    heard enforcer-1 ms=300×100
    heard enforcer-1 ms=300×100 +30m
    tick +11m
"""


def test_transitions_that_take_longer_than_they_used_to_are_an_alert() -> None:
    said = monitored(f"""
        {USUAL}
        heard enforcer-1 ms=350×49
        heard enforcer-1 ms=350×1        # 1.17 times as long
        heard enforcer-1 ms=400×10       → transition_latency enforcer-1 firing 1
        heard enforcer-1 ms=300×9000 +5m → transition_latency enforcer-1 resolved 2
    """).messages
    assert said == [
        (
            "enforcer-1: phase transitions take 399 ms at p95, 1.3 times the 302 ms of before "
            "(60 in 10 min)"
        ),
        (
            "enforcer-1: phase transitions take 302 ms at p95, 1.0 times the 302 ms of before "
            "(9,060 in 10 min)"
        ),
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("heard enforcer-1 ms=900×1000", id="a source of which nothing was known"),
        pytest.param(
            "heard enforcer-1 ms=300×49 \ntick +11m\nheard enforcer-1 ms=900×99", id="little known"
        ),
        pytest.param(f"{USUAL}\nheard enforcer-1 ms=900×49", id="few measured"),
        pytest.param(f"{USUAL}\nheard enforcer-2 ms=900×99", id="another source's past"),
        pytest.param(
            "tick\nheard enforcer-1 ms=0×100\ntick +11m\nheard enforcer-1 ms=9×99",
            id="no time at all before",
        ),
    ],
)
def test_what_is_not_judged_by_its_past(text: str) -> None:
    monitored(text)


def test_a_window_with_nothing_in_it_resolves() -> None:
    said = monitored(f"""
        {USUAL}
        heard enforcer-1 ms=500×50       → transition_latency enforcer-1 firing 1
        tick +12m                        → transition_latency enforcer-1 resolved 2
    """).messages
    assert said[-1] == "enforcer-1: 0 phase transitions in 10 min, too few to judge"


def test_what_was_slow_does_not_become_normal() -> None:
    slow = "heard enforcer-1 ms=500×50 +5m\n" * 20
    monitored(f"""
        {USUAL}
        heard enforcer-1 ms=500×50       → transition_latency enforcer-1 firing 1
        {slow}
        heard enforcer-1 ms=500×50 +5m
    """)


def test_until_nothing_else_is_remembered_and_it_is_learnt_anew() -> None:
    slow = "heard enforcer-1 ms=500×50 +10m\n"
    monitors = Monitors(rules("[alerts.transition_latency]\nbaseline_ms = 86400000"))
    teller = Teller()
    monitors.take(teller.told(f"{USUAL}{slow * 6 * 23}"))
    assert monitors.edges == ["transition_latency enforcer-1 firing 1"]
    monitors.take(teller.told(slow * 6 * 3))
    assert monitors.edges[1:] == ["transition_latency enforcer-1 resolved 2"]


def test_a_source_that_is_so_slow_that_it_does_little_stays_an_alert() -> None:
    monitored(f"""
        {USUAL}
        heard enforcer-1 ms=900×60       → transition_latency enforcer-1 firing 1
        heard enforcer-1 ms=900×2 +8m
        heard enforcer-1 ms=900×2 +4m    → breaker_open enforcer-1 firing 1; observe because of enforcer-1
        heard enforcer-1 ms=900×2 +4m
        tick +12m                        → transition_latency enforcer-1 resolved 2; breaker_open enforcer-1 resolved 2
    """)


def test_late_transitions_belong_to_the_time_before() -> None:
    monitored("""
        tick
        heard enforcer-1 ms=300×100 own=-1h
        heard enforcer-1 ms=500×50       → transition_latency enforcer-1 firing 1
        heard enforcer-1 ms=500×5000 own=-1h
        heard enforcer-1 ms=500×50
    """)


def test_far_too_slow_for_longer_than_ten_minutes_opens_the_breaker_once() -> None:
    monitors = monitored(f"""
        {USUAL}
        heard enforcer-1 ms=900×60       → transition_latency enforcer-1 firing 1
        heard enforcer-1 ms=900×60 +5m
        heard enforcer-1 ms=900×60 +5m   # for ten minutes, not longer
        tick +1s                         → breaker_open enforcer-1 firing 1; observe because of enforcer-1
        heard enforcer-1 ms=900×60 +5m
        heard enforcer-1 ms=500×9000 +1m # 1.7 times: not yet well
        heard enforcer-1 ms=400×990000 +1m → breaker_open enforcer-1 resolved 2
        heard enforcer-1 ms=300×90000000 +1m → transition_latency enforcer-1 resolved 2
    """)
    (effect,) = (one for one in monitors.outcomes if isinstance(one, OpenBreaker))
    at_ms = START_MS + (30 + 11 + 10) * 60_000 + 1_000
    assert effect == OpenBreaker(
        key=f"breaker-999e28c9-{START_MS}-1",
        source="enforcer-1",
        at_ms=at_ms,
        mode=Mode.OBSERVE,
        reason=(
            "enforcer-1: phase transitions take 907 ms at p95, 3.0 times the 302 ms of before "
            "(180 in 10 min), for more than 10 min: enforcement is switched off"
        ),
    )
    assert effect.event_id(3) == f"breaker-999e28c9-{START_MS}-1-3"
    assert monitors.messages[2] == (
        "enforcer-1: phase transitions take 399 ms at p95, 1.3 times the 302 ms of before "
        "(999,120 in 10 min); enforcement stays off until somebody says otherwise: "
        "stoploss mode enforce --reason …"
    )


def test_a_break_begins_the_ten_minutes_anew() -> None:
    monitored(f"""
        {USUAL}
        heard enforcer-1 ms=900×60       → transition_latency enforcer-1 firing 1
        heard enforcer-1 ms=450×9000 +9m
        heard enforcer-1 ms=900×90000 +1m
        tick +9m
    """)


def test_what_waited_is_judged_in_its_own_time_whatever_others_were_told_before() -> None:
    """After an outage the ledger's topics are read before `health`, or after it."""
    told = f"""
        {USUAL}
        heard enforcer-1 ms=900×60       → transition_latency enforcer-1 firing 1
        begin own=+3h
        heard enforcer-1 ms=900×60 own=+1m
        heard enforcer-1 ms=900×60 own=+11m → breaker_open enforcer-1 firing 1; observe because of enforcer-1
        heard enforcer-1 ms=300×60 own=+22m → transition_latency enforcer-1 resolved 2; breaker_open enforcer-1 resolved 2
        tick +3h
    """
    monitored(told)
    monitored(told.replace("begin own=+3h", ""))


def test_sources_have_a_bound_and_one_that_is_gone_makes_room() -> None:
    monitors = Monitors()
    monitors.take(Teller().told("tick\n"))
    crowd = "".join(f"heard s{number} queue=1\n" for number in range(SCOPES_MAX + 1))
    monitors.take(Teller().told(crowd))
    assert dropped(monitors.windows) == {"sources": 1}
    assert sum(key.startswith("source/") for key in monitors.windows) == SCOPES_MAX
    monitors.take(Teller().told("tick +7d\n"))
    assert sum(key.startswith("source/") for key in monitors.windows) == 0


def test_a_source_whose_alert_fires_is_not_forgotten() -> None:
    short = rules("[alerts.queue_depth]\nsilent_ms = 864000000")
    monitors = monitored(
        """
        tick
        heard enforcer-1 queue=31        → queue_depth enforcer-1 firing 1
        tick +8d
        tick +2d                         → queue_depth enforcer-1 resolved 2
        """,
        short,
    )
    assert "source/enforcer-1" not in monitors.windows


def test_a_tick_in_which_nothing_changes_writes_nothing() -> None:
    monitors = Monitors()
    monitors.take(Teller().told(f"{USUAL}\nheard enforcer-1 queue=31\nbegin\ncalls 5\n"))
    before = dict(monitors.windows)
    monitors.take(Teller().told("tick +42m\n"))
    changed = [key for key, value in monitors.windows.items() if before.get(key) != value]
    assert sorted(changed) == ["clock", "clock/sources"]


def test_how_much_of_a_source_is_kept_is_bounded() -> None:
    assert sources.RECENT_BUCKETS + sources.BASELINE_BUCKETS < 40
