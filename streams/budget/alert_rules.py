"""When alerts fire: thresholds that a policy may change, and what holds where it does not.

A policy without a table `[alerts]` is normalised without one: policies are named by a hash of their
content, and the hashes of those that were there before stay. Source: budget model, "Alerts".
"""

import tomllib
from decimal import ROUND_DOWN, Decimal
from functools import cache
from importlib.resources import files

from msgspec import Struct

from streams.budget.policy_reader import Document, Reader

TABLE = "alerts"
MULTIPLE_MAX = 100  # of a baseline
TASKS_MAX = 1_000_000
REPORTS_MAX = 1_000_000
COUNT_MAX = 1_000_000_000
PERIOD_MS_MAX = 90 * 24 * 3_600_000  # what alerts follow from is kept no longer
PLACES = 4


class ShareRule(Struct, frozen=True, kw_only=True):
    """A share of what was counted in a window; judged where that is at least `count_min`."""

    fires_above: float
    resolves_at: float
    window_ms: int
    count_min: int


class TransitionRule(Struct, frozen=True, kw_only=True):
    """The p95 of a source's phase transitions, as a multiple of that of the time before."""

    fires_above: float
    resolves_at: float
    window_ms: int
    count_min: int
    baseline_ms: int


class BreakerRule(Struct, frozen=True, kw_only=True):
    """The same multiple; it has to stay above for longer than `after_ms`."""

    fires_above: float
    resolves_at: float
    after_ms: int


class QueueRule(Struct, frozen=True, kw_only=True):
    """Tasks that wait at a source; one that is silent for `silent_ms` has no queue any more."""

    fires_above: float
    resolves_at: float
    silent_ms: int


class FailureRule(Struct, frozen=True, kw_only=True):
    """Any failure fires; a time of `quiet_ms` without one resolves."""

    quiet_ms: int


class InflationRule(Struct, frozen=True, kw_only=True):
    """The share of critical tasks, judged where at least `count_min` began in the window.

    What it fires above is the policy's `governance.critical_share_max`; it is resolved at
    `resolves_part` of that.
    """

    resolves_part: float
    window_ms: int
    count_min: int


class AccessRule(Struct, frozen=True, kw_only=True):
    """Reports that one reader has read in a window."""

    fires_above: float
    resolves_at: float
    window_ms: int


class AlertRules(Struct, frozen=True, kw_only=True):
    """The thresholds of all alerts over many tasks, by the alert's name."""

    stop_loss_rate: ShareRule
    false_positive_rate: ShareRule
    usage_missing: ShareRule
    transition_latency: TransitionRule
    breaker_open: BreakerRule
    queue_depth: QueueRule
    ledger_write_failures: FailureRule
    importance_inflation: InflationRule
    access_anomaly: AccessRule


@cache
def default_alert_rules() -> AlertRules:
    """Return what holds where a policy says nothing."""
    return _read(Reader(_defaults(), TABLE, []))


def read_alert_rules(policy: Reader) -> AlertRules:
    """Return the rules of a policy; errors go where the policy's go.

    The whole table is in the normalised policy if the policy has any of it, else nothing is.
    """
    if TABLE not in policy.table:
        return default_alert_rules()
    reader = Reader(_filled(policy.table[TABLE]), policy.name(TABLE), policy.errors)
    policy.out[TABLE] = reader.out
    return _read(reader)


@cache
def _defaults() -> Document:
    text = files("streams.budget").joinpath("alerts.toml").read_text(encoding="utf-8")
    return tomllib.loads(text, parse_float=Decimal)


def _filled(own: object) -> object:
    """Fill in what is not named, but for what resolves an alert, where that moves with the rest."""
    if not isinstance(own, dict):
        return own
    filled = dict(own)
    for name, ours in _defaults().items():
        table = own.get(name, {})
        if isinstance(table, dict):
            moves = "fires_above" in table
            table = {key: ours[key] for key in ours if key != "resolves_at" or not moves} | table
        filled[name] = table
    return filled


def _read(reader: Reader) -> AlertRules:
    rules = AlertRules(
        stop_loss_rate=_share(reader, "stop_loss_rate"),
        false_positive_rate=_share(reader, "false_positive_rate"),
        usage_missing=_share(reader, "usage_missing"),
        transition_latency=_transition(reader, "transition_latency"),
        breaker_open=_breaker(reader, "breaker_open"),
        queue_depth=_queue(reader, "queue_depth"),
        ledger_write_failures=_failure(reader, "ledger_write_failures"),
        importance_inflation=_inflation(reader, "importance_inflation"),
        access_anomaly=_access(reader, "access_anomaly"),
    )
    reader.finish()
    return rules


def _share(rules: Reader, name: str) -> ShareRule:
    reader = rules.child(name)
    fires_above, resolves_at = _thresholds(reader, name, at_most=1)
    rule = ShareRule(
        fires_above=fires_above,
        resolves_at=resolves_at,
        window_ms=reader.whole("window_ms", 1, PERIOD_MS_MAX),
        count_min=reader.whole("count_min", 1, COUNT_MAX),
    )
    reader.finish()
    return rule


def _transition(rules: Reader, name: str) -> TransitionRule:
    reader = rules.child(name)
    fires_above, resolves_at = _thresholds(reader, name, at_most=MULTIPLE_MAX)
    rule = TransitionRule(
        fires_above=fires_above,
        resolves_at=resolves_at,
        window_ms=reader.whole("window_ms", 1, PERIOD_MS_MAX),
        count_min=reader.whole("count_min", 1, COUNT_MAX),
        baseline_ms=reader.whole("baseline_ms", 1, PERIOD_MS_MAX),
    )
    reader.finish()
    return rule


def _breaker(rules: Reader, name: str) -> BreakerRule:
    reader = rules.child(name)
    fires_above, resolves_at = _thresholds(reader, name, at_most=MULTIPLE_MAX)
    rule = BreakerRule(
        fires_above=fires_above,
        resolves_at=resolves_at,
        after_ms=reader.whole("after_ms", 1, PERIOD_MS_MAX),
    )
    reader.finish()
    return rule


def _queue(rules: Reader, name: str) -> QueueRule:
    reader = rules.child(name)
    fires_above, resolves_at = _thresholds(reader, name, at_most=TASKS_MAX)
    rule = QueueRule(
        fires_above=fires_above,
        resolves_at=resolves_at,
        silent_ms=reader.whole("silent_ms", 1, PERIOD_MS_MAX),
    )
    reader.finish()
    return rule


def _failure(rules: Reader, name: str) -> FailureRule:
    reader = rules.child(name)
    rule = FailureRule(quiet_ms=reader.whole("quiet_ms", 1, PERIOD_MS_MAX))
    reader.finish()
    return rule


def _inflation(rules: Reader, name: str) -> InflationRule:
    reader = rules.child(name)
    part = reader.decimal("resolves_part", above=0, at_most=1, places=PLACES)
    rule = InflationRule(
        resolves_part=float(part),
        window_ms=reader.whole("window_ms", 1, PERIOD_MS_MAX),
        count_min=reader.whole("count_min", 1, COUNT_MAX),
    )
    reader.finish()
    return rule


def _access(rules: Reader, name: str) -> AccessRule:
    reader = rules.child(name)
    fires_above, resolves_at = _thresholds(reader, name, at_most=REPORTS_MAX)
    rule = AccessRule(
        fires_above=fires_above,
        resolves_at=resolves_at,
        window_ms=reader.whole("window_ms", 1, PERIOD_MS_MAX),
    )
    reader.finish()
    return rule


def _thresholds(reader: Reader, name: str, *, at_most: int) -> tuple[float, float]:
    fires_above = reader.decimal("fires_above", above=0, at_most=at_most, places=PLACES)
    if "resolves_at" not in reader.table:
        resolves_at = _resolution(fires_above, _defaults()[name])
        reader.out["resolves_at"] = resolves_at
        return float(fires_above), float(resolves_at)
    resolves_at = reader.decimal("resolves_at", at_least=0, at_most=at_most, places=PLACES)
    if resolves_at > fires_above:
        reader.refuse("resolves_at", resolves_at, f"at most fires_above, {fires_above:f}")
    return float(fires_above), float(resolves_at)


def _resolution(fires_above: Decimal, ours: Document) -> Decimal:
    """Return what resolves an alert, as far from what fires it as by default."""
    proportion = Decimal(ours["resolves_at"]) / Decimal(ours["fires_above"])
    exponent = Decimal(1).scaleb(-PLACES)
    return (fires_above * proportion).quantize(exponent, ROUND_DOWN).normalize()
