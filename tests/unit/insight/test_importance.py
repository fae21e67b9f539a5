"""The importance of tasks beside what is expected, and an alert where too many are critical."""

import msgspec

from schemas.fields import Importance
from streams.budget.alert_rules import default_alert_rules
from streams.budget.policy import builtin_policy
from streams.insight.importance import Distribution, ImportanceShare, distribution
from streams.insight.monitors import dropped, importance_now
from tests.unit.insight.signalling import monitored

RULE, EXPECTED = default_alert_rules().importance_inflation, builtin_policy().governance


def test_more_than_a_tenth_critical_is_an_alert_until_it_is_clearly_less() -> None:
    said = monitored("""
        is medium ×45
        is critical ×5                   # 10 %: at the threshold, not above it
        is critical                      → importance_inflation all firing 1
        is medium ×10                    # 6 of 61: what fired does not flap
        is medium ×13                    # 6 of 74 are more than 8 %
        is medium                        → importance_inflation all resolved 2
    """).messages
    assert said == [
        (
            "6 of 51 tasks that began in 7 days are critical: 11 %, where 5 % are expected; "
            "stoploss audit shows who said so, and why"
        ),
        "6 of 75 tasks that began in 7 days are critical: 8 %, where 5 % are expected",
    ]


def test_of_a_few_tasks_no_share_is_judged() -> None:
    monitored("""
        is critical ×19
        is critical                      → importance_inflation all firing 1
    """)


def test_a_task_that_is_classified_anew_counts_once_as_what_it_is_now() -> None:
    monitors = monitored("""
        is low ×20 ago=1h
        is critical was=low ×2 ago=1h
        is critical was=low ago=1h       → importance_inflation all firing 1
        is high was=critical ×2 ago=1h   → importance_inflation all resolved 2
    """)
    found = importance_now(monitors.windows)
    assert {one.importance.value: one.tasks for one in found.shares} == {
        "critical": 1,
        "high": 2,
        "medium": 0,
        "low": 17,
    }


def test_a_task_leaves_the_window_by_when_it_began_not_by_when_it_was_classified() -> None:
    said = monitored("""
        tick
        is low ×20
        tick +6d
        is critical was=low ×3 ago=6d    → importance_inflation all firing 1
        tick +2d                         → importance_inflation all resolved 2
    """)
    assert said.messages[-1] == ("0 tasks began in 7 days: too few to judge how many are critical")


def test_one_that_began_before_the_window_counts_nowhere() -> None:
    monitors = monitored("""
        tick
        is low ago=8d
        is critical was=low ago=8d
    """)
    assert importance_now(monitors.windows).tasks == 0
    assert dropped(monitors.windows) == {"late_classes": 2}


def test_a_distribution_has_the_expected_shares_beside_the_real_ones() -> None:
    counts = {"critical": 4, "high": 4, "medium": 8, "low": 4}
    found = distribution(counts, RULE, EXPECTED)
    assert found == Distribution(
        window_ms=7 * 86_400_000,
        tasks=20,
        is_judged=True,
        critical_share_max=0.1,
        drift=0.2,
        shares=[
            ImportanceShare(
                importance=Importance.CRITICAL, tasks=4, share=0.2, expected=0.05, drift=0.15
            ),
            ImportanceShare(
                importance=Importance.HIGH, tasks=4, share=0.2, expected=0.2, drift=0.0
            ),
            ImportanceShare(
                importance=Importance.MEDIUM, tasks=8, share=0.4, expected=0.6, drift=-0.2
            ),
            ImportanceShare(
                importance=Importance.LOW, tasks=4, share=0.2, expected=0.15, drift=0.05
            ),
        ],
    )
    assert msgspec.json.decode(msgspec.json.encode(found), type=Distribution) == found


def test_without_tasks_there_are_no_shares() -> None:
    found = distribution({"medium": -1}, RULE, EXPECTED)
    assert (found.tasks, found.is_judged, found.drift) == (0, False, None)
    assert [(one.tasks, one.share, one.drift) for one in found.shares] == [(0, None, None)] * 4
