"""One look at the windows: in whose light, at what time, because of which record."""

from dataclasses import dataclass, field

from msgspec import Struct

from schemas.alerts import Alert, Origin
from schemas.envelope import Envelope
from schemas.fields import Mode
from streams.budget.alert_rules import AlertRules
from streams.budget.governance_rules import GovernanceRules
from streams.insight.edges import Occasion, Rule, Standing, turn
from streams.insight.windows import Windows


class OpenBreaker(Struct, frozen=True, kw_only=True):
    """Enforcement is to be switched off: a `stoploss.mode.set` by `breaker` for every partition.

    Their ids follow from `key`, so that however often this is done, it happens once.
    """

    key: str
    source: str
    at_ms: int
    reason: str
    mode: Mode = Mode.OBSERVE

    def event_id(self, partition: int) -> str:
        """Return the id of the event for a partition."""
        return f"{self.key}-{partition}"


Outcome = Envelope[Alert] | OpenBreaker


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is judged now, and what came of it.

    `origin` is the record that made us look; `at_ms` is when that happened, `now_ms` the clock. Where
    only time passed, what has not changed need not be judged again, unless other rules hold now.
    """

    windows: Windows
    rules: AlertRules
    governance: GovernanceRules
    now_ms: int
    at_ms: int
    origin: Origin
    rules_changed: bool = False
    outcomes: list[Outcome] = field(default_factory=list)

    def judge(
        self, rule: Rule, standing: Standing, scope: str, value: float, message: str
    ) -> Envelope[Alert] | None:
        """Note the edge that a value causes, and return it."""
        threshold = rule.resolves_at if standing.is_firing else rule.fires_above
        return self.turn(rule, standing, scope, value, message, fires=value > threshold)

    def turn(
        self,
        rule: Rule,
        standing: Standing,
        scope: str,
        value: float,
        message: str,
        *,
        fires: bool,
        task_id: str | None = None,
    ) -> Envelope[Alert] | None:
        """Note the edge that somebody has decided on, and return it."""
        occasion = Occasion(
            scope=scope,
            value=value,
            message=message,
            at_ms=self.now_ms,
            origin=self.origin,
            index=len(self.outcomes),
            task_id=task_id,
        )
        edge = turn(rule, standing, occasion, fires=fires)
        if edge is not None:
            self.outcomes.append(edge)
        return edge
