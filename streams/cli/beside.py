"""What `doctor` says of the parts beside the ledger: the view, the alerts, the agents, the latencies."""

from collections.abc import Collection, Iterable, Mapping

import msgspec
from msgspec import UNSET, Struct, UnsetType

from schemas.alerts import Severity
from schemas.envelope import epoch_ms_of, rfc3339
from schemas.errors import InvalidFieldError, UnavailableError
from schemas.topics import SPECS
from streams.agents.delivery.sinks import GROUP, TOPICS, load_sinks
from streams.agents.lag import Standings, opened
from streams.agents.registry import AGENTS
from streams.agents.restarts import TOPIC, Restarts, read_restarts
from streams.agents.stages import Agent
from streams.agents.waiting import waiting
from streams.cli.edges import AlertRow, by_severity
from streams.cli.findings import Finding
from streams.cli.sources import ASKED_FOR
from streams.cli.view import RUN_A_VIEW, NoView, View
from streams.insight.numbers import counted
from streams.insight.times import ago, instant
from streams.kafka.settings import Settings
from streams.view.answers import Quantiles

# As of the ledger: a moment's records are no lag.
LAG_RECORDS_MAX = 10_000
# Alerts and ends of tasks are rarer: so many do not come in a moment.
SINK_LAG_MAX = 1_000
# The hour that runs may have begun just now.
HOURS = 2


class ViewFacts(Struct, frozen=True, kw_only=True):
    """How the view is: `lag` counts records not shown yet; None is not known.

    `why`: it cannot be read, or is too old; None where it is as it should be.
    """

    age_ms: int | None = None
    lag: int | None = None
    why: str | None = None


class Latencies(Struct, frozen=True, kw_only=True):
    """How long the ledger's commits and the phase transitions took in the last hours, in ms."""

    commit_ms: Quantiles
    transition_ms: Quantiles


class SinkFacts(Struct, frozen=True, kw_only=True):
    """How far the delivery to a sink is behind, in records.

    `lag` is None where nobody has ever delivered to it, or it cannot be asked; `why` says the latter.
    """

    name: str
    lag: int | None
    why: str | None = None


class AgentFacts(Struct, frozen=True, kw_only=True):
    """How far an agent is behind, in records.

    `lag` is None where it has never run, or cannot be asked.

    `restarts` counts the workers that its supervisor had to replace since it began (`since`), the last
    one at `restarted` and for the reason `restarted_because`; of the last week. `restarts_unknown`
    is there where that cannot be read, and says why.
    """

    name: str
    lag: int | None
    why: str | None = None
    restarts: int = 0
    since: str | None = None
    restarted: str | None = None
    restarted_because: str | None = None
    restarts_unknown: str | UnsetType = UNSET


def view_facts(found: View | NoView) -> ViewFacts | None:
    """Return how the view is; None where nobody looked."""
    if isinstance(found, NoView):
        return None if found.why == ASKED_FOR else ViewFacts(why=found.why)
    return ViewFacts(age_ms=found.freshness.age_ms, lag=found.freshness.lag, why=found.too_old)


def view_findings(found: View | NoView) -> list[Finding]:
    """Name what is wrong with the view; where nobody runs one, nothing is."""
    if isinstance(found, NoView):
        return [Finding("view", found.why, found.remedy)] if found.is_expected else []
    findings = []
    if found.too_old is not None:
        findings.append(Finding("view", found.too_old, RUN_A_VIEW))
    if unreadable := found.freshness.unreadable:
        listed = ", ".join(f"{count} of {topic}" for topic, count in sorted(unreadable.items()))
        findings.append(
            Finding(
                "view",
                f"records could not be read: {listed}",
                "use the same version of stoploss as the ledger, then stoploss view --rebuild",
            )
        )
    return findings


async def latencies(found: View | NoView) -> Latencies | None:
    """Return what the view knows of latencies; None where there is none.

    Raises:
        RedisUnavailableError: it has gone away.
    """
    if isinstance(found, NoView):
        return None
    health = await found.queries.health(HOURS)
    return Latencies(commit_ms=health.commit_ms, transition_ms=health.transition_ms)


def alert_findings(firing: Iterable[AlertRow]) -> list[Finding]:
    """Name the alerts about the system; one about a task is not what is wrong with the system."""
    of_system = [
        each for each in firing if each.task_id is None and each.severity is not Severity.INFO
    ]
    if not of_system:
        return []
    counts = ", ".join(
        f"{count} {severity.value}" for severity, count in by_severity(of_system).items()
    )
    names = ", ".join(dict.fromkeys(each.name for each in of_system))
    return [Finding("alerts", f"firing: {counts} ({names})", "stoploss alerts")]


async def agents_facts(settings: Settings, partitions: int) -> list[AgentFacts]:
    """Return how far each agent is behind in its sources, and how often it was restarted.

    Each for itself: who may not read the one may still be told the other.

    Args:
        settings: where Kafka is.
        partitions: of `events`.
    """
    facts = await _lags(settings, partitions)
    try:
        return with_restarts(facts, await read_restarts(settings))
    except UnavailableError as error:
        return with_restarts(facts, error)


async def _lags(settings: Settings, partitions: int) -> list[AgentFacts]:
    try:
        async with opened(settings, "doctor") as standings:
            return [
                await _agent(standings, agent, partitions) for _, agent in sorted(AGENTS.items())
            ]
    except UnavailableError as error:
        return [AgentFacts(name=name, lag=None, why=str(error)) for name in sorted(AGENTS)]


async def sinks_facts(settings: Settings) -> list[SinkFacts]:
    """Return how far the delivery to each sink is behind: those configured here, and who delivers now.

    Nothing where the sinks are configured wrongly; that is another finding.
    """
    try:
        names = {sink.name for sink in load_sinks()}
    except InvalidFieldError:
        names = set()
    try:
        async with opened(settings, "doctor") as standings:
            names |= {group.removeprefix(GROUP) for group in await standings.groups(GROUP)}
            return [
                SinkFacts(name=name, lag=await standings.behind(f"{GROUP}{name}", TOPICS))
                for name in sorted(names)
            ]
    except UnavailableError as error:
        return [SinkFacts(name=name, lag=None, why=str(error)) for name in sorted(names)]


async def _agent(standings: Standings, agent: Agent, partitions: int) -> AgentFacts:
    try:
        if not await standings.has_begun(agent.group):
            return AgentFacts(name=agent.name, lag=None)
        found = await standings.of(agent.group, _sources(agent, partitions))
    except UnavailableError as error:
        return AgentFacts(name=agent.name, lag=None, why=str(error))
    return AgentFacts(name=agent.name, lag=sum(waiting(agent, found).values()))


def with_restarts(
    facts: Iterable[AgentFacts], told: Mapping[str, Restarts] | UnavailableError
) -> list[AgentFacts]:
    """Add how often each agent was restarted, or why that is not known; their lags stay."""
    if isinstance(told, UnavailableError):
        return [msgspec.structs.replace(each, restarts_unknown=str(told)) for each in facts]
    return [_restarted(each, told.get(each.name)) for each in facts]


def _restarted(facts: AgentFacts, told: Restarts | None) -> AgentFacts:
    if told is None:
        return facts
    return msgspec.structs.replace(
        facts,
        restarts=told.count,
        since=rfc3339(told.since_ms),
        restarted=None if told.last_ms is None else rfc3339(told.last_ms),
        restarted_because=told.why,
    )


def behind_text(part: AgentFacts | SinkFacts) -> str:
    """Return how far an agent, or the delivery to a sink, is behind."""
    if part.why is not None:
        return "cannot be asked"
    return "has never run here" if part.lag is None else f"{counted(part.lag, 'record')} behind"


def agent_text(agent: AgentFacts, now_ms: int) -> str:
    """Return how far an agent is behind, and how often it had to be started again."""
    said = behind_text(agent)
    if agent.why is not None:
        return said
    if agent.restarts_unknown:
        return f"{said}; restarts cannot be read"
    if not agent.restarts or agent.since is None or agent.restarted is None:
        return said
    times = counted(agent.restarts, "time")
    last = ago(max(now_ms - epoch_ms_of(agent.restarted), 0))
    since = instant(agent.since)
    return f"{said}; restarted {times} since {since}, last {last}: {agent.restarted_because}"


def _sources(agent: Agent, partitions: int) -> list[tuple[str, int]]:
    """Return what an agent reads; its internal topics have one partition."""
    counts = {spec.topic.value: spec.partitions or partitions for spec in SPECS.values()}
    names = dict.fromkeys(source.topic for stage in agent.stages for source in stage.sources)
    return [(name, counts.get(name, 1)) for name in names]


def agent_findings(agents: Collection[AgentFacts]) -> list[Finding]:
    """Name the agents that are behind; one that nobody has ever run is none."""
    findings = []
    for each in agents:
        if each.why is not None:
            remedy = "let this user describe consumer groups and read the agents' topics"
            findings.append(Finding(f"agent {each.name}", each.why, remedy))
        elif each.lag is not None and each.lag > LAG_RECORDS_MAX:
            behind = f"it is {counted(each.lag, 'record')} behind"
            remedy = f"stoploss agents {each.name}, where none runs; else wait, its log says more"
            findings.append(Finding(f"agent {each.name}", behind, remedy))
    unknown = dict.fromkeys(each.restarts_unknown for each in agents if each.restarts_unknown)
    return findings + [
        Finding("agents' restarts", why, f"let this user read {TOPIC}") for why in unknown
    ]


def sink_findings(sinks: Iterable[SinkFacts]) -> list[Finding]:
    """Name the sinks to which delivery is behind; one that was told nothing yet is none."""
    findings = []
    for each in sinks:
        if each.why is not None:
            remedy = "let this user describe consumer groups and read alerts and reports"
            findings.append(Finding(f"sink {each.name}", each.why, remedy))
        elif each.lag is not None and each.lag > SINK_LAG_MAX:
            behind = f"delivery to it is {counted(each.lag, 'record')} behind"
            remedy = "stoploss agents, where none runs; else its log says what the sink answers"
            findings.append(Finding(f"sink {each.name}", behind, remedy))
    return findings
