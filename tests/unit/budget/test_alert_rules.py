"""A policy may have thresholds for alerts; one that has none stays what it was."""

import pytest

from streams.budget.alert_rules import (
    AccessRule,
    AlertRules,
    BreakerRule,
    FailureRule,
    InflationRule,
    QueueRule,
    ShareRule,
    TransitionRule,
    default_alert_rules,
)
from streams.budget.policy import (
    InvalidPolicyError,
    builtin_policy,
    policy_from_json,
    policy_from_toml,
    policy_json,
)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def rules(text: str) -> AlertRules:
    return policy_from_toml(text, "policy.toml").alerts


def test_the_defaults_are_those_of_the_budget_model() -> None:
    assert builtin_policy().alerts == default_alert_rules()
    assert default_alert_rules() == AlertRules(
        stop_loss_rate=ShareRule(fires_above=0.1, resolves_at=0.08, window_ms=DAY_MS, count_min=20),
        false_positive_rate=ShareRule(
            fires_above=0.1, resolves_at=0.08, window_ms=28 * DAY_MS, count_min=10
        ),
        usage_missing=ShareRule(fires_above=0.2, resolves_at=0.15, window_ms=DAY_MS, count_min=100),
        transition_latency=TransitionRule(
            fires_above=1.2,
            resolves_at=1.1,
            window_ms=600_000,
            count_min=50,
            baseline_ms=7 * DAY_MS,
        ),
        breaker_open=BreakerRule(fires_above=2, resolves_at=1.5, after_ms=600_000),
        queue_depth=QueueRule(fires_above=30, resolves_at=25, silent_ms=HOUR_MS // 2),
        ledger_write_failures=FailureRule(quiet_ms=HOUR_MS // 4),
        importance_inflation=InflationRule(resolves_part=0.8, window_ms=7 * DAY_MS, count_min=20),
        access_anomaly=AccessRule(fires_above=60, resolves_at=40, window_ms=HOUR_MS),
    )


@pytest.mark.parametrize(
    ("text", "policy_hash"),
    [
        pytest.param("", "c5b5333c558153f2", id="built-in"),
        pytest.param('version = "mine"', "79fa946960079aa7", id="one of somebody's own"),
    ],
)
def test_policies_from_before_the_table_keep_their_hash(text: str, policy_hash: str) -> None:
    policy = policy_from_toml(text, "policy.toml")
    assert policy.hash == policy_hash
    assert b'"alerts"' not in policy_json(policy)


def test_a_table_of_alerts_is_part_of_the_policy_and_travels_with_it() -> None:
    policy = policy_from_toml("[alerts.queue_depth]\nfires_above = 60", "policy.toml")
    again = policy_from_json(policy_json(policy), "event")
    assert again == policy
    assert again.alerts.queue_depth.fires_above == 60
    assert policy.hash != builtin_policy().hash


def test_a_table_that_says_what_holds_anyway_is_another_policy_with_the_same_rules() -> None:
    policy = policy_from_toml("[alerts]", "policy.toml")
    assert policy.alerts == default_alert_rules()
    assert policy.hash != builtin_policy().hash


def test_what_a_table_does_not_name_stays() -> None:
    found = rules(
        "[alerts.stop_loss_rate]\nwindow_ms = 3600000\n[alerts.breaker_open]\nafter_ms = 5"
    )
    assert found.stop_loss_rate == ShareRule(
        fires_above=0.1, resolves_at=0.08, window_ms=HOUR_MS, count_min=20
    )
    assert found.breaker_open == BreakerRule(fires_above=2, resolves_at=1.5, after_ms=5)
    assert found.usage_missing == default_alert_rules().usage_missing


@pytest.mark.parametrize(
    ("text", "resolves_at"),
    [
        pytest.param("fires_above = 60", 50, id="in proportion"),
        pytest.param("fires_above = 0.05", 0.0416, id="with four decimals, downwards"),
        pytest.param("fires_above = 60\nresolves_at = 60", 60, id="unless it is named"),
        pytest.param("resolves_at = 0", 0, id="it may be named alone"),
    ],
)
def test_what_resolves_an_alert_moves_with_what_fires_it(text: str, resolves_at: float) -> None:
    assert rules(f"[alerts.queue_depth]\n{text}").queue_depth.resolves_at == resolves_at


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param("alerts = 5", ["alerts: 5 is not allowed; use a table"], id="no table"),
        pytest.param(
            "[alerts]\nqueue_depth = 30",
            ["alerts.queue_depth: 30 is not allowed; use a table"],
            id="a number for an alert",
        ),
        pytest.param(
            "[alerts.stop_loss]\nfires_above = 0.1",
            [
                (
                    "alerts.stop_loss: {'fires_above': Decimal('0.1')} is not allowed; use one of: "
                    "stop_loss_rate, false_positive_rate, usage_missing, transition_latency, "
                    "breaker_open, queue_depth, ledger_write_failures, importance_inflation, "
                    "access_anomaly"
                )
            ],
            id="an alert that is none",
        ),
        pytest.param(
            "[alerts.usage_missing]\nfires_above = 20\ncount = 5",
            [
                (
                    "alerts.usage_missing.fires_above: 20 is not allowed; "
                    "use a number above 0, at most 1, with up to 4 decimals"
                ),
                (
                    "alerts.usage_missing.count: 5 is not allowed; "
                    "use one of: fires_above, resolves_at, window_ms, count_min"
                ),
            ],
            id="per cent, and a key that is none",
        ),
        pytest.param(
            "[alerts.queue_depth]\nresolves_at = 31",
            [
                "alerts.queue_depth.resolves_at: 31 is not allowed; use at most fires_above, 30",
            ],
            id="resolved above what fires",
        ),
        pytest.param(
            "[alerts.transition_latency]\nfires_above = inf\nbaseline_ms = 0",
            [
                (
                    "alerts.transition_latency.fires_above: inf is not allowed; "
                    "use a number above 0, at most 100, with up to 4 decimals"
                ),
                (
                    "alerts.transition_latency.baseline_ms: 0 is not allowed; "
                    "use a whole number from 1 to 7776000000"
                ),
            ],
            id="no number, no time",
        ),
        pytest.param(
            "[alerts.ledger_write_failures]\nquiet_ms = 7776000001",
            [
                (
                    "alerts.ledger_write_failures.quiet_ms: 7776000001 is not allowed; "
                    "use a whole number from 1 to 7776000000"
                )
            ],
            id="longer than records are kept",
        ),
        pytest.param(
            "[alerts.importance_inflation]\nfires_above = 0.2\nresolves_part = 1.1",
            [
                (
                    "alerts.importance_inflation.resolves_part: 1.1 is not allowed; "
                    "use a number above 0, at most 1, with up to 4 decimals"
                ),
                (
                    "alerts.importance_inflation.fires_above: 0.2 is not allowed; "
                    "use one of: resolves_part, window_ms, count_min"
                ),
            ],
            id="what governance says already, and a part that is more than all",
        ),
        pytest.param(
            "[alerts.access_anomaly]\nfires_above = 0\nwindow_ms = 1.5",
            [
                (
                    "alerts.access_anomaly.fires_above: 0 is not allowed; "
                    "use a number above 0, at most 1000000, with up to 4 decimals"
                ),
                (
                    "alerts.access_anomaly.window_ms: 1.5 is not allowed; "
                    "use a whole number from 1 to 7776000000"
                ),
            ],
            id="nobody may read, and half a millisecond",
        ),
        pytest.param(
            "[governance]\ncritical_share_max = 10\nreview_due_ms = 0",
            [
                (
                    "governance.critical_share_max: 10 is not allowed; "
                    "use a number above 0, at most 1, with up to 4 decimals"
                ),
                (
                    "governance.review_due_ms: 0 is not allowed; "
                    "use a whole number from 1 to 315360000000"
                ),
            ],
            id="per cent, and at once",
        ),
    ],
)
def test_what_is_wrong_is_said_with_field_value_and_what_is_allowed(
    text: str, lines: list[str]
) -> None:
    with pytest.raises(InvalidPolicyError) as refused:
        policy_from_toml(text, "policy.toml")
    assert refused.value.lines() == [f"policy.toml: {line}" for line in lines]
