"""What people want to know about alerts: those that fire now, and the last edges. Pure."""

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from schemas.alerts import Alert, AlertState, Severity
from schemas.envelope import Envelope
from streams.cli.facts import AnsweredFrom

EDGES_SHOWN = 50
WORST_FIRST = (Severity.CRITICAL, Severity.WARNING, Severity.INFO)


class AlertRow(Struct, frozen=True, kw_only=True):
    """One alert that fires, or one edge of it; see `Alert` for what the fields say.

    `time` is that of the edge, `since` when it began to fire; both RFC 3339.
    """

    name: str
    scope: str
    state: AlertState
    severity: Severity
    since: str
    time: str
    value: float
    threshold: float
    message: str
    task_id: str | None
    number: int


class AlertsAnswer(Struct, frozen=True, kw_only=True):
    """What `stoploss alerts` shows: what fires, the worst first; and edges, the newest first."""

    firing: list[AlertRow]
    recent: list[AlertRow]
    source: AnsweredFrom | None = None


class Edges:
    """What `alerts` says, record by record: the last edge of each alert, and the newest ones.

    Args:
        newest: how many edges are remembered.
    """

    def __init__(self, newest: int = 0) -> None:
        self._newest = newest
        self._last: dict[str, Envelope[Alert]] = {}
        self._edges: dict[tuple[str, str, int], Envelope[Alert]] = {}

    def __repr__(self) -> str:
        return f"<Edges alerts={len(self._last)}>"

    def take(self, key: str, edge: Envelope[Alert] | None) -> None:
        """Remember an edge; None says that the alert has gone."""
        if edge is None:
            self._last.pop(key, None)
            return
        self._last[key] = edge
        if self._newest:
            # An agent that has died may say an edge again: by its number it is the same one.
            self._edges[_edge_of(edge.data)] = edge
            if len(self._edges) > 2 * self._newest:
                self._edges = {_edge_of(each.data): each for each in self.recent}

    @property
    def firing(self) -> list[Envelope[Alert]]:
        """Those whose last edge says that they fire."""
        return [each for each in self._last.values() if each.data.state is AlertState.FIRING]

    @property
    def recent(self) -> list[Envelope[Alert]]:
        """The newest edges, the newest first."""
        return _newest_first(self._edges.values())[: self._newest]


def alerts_answer(
    firing: Iterable[Envelope[Alert]], recent: Iterable[Envelope[Alert]]
) -> AlertsAnswer:
    """Return both, each in its order."""
    return AlertsAnswer(
        firing=[_row(each) for each in sorted(firing, key=_worst_first)],
        recent=[_row(each) for each in _newest_first(recent)],
    )


def by_severity(alerts: Iterable[AlertRow]) -> dict[Severity, int]:
    """Count alerts, the worst first."""
    counts = Counter(each.severity for each in alerts)
    return {severity: counts[severity] for severity in WORST_FIRST if severity in counts}


def _row(edge: Envelope[Alert]) -> AlertRow:
    data = edge.data
    return AlertRow(
        name=data.name,
        scope=data.scope,
        state=data.state,
        severity=data.severity,
        since=data.since,
        time=edge.time,
        value=data.value,
        threshold=data.threshold,
        message=data.message,
        task_id=data.task_id,
        number=data.number,
    )


def _edge_of(alert: Alert) -> tuple[str, str, int]:
    return alert.name, alert.scope, alert.number


def _worst_first(edge: Envelope[Alert]) -> tuple[int, str, str, str]:
    data = edge.data
    return WORST_FIRST.index(data.severity), data.since, data.name, data.scope


def _newest_first(edges: Iterable[Envelope[Alert]]) -> list[Envelope[Alert]]:
    by_name = sorted(edges, key=lambda each: (each.data.name, each.data.scope))
    return sorted(by_name, key=lambda each: (each.time, each.data.number), reverse=True)
