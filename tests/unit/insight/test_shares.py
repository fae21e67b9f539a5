"""Shares over all tasks are judged where enough was counted, and do not flap."""

from tests.unit.insight.signalling import monitored


def test_more_than_a_tenth_of_the_tasks_at_block_is_an_alert_until_it_is_less() -> None:
    monitored("""
        begin ×60
        block ×6                         # 10 %: at the threshold, not above it
        block                            → stop_loss_rate all firing 1
        block ×3
        begin ×40                        # 10 of 100: what fired does not flap
        begin ×24
        begin                            → stop_loss_rate all resolved 2
        block ×2
        block                            → stop_loss_rate all firing 3
    """)


def test_of_a_few_tasks_no_share_is_judged() -> None:
    monitored("""
        begin ×19
        block ×19
        begin                            → stop_loss_rate all firing 1
    """)


def test_time_alone_resolves_what_nobody_adds_to() -> None:
    said = monitored("""
        begin ×20
        block ×5                         → stop_loss_rate all firing 1
        tick  +24h
        begin +20m ×3
        tick  +10m                       → stop_loss_rate all resolved 2
    """).messages
    assert said == [
        (
            "3 tasks came to block in 24 h, or would have, while 20 began: 15 %; "
            "are the limits what tasks of this kind need? stoploss tasks --all shows them"
        ),
        "3 tasks began in 24 h: too few to judge how many come to block",
    ]


def test_a_start_that_completes_one_is_no_second_task() -> None:
    monitored("""
        begin ×20
        late  ×20
        block ×2
        block                            → stop_loss_rate all firing 1
    """)


def test_a_late_record_counts_where_it_belongs_and_one_from_long_ago_nowhere() -> None:
    monitored("""
        tick
        begin ×20 own=-23h
        block ×3 own=-25h
        block ×2 own=-1h
        block own=-1h                    → stop_loss_rate all firing 1
        tick +90m                        → stop_loss_rate all resolved 2
    """)


def test_calls_whose_usage_is_unknown_or_estimated_are_missing() -> None:
    said = monitored("""
        calls 99 unknown=99
        calls 1 estimated=1              → usage_missing all firing 1
        calls 400                        # 20 %
        calls 100
        calls 70                         → usage_missing all resolved 2
        calls 0 unknown=40               → usage_missing all firing 3
        tick  +25h                       → usage_missing all resolved 4
    """).messages
    assert said == [
        ("100 of 100 model calls in 24 h lack their usage (99 unknown, 1 estimated): 100 %"),
        "100 of 670 model calls in 24 h lack their usage (99 unknown, 1 estimated): 14 %",
        "140 of 670 model calls in 24 h lack their usage (139 unknown, 1 estimated): 20 %",
        "0 model calls in 24 h: too few to judge how many lack their usage",
    ]
