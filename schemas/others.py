"""What others than the ledger publish: health of enforcers, feedback, alerts."""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.fields import Count, Name, Text

HISTOGRAM_BUCKETS_MAX = 4_096


class Histogram(Struct, frozen=True, kw_only=True):
    """Log buckets with 1 % relative error: counts by bucket index merge exactly, percentiles do not.

    Bucket `i` holds values in (gamma^(i-1), gamma^i] milliseconds, gamma = (1 + 0.01) / (1 - 0.01);
    `zeros` holds what is at most `1e-3` ms.
    """

    relative_error: float = 0.01
    zeros: Count = 0
    buckets: Annotated[dict[int, Count], Meta(max_length=HISTOGRAM_BUCKETS_MAX)] = {}


class EmitterHealth(Struct, frozen=True, kw_only=True):
    """How the emitter of an enforcer is: events waiting, on disk, lost for want of room."""

    queued: Count
    spooled: Count
    dropped: Count


class Health(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an enforcer is: queue, latency of its phase transitions, emitter."""

    source: Name
    queue_depth: Count | None = None
    transition_ms: Histogram | None = None
    emitter: EmitterHealth | None = None


class Feedback(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person's or enforcer's answer to: was this block a false positive?"""

    task_id: Name
    decision_id: Name
    false_positive: bool
    by: Name
    text: Text | None = None


class Alert(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Edge-triggered: `firing` once, `resolved` once."""

    name: Name
    scope: Name
    state: Annotated[str, Meta(pattern="^(firing|resolved)$")]
    value: float
    threshold: float
    message: Text
    severity: Annotated[str, Meta(pattern="^(info|warning|critical)$")]


OTHER_TYPES: dict[str, type[Struct]] = {
    "stoploss.health": Health,
    "stoploss.feedback": Feedback,
    "stoploss.alert": Alert,
}
