"""What the queries answer: the same Structs for the command line, `--json` and the web."""

from msgspec import Struct

from schemas.alerts import Alert
from schemas.audit import Audit
from schemas.envelope import Envelope
from schemas.fields import Mode
from schemas.health import Health
from schemas.outputs import Breach, Decision, ExecutionRecord, Lifecycle
from schemas.quantiles import count, quantiles
from schemas.reports import Report
from schemas.sketches import Histogram
from schemas.state import PartitionStateData, TaskStateData
from streams.view.meta import State


class PartitionLag(Struct, frozen=True, kw_only=True):
    """How far one partition is: `topic` without its prefix, `lag` in records."""

    topic: str
    partition: int
    next_offset: int
    lag: int
    newest: str | None  # when the newest record that is shown was written


class Freshness(Struct, frozen=True, kw_only=True):
    """How old the view is.

    Everything that was written before `shown` is there; `age_ms` is since then, None as long as a
    rebuild goes on. `unreadable` counts records that were left out, by topic, since the last rebuild.
    """

    state: State
    shown: str | None
    age_ms: int | None
    lag: int
    cluster: str
    why: str  # of the last rebuild
    partitions: list[PartitionLag]
    unreadable: dict[str, int]


class ListedTask(Struct, frozen=True, kw_only=True):
    """A task and its share of its token limit."""

    task_id: str
    share: float
    partition: int
    state: TaskStateData


class TasksPage(Struct, frozen=True, kw_only=True):
    """Some tasks, the nearest to its limit first; `total` counts all of them."""

    total: int
    first: int
    tasks: list[ListedTask]


class TaskFound(Struct, frozen=True, kw_only=True):
    """Everything about one task; `state` is None when it has left the ledger, after its retention.

    The lists are in the order in which things happened, at most the last 64 of each.
    """

    task_id: str
    partition: int | None
    state: TaskStateData | None
    partition_state: PartitionStateData | None
    executions: list[Envelope[ExecutionRecord]]
    decisions: list[Envelope[Decision]]
    breaches: list[Envelope[Breach]]
    changes: list[Envelope[Lifecycle]]
    children: list[str]
    report: Envelope[Report] | None


class Quantiles(Struct, frozen=True, kw_only=True):
    """How many there were, and what half, 95 % and 99 % of them stay below; 1 % relative error.

    In the unit of the histogram; None where there were none.
    """

    count: int
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


def quantiles_of(histogram: Histogram) -> Quantiles:
    """Return the quantiles of what was measured, whatever indices come from outside."""
    p50, p95, p99 = quantiles((histogram,), (0.5, 0.95, 0.99))
    return Quantiles(count=count(histogram), p50=p50, p95=p95, p99=p99)


class SourceHealth(Struct, frozen=True, kw_only=True):
    """An enforcer or ledger, as it last said; quantiles are those of the hours asked for, in ms."""

    source: str
    time: str
    health: Health
    transition_ms: Quantiles
    commit_ms: Quantiles


class HealthAnswer(Struct, frozen=True, kw_only=True):
    """All sources, the last heard of first, and all of them together."""

    sources: list[SourceHealth]
    transition_ms: Quantiles
    commit_ms: Quantiles


class Share(Struct, frozen=True, kw_only=True):
    """How many used from `low` to below `high` of their token limit; `high` None: or more."""

    low: float
    high: float | None
    count: int


class Utilisation(Struct, frozen=True, kw_only=True):
    """How far limits are used: of open tasks, of those that ended lately, of finished executions."""

    open_tasks: list[Share]
    ended_tasks: list[Share]
    executions: list[Share]


class Total(Struct, frozen=True, kw_only=True):
    """What finished executions used, of one task type, owner, …; `value` None: they have none.

    `tasks` counts those that ended; a phase has none of its own. Tokens and dollars are exact.
    """

    value: str | None
    tasks: int
    executions: int
    metered_milli_tokens: int
    cost_nano_usd: int
    latency_ms: int
    model_calls: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    unknown_usage: int


class Beat(Struct, frozen=True, kw_only=True):
    """The last heartbeat of a partition."""

    partition: int
    time: str
    mode: Mode
    next_offset: int


class TaskBelow(Struct, frozen=True, kw_only=True):
    """A task below another one: its last changes, in order, and what has run of it."""

    task_id: str
    changes: list[Envelope[Lifecycle]]
    executions: list[Envelope[ExecutionRecord]]


class AuditAnswer(Struct, frozen=True, kw_only=True):
    """Who did what, the last one last.

    `all_since_ms`: of what was noted since then nothing is left out; 0 where that is everything.
    """

    entries: list[Envelope[Audit]]
    all_since_ms: int = 0


class AlertsAnswer(Struct, frozen=True, kw_only=True):
    """What fires now, and the last edges, the newest first."""

    firing: list[Envelope[Alert]]
    recent: list[Envelope[Alert]]
