"""Answers about blocks are counted by tier, whatever comes first, and the last one stands."""

import pytest

from streams.insight import answers
from streams.insight.monitors import dropped
from tests.unit.insight.signalling import Monitors, Teller, monitored

TEN = "".join(f"class 0-{number}-0 high/large\n" for number in range(10))
RIGHT = "".join(f"answer 0-{number}-0 right\n" for number in range(2, 10))


def test_more_than_a_tenth_of_a_tiers_answers_is_an_alert() -> None:
    said = monitored(f"""
        {TEN}
        {RIGHT}
        answer 0-0-0 false
        answer 0-1-0 false               → false_positive_rate high/large firing 1
        answer 0-1-0 right
        answer 0-0-0 right               → false_positive_rate high/large resolved 2
    """).messages
    assert said == [
        (
            "2 of 10 answers about blocks of high/large tasks in 28 days call them false: 20 %; "
            "the tier's thresholds may be too tight"
        ),
        "0 of 10 answers about blocks of high/large tasks in 28 days call them false: 0 %",
    ]


def test_an_answer_may_come_before_its_block() -> None:
    monitored(f"""
        {RIGHT}
        answer 0-0-0 false
        answer 0-1-0 false
        {TEN.strip()}                    → false_positive_rate high/large firing 1
    """)


def test_a_block_is_of_the_tier_that_its_task_had_last_before_it() -> None:
    monitored(f"""
        {TEN}
        {RIGHT}
        answer 0-0-0 false
        answer 0-1-0 false               → false_positive_rate high/large firing 1
        class 0-0-0 low/large as_of=5    → false_positive_rate high/large resolved 2
        class 0-0-0 high/large as_of=3   # older: it was reclassified since
    """)


def test_time_alone_resolves_it() -> None:
    said = monitored(f"""
        {TEN}
        {RIGHT}
        answer 0-0-0 false
        answer 0-1-0 false               → false_positive_rate high/large firing 1
        tick +28d
        tick +1d                         → false_positive_rate high/large resolved 2
        tick +1d
    """).messages
    assert said[-1] == "0 answers about blocks of high/large tasks in 28 days: too few to judge"


def test_what_is_kept_of_blocks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "SHELVES", 1)
    monitors = Monitors()
    monitors.take(Teller().told("".join(f"class 0-{n}-0 low/tiny +1s\n" for n in range(20))))
    assert dropped(monitors.windows) == {"blocks": 4}
    kept = monitors.windows["blocks/0"]
    assert b'"0-3-0"' not in kept
    assert b'"0-4-0"' in kept


def test_tiers_that_nobody_has_made_up_room_for_are_not_counted() -> None:
    monitors = Monitors()
    text = "".join(f"answer 0-{n}-0 false\nclass 0-{n}-0 made/up{n}\n" for n in range(300))
    monitors.take(Teller().told(text))
    assert sum(key.startswith("false_positive_rate/") for key in monitors.windows) == 256


def test_an_answer_from_the_future_counts_as_of_now() -> None:
    answers = "".join(
        f"class 0-{n}-0 low/tiny\nanswer 0-{n}-0 false own=+10000d\n" for n in range(10)
    )
    monitors = Monitors()
    monitors.take(Teller().told(f"tick\n{answers}tick +29d\n"))
    assert monitors.edges == [
        "false_positive_rate low/tiny firing 1",
        "false_positive_rate low/tiny resolved 2",
    ]
