"""What counts as wrong of the view, the alerts and the agents."""

import pytest

from schemas.alerts import AlertState, Severity
from schemas.envelope import epoch_ms_of
from schemas.errors import UnavailableError
from streams.agents.restarts import Restarts
from streams.cli.beside import (
    LAG_RECORDS_MAX,
    SINK_LAG_MAX,
    AgentFacts,
    SinkFacts,
    ViewFacts,
    agent_findings,
    agent_text,
    alert_findings,
    sink_findings,
    view_facts,
    view_findings,
    with_restarts,
)
from streams.cli.edges import AlertRow
from streams.cli.findings import Finding
from streams.cli.sources import ASKED_FOR
from streams.cli.view import NoView


def row(name: str, severity: Severity, task_id: str | None = None) -> AlertRow:
    return AlertRow(
        name=name,
        scope="all",
        state=AlertState.FIRING,
        severity=severity,
        since="2026-11-22T21:00:00.000Z",
        time="2026-11-22T21:00:00.000Z",
        value=31.0,
        threshold=30.0,
        message="31 tasks wait",
        task_id=task_id,
        number=1,
    )


@pytest.mark.parametrize(
    ("firing", "problems"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([row("told", Severity.INFO)], [], id="what nobody has to look at"),
        pytest.param(
            [row("budget_breach", Severity.CRITICAL, "T")], [], id="a task's is not the system's"
        ),
        pytest.param(
            [
                row("ledger_write_failures", Severity.CRITICAL),
                row("queue_depth", Severity.WARNING),
                row("queue_depth", Severity.WARNING),
            ],
            ["firing: 1 critical, 2 warning (ledger_write_failures, queue_depth)"],
            id="the system's, each name once",
        ),
    ],
)
def test_an_alert_about_the_system_is_wrong(firing: list[AlertRow], problems: list[str]) -> None:
    assert [each.problem for each in alert_findings(firing)] == problems


@pytest.mark.parametrize(
    ("agent", "problems"),
    [
        pytest.param(AgentFacts(name="a", lag=None), [], id="one that has never run"),
        pytest.param(AgentFacts(name="a", lag=LAG_RECORDS_MAX), [], id="a moment's records"),
        pytest.param(
            AgentFacts(name="a", lag=12_345), ["it is 12,345 records behind"], id="one behind"
        ),
        pytest.param(
            AgentFacts(name="a", lag=None, why="Kafka at k: no rights"),
            ["Kafka at k: no rights"],
            id="one that cannot be asked",
        ),
    ],
)
def test_an_agent_that_is_behind_is_wrong(agent: AgentFacts, problems: list[str]) -> None:
    found = agent_findings([agent])
    assert [each.problem for each in found] == problems
    assert {each.about for each in found} <= {"agent a"}


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        pytest.param(AgentFacts(name="a", lag=None), "has never run here", id="nobody has run it"),
        pytest.param(AgentFacts(name="a", lag=0), "0 records behind", id="it runs"),
        pytest.param(
            AgentFacts(name="a", lag=None, why="no rights"), "cannot be asked", id="it is not known"
        ),
        pytest.param(
            AgentFacts(name="a", lag=0, since="2026-11-22T20:00:00.000Z"),
            "0 records behind",
            id="it has never been started again",
        ),
        pytest.param(
            AgentFacts(
                name="a",
                lag=1,
                restarts=2,
                since="2026-11-22T20:00:00.000Z",
                restarted="2026-11-22T20:57:00.000Z",
                restarted_because="worker ended with -9",
            ),
            "1 record behind; restarted 2 times since 2026-11-22T20:00:00Z, last 3 min ago: "
            "worker ended with -9",
            id="it has died and come back",
        ),
    ],
)
def test_an_agent_that_died_and_came_back_says_so(agent: AgentFacts, said: str) -> None:
    assert agent_text(agent, epoch_ms_of("2026-11-22T21:00:00.000Z")) == said
    assert agent_findings([agent]) == [] or agent.why is not None


def test_that_restarts_cannot_be_read_hides_no_lag_and_is_one_finding() -> None:
    facts = [AgentFacts(name="a", lag=5), AgentFacts(name="b", lag=None)]
    found = with_restarts(facts, UnavailableError("no rights"))
    assert [each.lag for each in found] == [5, None]
    assert [agent_text(each, 0) for each in found] == [
        "5 records behind; restarts cannot be read",
        "has never run here; restarts cannot be read",
    ]
    assert agent_findings(found) == [
        Finding("agents' restarts", "no rights", "let this user read agents-restarts")
    ]
    told = {"a": Restarts(agent="a", host="h", since_ms=0, count=2, last_ms=0, why="ended")}
    assert [each.restarts for each in with_restarts(facts, told)] == [2, 0]


@pytest.mark.parametrize(
    ("sink", "problems"),
    [
        pytest.param(SinkFacts(name="s", lag=None), [], id="one that was told nothing yet"),
        pytest.param(SinkFacts(name="s", lag=SINK_LAG_MAX), [], id="a moment's notices"),
        pytest.param(
            SinkFacts(name="s", lag=1_234),
            ["delivery to it is 1,234 records behind"],
            id="one behind",
        ),
        pytest.param(
            SinkFacts(name="s", lag=None, why="Kafka at k: no rights"),
            ["Kafka at k: no rights"],
            id="one that cannot be asked",
        ),
    ],
)
def test_a_sink_that_is_told_too_late_is_wrong(sink: SinkFacts, problems: list[str]) -> None:
    found = sink_findings([sink])
    assert [each.problem for each in found] == problems
    assert {each.about for each in found} <= {"sink s"}


def test_a_view_is_missed_only_where_somebody_runs_one() -> None:
    expected = NoView("Redis does not answer", "start Redis")
    assert view_findings(expected) == [Finding("view", "Redis does not answer", "start Redis")]
    nobodys = NoView(expected.why, expected.remedy, is_expected=False)
    assert view_findings(nobodys) == []
    assert view_facts(nobodys) == ViewFacts(why="Redis does not answer")


def test_nothing_is_said_of_a_view_that_nobody_looked_at() -> None:
    assert view_facts(NoView(ASKED_FOR, "", is_expected=False)) is None
