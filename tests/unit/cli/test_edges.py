"""What fires now, and the last edges, from the records of `alerts`."""

from dataclasses import dataclass, field

import pytest

from schemas.alerts import Alert, AlertState, Severity
from schemas.envelope import Envelope
from streams.cli.edges import AlertRow, Edges, alerts_answer, by_severity
from streams.cli.watching import firing_text


def edge(
    name: str,
    number: int,
    *,
    scope: str = "all",
    severity: Severity = Severity.WARNING,
    second: int = 0,
) -> Envelope[Alert]:
    """Return an edge: odd numbers fire, even ones resolve."""
    time = f"2026-11-22T21:00:{second:02d}.000Z"
    return Envelope(
        id=f"{name}-{scope}-{number}",
        source="agents",
        type="stoploss.alert",
        subject=f"{name}/{scope}",
        time=time,
        data=Alert(
            name=name,
            scope=scope,
            state=AlertState.FIRING if number % 2 else AlertState.RESOLVED,
            value=31.0,
            threshold=30.0,
            message="31 tasks wait",
            severity=severity,
            number=number,
            since=time,
        ),
    )


@dataclass
class Topic:
    """Records of `alerts`, in their order."""

    edges: Edges = field(default_factory=lambda: Edges(3))

    def say(self, *said: Envelope[Alert]) -> "Topic":
        for each in said:
            self.edges.take(each.subject or "", each)
        return self

    @property
    def firing(self) -> list[tuple[str, str]]:
        answer = alerts_answer(self.edges.firing, ())
        return [(each.name, each.scope) for each in answer.firing]

    @property
    def recent(self) -> list[tuple[str, int]]:
        answer = alerts_answer((), self.edges.recent)
        return [(each.name, each.number) for each in answer.recent]


def test_an_alert_fires_from_its_odd_edge_to_its_even_one() -> None:
    topic = Topic().say(edge("queue_depth", 1), edge("stuck_task", 1, scope="T"))
    assert topic.firing == [("queue_depth", "all"), ("stuck_task", "T")]
    assert topic.say(edge("queue_depth", 2, second=1)).firing == [("stuck_task", "T")]


def test_an_alert_whose_record_was_deleted_is_gone() -> None:
    topic = Topic().say(edge("queue_depth", 1))
    topic.edges.take("queue_depth/all", None)
    topic.edges.take("never/seen", None)
    assert topic.firing == []


def test_the_worst_comes_first_then_what_has_fired_for_longest() -> None:
    topic = Topic().say(
        edge("young", 1, second=9),
        edge("told", 1, severity=Severity.INFO),
        edge("old", 1, second=1),
        edge("worst", 1, severity=Severity.CRITICAL, second=30),
    )
    assert [name for name, _ in topic.firing] == ["worst", "old", "young", "told"]
    counted = by_severity(alerts_answer(topic.edges.firing, ()).firing)
    assert list(counted.items()) == [
        (Severity.CRITICAL, 1),
        (Severity.WARNING, 2),
        (Severity.INFO, 1),
    ]


def test_of_very_many_edges_the_newest_stay() -> None:
    topic = Topic().say(*(edge("a", number, second=number) for number in range(1, 20)))
    assert topic.recent == [("a", 19), ("a", 18), ("a", 17)]


def test_an_edge_that_is_said_again_is_one_edge() -> None:
    topic = Topic().say(edge("a", 1), edge("a", 2, second=1), edge("a", 1), edge("a", 2, second=1))
    assert topic.recent == [("a", 2), ("a", 1)]
    assert topic.firing == []


def rows(*names: str) -> list[AlertRow]:
    edges = [edge(name, 1, scope=str(index)) for index, name in enumerate(names)]
    return alerts_answer(edges, ()).firing


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        pytest.param((), "", id="nothing fires: nothing is said"),
        pytest.param(("a",), " · firing: a", id="one"),
        pytest.param(("a", "b", "a"), " · firing: a ×2, b", id="one of them for two scopes"),
        pytest.param(("a", "b", "c", "d"), " · firing: a, b, c, …", id="more than there is room"),
        pytest.param(("a\x1b[2J",), " · firing: a�[2J", id="a name that would steer a terminal"),
    ],
)
def test_the_head_line_names_what_fires(names: tuple[str, ...], shown: str) -> None:
    assert firing_text(rows(*names)).plain == shown
