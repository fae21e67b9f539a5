"""`stoploss doctor`: what is wrong with a running system, each with the command that mends it."""

import shlex
import time
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

import msgspec
from msgspec import Struct
from rich.text import Text

from schemas.alerts import Severity
from schemas.errors import InvalidFieldError
from schemas.events import partition_subject
from schemas.fields import Mode
from schemas.outputs import PolicyRef
from schemas.state import TaskStateData
from schemas.topics import DAY_MS, OUTPUTS, Topic
from streams.agents.delivery.sinks import load_sinks
from streams.budget.restore import TornStateError, torn_in
from streams.cli.alerts import severities_text
from streams.cli.beside import (
    AgentFacts,
    Latencies,
    SinkFacts,
    ViewFacts,
    agent_findings,
    agent_text,
    agents_facts,
    alert_findings,
    behind_text,
    latencies,
    sink_findings,
    sinks_facts,
    view_facts,
    view_findings,
)
from streams.cli.edges import AlertRow, by_severity
from streams.cli.exits import AnswerIsNoError
from streams.cli.facts import ENDED, AnsweredFrom, From
from streams.cli.findings import Finding
from streams.cli.options import DEFAULT_DIR, TIMEOUT_S, Dir, FromPart, Json, TimeoutS
from streams.cli.place import Place
from streams.cli.reading import LOOKED_AT, Beat, LedgerView, Log, opened
from streams.cli.shot import ask_at
from streams.cli.show import console, plain, print_json, source_text, table
from streams.cli.sources import Source, answered, found_at
from streams.cli.view import START_REDIS, NoView, View
from streams.insight.numbers import counted, duration
from streams.insight.times import ago
from streams.kafka.settings import Settings, named_settings
from streams.kafka.topics import TopicsReport, create_or_check_topics
from streams.ledger.restore import lost_state
from streams.view.answers import Quantiles
from streams.view.store import RedisUnavailableError

LEDGER_SILENT_AFTER_MS = 30_000  # as enforcers judge it
# A ledger that keeps up is a batch behind at most; this many are more than a moment's.
LAG_EVENTS_MAX = 10_000
STUCK_AFTER_MS = 4 * 3_600_000  # of a policy that is not known any more
STUCK = "stuck"


class PartitionFacts(Struct, frozen=True, kw_only=True):
    """How a partition is; what is None was never seen. `lag` counts events not folded yet."""

    partition: int
    next_offset: int | None
    end_offset: int
    lag: int
    heartbeat_age_ms: int | None
    mode: Mode | None
    policy: PolicyRef | None


class DoctorAnswer(Struct, frozen=True, kw_only=True):
    """What `stoploss doctor` found.

    `dead_letters` by reason, of the last day; `alerts` that fire by severity; `view` is None where
    nobody looked at it, `latencies` where there is none.
    """

    bootstrap_servers: str
    topic_prefix: str
    partitions: list[PartitionFacts] = []
    open_tasks: int = 0
    dead_letters: dict[str, int] = {}
    view: ViewFacts | None = None
    latencies: Latencies | None = None
    alerts: dict[Severity, int] = {}
    agents: list[AgentFacts] = []
    sinks: list[SinkFacts] = []
    findings: list[Finding]
    source: AnsweredFrom | None = None


class LedgerSeen(NamedTuple):
    """What the view or the topics say of the ledger."""

    ledger: LedgerView
    firing: list[AlertRow]


def doctor(
    *,
    part: FromPart = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Look for what is wrong: topics, ledger, lag, stuck tasks, dead letters, view, alerts, agents.

    Exit code 1 where something is; each finding names the command that mends it.

    Example: stoploss doctor --json
    """
    answer = ask_at(folder, timeout_s, lambda place: _examine(place, part, timeout_s))
    if as_json:
        print_json(answer)
    else:
        _show(answer)
    if answer.findings:
        raise AnswerIsNoError(f"doctor: {len(answer.findings)} found")


async def _examine(place: Place, wanted: From | None, timeout_s: float) -> DoctorAnswer:
    settings = place.settings
    report = await _topics(settings)
    answer = DoctorAnswer(
        bootstrap_servers=settings.bootstrap_servers,
        topic_prefix=settings.topic_prefix,
        findings=[*_sink_findings(), *_topic_findings(report)],
    )
    if {settings.topic(topic) for topic in LOOKED_AT} & set(report.missing):
        return answer
    async with found_at(place, wanted) as found, opened(settings, LOOKED_AT) as log:
        # In `tasks` each record counts: what the view could not read is read here.
        asked = found if wanted is From.VIEW else _without_unreadable(found)
        seen, source = await answered(place, asked, _seen, wanted, timeout_s / 2)
        answer = msgspec.structs.replace(answer, source=source, view=view_facts(found))
        answer = await _with_ledger(answer, log, seen)
        return await _with_others(answer, log, found, seen)


def _without_unreadable(found: View | NoView) -> View | NoView:
    if isinstance(found, View) and found.freshness.unreadable.get(Topic.TASKS):
        return NoView("the view could not read records of tasks", "")
    return found


async def _seen(source: Source) -> LedgerSeen:
    return LedgerSeen(await source.ledger(), (await source.alerts()).firing)


async def _with_ledger(answer: DoctorAnswer, log: Log, seen: LedgerSeen) -> DoctorAnswer:
    """Add what there is to say of partitions, tasks and dead letters."""
    view = seen.ledger
    # When one was sent only its record in Kafka says: in it stands the time of the last event.
    beats = await log.heartbeats()
    now_ms = time.time_ns() // 1_000_000
    facts = [await _partition(log, view, beats, now_ms, each) for each in log.partitions]
    letters: Counter[str] = Counter()
    for partition in log.partitions:
        found = await log.dead_letters(partition, since_ms=now_ms - DAY_MS)
        letters.update(letter.reason for letter in found)
    torn = await _torn_findings(log, view, facts)
    findings = [*torn.values(), *_ledger_findings(facts, torn.keys()), *_agreement_findings(facts)]
    findings += [
        _stuck_finding(each.state)
        for _, each in sorted(view.tasks.items())
        if is_stuck(each.state, view, now_ms)
    ]
    if letters:
        findings.append(_letters_finding(letters))
    if view.unreadable and not torn:
        findings.append(
            Finding(
                log.settings.topic(Topic.TASKS),
                f"{counted(view.unreadable, 'record')} cannot be read",
                "use the same version of stoploss as the ledger, or a newer one",
            )
        )
    return msgspec.structs.replace(
        answer,
        partitions=facts,
        open_tasks=sum(each.state.status != ENDED for each in view.tasks.values()),
        dead_letters=dict(sorted(letters.items())),
        findings=[*answer.findings, *findings],
    )


async def _with_others(
    answer: DoctorAnswer, log: Log, found: View | NoView, seen: LedgerSeen
) -> DoctorAnswer:
    """Add what there is to say of the view, the alerts and the agents."""
    agents = await agents_facts(log.settings, len(log.partitions))
    sinks = await sinks_facts(log.settings)
    findings = [*view_findings(found), *alert_findings(seen.firing)]
    findings += [*agent_findings(agents), *sink_findings(sinks)]
    measured = None
    try:
        measured = await latencies(found)
    except RedisUnavailableError as error:  # since it was opened
        findings.append(Finding("view", str(error), START_REDIS))
    return msgspec.structs.replace(
        answer,
        alerts=by_severity(seen.firing),
        agents=agents,
        sinks=sinks,
        latencies=measured,
        findings=[*answer.findings, *findings],
    )


async def _topics(settings: Settings) -> TopicsReport:
    """Compare the topics; how many partitions is the operator's choice unless a setting says it."""
    report = await create_or_check_topics(settings, create=False)
    events = settings.topic(Topic.EVENTS)
    if "partitions" in named_settings() or events in report.missing:
        return report
    for difference in report.differences:
        if difference.topic == events and difference.setting == "partitions":
            return await create_or_check_topics(settings, int(difference.found), create=False)
    return report


def _sink_findings() -> list[Finding]:
    """Name what would keep `stoploss agents` from starting here."""
    try:
        load_sinks()
    except InvalidFieldError as error:
        value = f"{error.value!r:.80}"
        return [Finding(error.field, f"{value} is not allowed", f"use {error.allowed}")]
    return []


def _topic_findings(report: TopicsReport) -> list[Finding]:
    missing = [
        Finding(name, "the topic is missing", "stoploss topics create") for name in report.missing
    ]
    different = [
        Finding(
            each.topic,
            f"{each.setting} is {each.found}, should be {each.expected}",
            "more partitions need a new STOPLOSS_TOPIC_PREFIX"
            if each.setting == "partitions"
            else f"kafka-configs.sh --alter --topic {each.topic} "
            f"--add-config {each.setting}={each.expected}",
        )
        for each in report.differences
    ]
    return missing + different


async def _partition(
    log: Log, view: LedgerView, beats: dict[int, Beat], now_ms: int, partition: int
) -> PartitionFacts:
    state = view.partitions.get(partition)
    end = await log.reader(Topic.EVENTS, partition).end_offset()
    begin = await log.reader(Topic.EVENTS, partition).first_offset()
    beat = beats.get(partition)
    folded = begin if state is None else state.next_offset
    return PartitionFacts(
        partition=partition,
        next_offset=None if state is None else state.next_offset,
        end_offset=end,
        lag=await _lag(log, partition, folded, end),
        heartbeat_age_ms=None if beat is None else max(now_ms - beat.at_ms, 0),
        mode=None if state is None else state.mode,
        policy=None if state is None else state.policy,
    )


async def _lag(log: Log, partition: int, folded: int, end: int) -> int:
    """Return how many events wait from the offset `folded` on.

    Few are counted, since a transaction's marker has an offset as well; of many it does not matter.
    """
    first, count = end, 0
    async for record in log.records(Topic.EVENTS, partition, folded):
        first, count = min(first, record.offset), count + 1
        if count > LAG_EVENTS_MAX:
            return end - first
    return count


def _ledger_findings(facts: list[PartitionFacts], torn: Collection[int]) -> list[Finding]:
    """Name what is silent or behind; a ledger that stands still at a torn record is neither."""
    findings = []
    for each in facts:
        if each.partition in torn:
            continue
        about = f"partition {each.partition}"
        waiting = f"; {counted(each.lag, 'event waits', 'events wait')}" if each.lag else ""
        age_ms = each.heartbeat_age_ms
        if _is_silent(each):
            since = "no heartbeat" if age_ms is None else f"last heartbeat {ago(age_ms)}"
            findings.append(
                Finding(
                    about,
                    f"no ledger: {since}{waiting}",
                    "stoploss up, or stoploss ledger where Kafka is somebody else's",
                )
            )
        elif each.lag > LAG_EVENTS_MAX:
            findings.append(
                Finding(
                    about,
                    f"the ledger is {each.lag:,} events behind",
                    "stoploss ledger --workers N, with more processes than now",
                )
            )
    return findings


async def _torn_findings(
    log: Log, view: LedgerView, facts: list[PartitionFacts]
) -> dict[int, Finding]:
    """Name the record at which a restore of each partition stops, if one does."""
    silent = any(_is_silent(each) for each in facts)
    unknown = set(log.partitions) - view.partitions.keys()
    if not silent and not view.unreadable and not unknown:
        return {}
    findings = {}
    for partition in log.partitions:
        last: dict[str, bytes] = {}
        async for record in log.records(Topic.TASKS, partition):
            key = (record.key or b"").decode(errors="replace")
            if record.value is None:
                last.pop(key, None)
            else:
                last[key] = record.value
        torn = torn_in(partition, last.items())
        if torn is None and partition_subject(partition) not in last:
            torn = await _lost_state(log, partition)
        if torn is not None:
            findings[partition] = Finding(
                f"tasks, partition {partition}, key {torn.key}",
                f"a ledger that restores stands still at it: {torn.reason}",
                f"stoploss recover {shlex.quote(torn.key)} --reason …",
            )
    return findings


async def _lost_state(log: Log, partition: int) -> TornStateError | None:
    """Tell whether `tasks` of a partition was emptied; not where its ledger is just beginning."""
    lost = await lost_state(partition, {one: log.reader(one, partition) for one in OUTPUTS})
    own = partition_subject(partition).encode()
    if lost is not None:
        async for record in log.records(Topic.TASKS, partition):
            if record.key == own:
                return None
    return lost


def _is_silent(partition: PartitionFacts) -> bool:
    age_ms = partition.heartbeat_age_ms
    return age_ms is None or age_ms > LEDGER_SILENT_AFTER_MS


def _agreement_findings(facts: list[PartitionFacts]) -> list[Finding]:
    """Operators write to all partitions at once, so that they agree."""
    findings = []
    modes = {each.mode for each in facts if each.mode is not None}
    if len(modes) > 1:
        found = ", ".join(sorted(modes))
        findings.append(
            Finding("mode", f"differs: {found}", f"stoploss mode {min(modes)} --reason …")
        )
    policies = {each.policy.hash for each in facts if each.policy is not None}
    if len(policies) > 1:
        found = ", ".join(sorted(policies))
        findings.append(Finding("policy", f"differs: {found}", "stoploss policy apply FILE"))
    return findings


def is_stuck(state: TaskStateData, view: LedgerView, now_ms: int) -> bool:
    """Whether an open task is flagged, or its phase is open for longer than its policy allows."""
    if state.status == ENDED:
        return False
    if STUCK in state.flags:
        return True
    phase = state.phases.get(state.open_phase or "")
    if phase is None:
        return False
    opened_ms = [run.opened_ms for run in phase.executions if run.outcome is None and run.opened_ms]
    return bool(opened_ms) and now_ms - max(opened_ms) > _stuck_after_ms(view, state)


def _stuck_after_ms(view: LedgerView, state: TaskStateData) -> int:
    policy = view.policies.get(state.policy.hash)
    try:
        return STUCK_AFTER_MS if policy is None else int(policy.policy["clock"]["stuck_after_ms"])
    except (LookupError, TypeError, ValueError, ArithmeticError):  # it does not say, or is none
        return STUCK_AFTER_MS


def _stuck_finding(state: TaskStateData) -> Finding:
    phase = state.open_phase
    action = "--end" if phase is None else "--close-phase"
    return Finding(
        f"task {state.task_id}",
        f"stuck in {phase}" if phase else "stuck",
        f"stoploss recover {shlex.quote(state.task_id)} {action} --reason …",
    )


def _letters_finding(letters: Counter[str]) -> Finding:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(letters.items()))
    return Finding(
        "dead letters",
        f"in the last day: {reasons}",
        "correct their sender; `stoploss dead-letters` lists them, and sends them again",
    )


def _show(answer: DoctorAnswer) -> None:
    out = console()
    out.print(f"Kafka {answer.bootstrap_servers}, topics {answer.topic_prefix}*")
    if answer.partitions:
        _show_partitions(answer)
        _show_others(answer)
    if not answer.findings:
        out.print("nothing is wrong", style="green")
    for finding in answer.findings:
        out.print(plain(f"{finding.about}: {finding.problem}"), style="red")
        out.print(plain(f"    → {finding.remedy}"))
    if answer.source is not None:
        out.print(source_text(answer.source))


def _show_partitions(answer: DoctorAnswer) -> None:
    made = table(
        "PARTITION", "FOLDED TO", "LAG", "HEARTBEAT", "MODE", "POLICY",
        right=("PARTITION", "FOLDED TO", "LAG"),
    )  # fmt: skip
    for each in answer.partitions:
        age_ms = each.heartbeat_age_ms
        made.add_row(
            str(each.partition),
            "–" if each.next_offset is None else f"{each.next_offset:,}",
            f"{each.lag:,}",
            "none" if age_ms is None else ago(age_ms),
            "–" if each.mode is None else each.mode.value,
            "–" if each.policy is None else f"{each.policy.version} ({each.policy.hash})",
        )
    out = console()
    out.print(made)
    out.print(counted(answer.open_tasks, "task is open", "tasks are open"))


def _show_others(answer: DoctorAnswer) -> None:
    """Say how the parts beside the ledger are, one a line."""
    told: dict[str, Text] = {}
    if (view := answer.view) is not None:
        told["view"] = Text(_view_text(view))
    if answer.latencies is not None:
        told["commits"] = Text(_quantiles_text(answer.latencies.commit_ms))
        told["transitions"] = Text(_quantiles_text(answer.latencies.transition_ms))
    told["alerts"] = severities_text(answer.alerts)
    now_ms = time.time_ns() // 1_000_000
    for agent in answer.agents:
        told[f"agent {agent.name}"] = Text(plain(agent_text(agent, now_ms)))
    for sink in answer.sinks:
        told[f"sink {sink.name}"] = Text(plain(behind_text(sink)))
    listed = table("", "")
    listed.show_header = False
    for name, said in told.items():
        listed.add_row(Text(name, "dim"), said)
    console().print(listed)


def _view_text(view: ViewFacts) -> str:
    if view.age_ms is None or view.lag is None:
        return plain(f"none to read: {view.why}")
    return f"{duration(view.age_ms)} old, {counted(view.lag, 'record')} behind"


def _quantiles_text(found: Quantiles) -> str:
    """Return p50, p95 and p99 of the last hours."""
    if not found.count:
        return "none in the last hours"
    shown = (("p50", found.p50), ("p95", found.p95), ("p99", found.p99))
    listed = ", ".join(f"{name} {value:,.1f} ms" for name, value in shown if value is not None)
    return f"{listed} ({found.count:,} in the last hours)"
