"""An alert is an edge: it fires once, and is resolved once.

A value that stays at the threshold must not flap: what fires at one value is resolved only at
another one, further away. Source: budget model, "Alerts".
"""

from msgspec import UNSET, Struct, UnsetType

from schemas.alerts import Alert, AlertState, Origin, Severity
from schemas.envelope import Envelope, rfc3339

SOURCE = "stoploss-agents"
TYPE = "stoploss.alert"


class Rule(Struct, frozen=True, kw_only=True):
    """When an alert fires and when it is resolved, both in the unit of its value.

    It fires at a value above `fires_above`, and is resolved at one of at most `resolves_at`.
    """

    name: str
    severity: Severity
    fires_above: float
    resolves_at: float

    def __post_init__(self) -> None:
        assert self.resolves_at <= self.fires_above, self


class Standing(Struct, kw_only=True, omit_defaults=True):
    """Where the alert of one name and scope stands: `number` of its last edge, odd while it fires."""

    number: int = 0
    since_ms: int = 0

    @property
    def is_firing(self) -> bool:
        """Whether its last edge was `firing`."""
        return self.number % 2 == 1


class Occasion(Struct, frozen=True, kw_only=True):
    """What is judged, in whose light, and which record made us look.

    `index` is the place of the edge among those that one record causes: with `origin` it makes the
    id, so that a record that is read again causes the same ids. `traceparent` is that record's, where
    it alone is the reason, and is carried on.
    """

    scope: str
    value: float
    message: str
    at_ms: int
    origin: Origin
    index: int = 0
    task_id: str | None = None
    traceparent: str | UnsetType = UNSET


def judge(rule: Rule, standing: Standing, occasion: Occasion) -> Envelope[Alert] | None:
    """Change `standing` where the value crosses; return the edge, or None where there is none."""
    threshold = rule.resolves_at if standing.is_firing else rule.fires_above
    return turn(rule, standing, occasion, fires=occasion.value > threshold)


def turn(
    rule: Rule, standing: Standing, occasion: Occasion, *, fires: bool
) -> Envelope[Alert] | None:
    """Change `standing` to what more than a value has decided; return the edge, or None."""
    if standing.is_firing == fires:
        return None
    standing.number += 1
    if fires:
        standing.since_ms = occasion.at_ms
    return _edge(rule, standing, occasion)


def _edge(rule: Rule, standing: Standing, occasion: Occasion) -> Envelope[Alert]:
    origin = occasion.origin
    return Envelope(
        id=f"{origin.topic}-{origin.partition}-{origin.offset}-{rule.name}-{occasion.index}",
        source=SOURCE,
        type=TYPE,
        subject=f"{rule.name}/{occasion.scope}",
        time=rfc3339(occasion.at_ms),
        traceparent=occasion.traceparent,
        data=Alert(
            name=rule.name,
            scope=occasion.scope,
            state=AlertState.FIRING if standing.is_firing else AlertState.RESOLVED,
            value=occasion.value,
            threshold=rule.fires_above if standing.is_firing else rule.resolves_at,
            message=occasion.message,
            severity=rule.severity,
            number=standing.number,
            since=rfc3339(standing.since_ms),
            task_id=occasion.task_id,
            origin=origin,
        ),
    )
