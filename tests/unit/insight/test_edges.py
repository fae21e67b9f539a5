"""An alert is an edge: it fires once, is resolved once, and does not flap between two thresholds."""

import pytest
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from schemas.alerts import AlertState, Origin, Severity
from streams.insight.edges import Occasion, Rule, Standing, judge, turn

RULE = Rule(name="queue_depth", severity=Severity.WARNING, fires_above=30, resolves_at=25)
ORIGIN = Origin("health", 0, 7)


def occasion(value: float, at_ms: int = 0) -> Occasion:
    return Occasion(scope="all", value=value, message=f"{value}", at_ms=at_ms, origin=ORIGIN)


@pytest.mark.parametrize(
    ("values", "edges"),
    [
        pytest.param([30, 30], [], id="the threshold itself does not fire"),
        pytest.param([31, 40, 31], [31], id="it fires once"),
        pytest.param([31, 30, 26, 31], [31], id="between the thresholds it stays as it was"),
        pytest.param([31, 25, 26, 30], [31, 25], id="it is resolved once"),
        pytest.param([31, 0, 31, 0], [31, 0, 31, 0], id="and may come again"),
    ],
)
def test_where_a_value_crosses(values: list[float], edges: list[float]) -> None:
    standing = Standing()
    found = [judge(RULE, standing, occasion(value)) for value in values]
    assert [edge.data.value for edge in found if edge is not None] == edges
    assert [edge.data.number for edge in found if edge is not None] == list(
        range(1, len(edges) + 1)
    )


def test_an_edge_says_since_when_and_which_threshold() -> None:
    standing = Standing()
    fired = judge(RULE, standing, occasion(31, at_ms=1_000))
    resolved = judge(RULE, standing, occasion(20, at_ms=5_000))
    assert fired is not None
    assert resolved is not None
    assert (fired.id, fired.time) == ("health-0-7-queue_depth-0", "1970-01-01T00:00:01.000Z")
    assert (fired.data.state, fired.data.threshold) == (AlertState.FIRING, 30)
    assert (resolved.data.state, resolved.data.threshold) == (AlertState.RESOLVED, 25)
    assert fired.data.since == resolved.data.since == "1970-01-01T00:00:01.000Z"


@pytest.mark.parametrize(
    "traceparent", [UNSET, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]
)
def test_an_edge_carries_the_trace_that_it_is_given(traceparent: str | UnsetType) -> None:
    fired = judge(RULE, Standing(), replace(occasion(31), traceparent=traceparent))
    assert fired is not None
    assert fired.traceparent == traceparent


def test_what_more_than_a_value_decides_is_an_edge_as_well() -> None:
    standing = Standing()
    assert turn(RULE, standing, occasion(99), fires=False) is None
    assert turn(RULE, standing, occasion(0), fires=True) is not None
    assert turn(RULE, standing, occasion(0), fires=True) is None
    assert turn(RULE, standing, occasion(99), fires=False) is not None


def test_a_rule_that_could_flap_is_none() -> None:
    with pytest.raises(AssertionError):
        Rule(name="x", severity=Severity.INFO, fires_above=1, resolves_at=2)
