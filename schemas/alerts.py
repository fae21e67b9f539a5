"""What `alerts` holds: each alert once when it fires, and once when it is resolved."""

import enum

from msgspec import Struct

from schemas.fields import Name, Offset, Ordinal, Partition, Text


class AlertState(enum.StrEnum):
    """Whether what an alert is about holds now."""

    FIRING = "firing"
    RESOLVED = "resolved"


class Severity(enum.StrEnum):
    """Who should look: nobody at once, somebody today, somebody now."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Origin(Struct, frozen=True):
    """The record of one of our topics (its name without the prefix) that something follows from."""

    topic: str
    partition: Partition
    offset: Offset


class Alert(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Edge-triggered: `firing` once, `resolved` once.

    `number` counts the edges of one name and scope from 1: odd ones fire, even ones resolve, so that
    a reader tells a repeated record from a new one. `since` is when it began to fire, RFC 3339.
    `value` and `threshold` are in the unit that `message` names.
    """

    name: Name
    scope: Name
    state: AlertState
    value: float
    threshold: float
    message: Text
    severity: Severity
    number: Ordinal
    since: str
    task_id: str | None = None
    origin: Origin | None = None


ALERT_TYPES: dict[str, type[Struct]] = {"stoploss.alert": Alert}
