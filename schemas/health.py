"""What `health` holds: how enforcers and ledgers are."""

from msgspec import Struct

from schemas.fields import Count, Name
from schemas.sketches import Histogram


class EmitterHealth(Struct, frozen=True, kw_only=True):
    """How the emitter of an enforcer is: events waiting, on disk, lost for want of room."""

    queued: Count
    spooled: Count
    dropped: Count


class LedgerHealth(Struct, frozen=True, kw_only=True):
    """How a ledger process was since its last record: batches that failed, and how long commits took."""

    batches: Count
    batch_failures: Count
    commit_ms: Histogram


class Health(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an enforcer or a ledger is.

    `queue_depth` counts tasks that wait; `transition_ms` are the phase transitions since the last
    record of this source.
    """

    source: Name
    queue_depth: Count | None = None
    transition_ms: Histogram | None = None
    emitter: EmitterHealth | None = None
    ledger: LedgerHealth | None = None


HEALTH_TYPES: dict[str, type[Struct]] = {"stoploss.health": Health}
