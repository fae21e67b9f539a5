"""Holds what agents have written against what they would have written undisturbed.

Compared is:
- `audit`: every entry of theirs, as it stands there, by its id;
- what they tell themselves, signals and measures that are counted: each, by the record it follows from;
- `baselines`: every record, by its id, and the last one of each class;
- `alerts`: every edge of each alert, in order, with its severity and since when it holds;
- `reports`: the last one of each task, whatever its revision.

What has an id stands there with it once or several times, and says the same each time.

Left out, since it depends on which topic was read first, also where nothing happens to anybody: which
record an edge about a task names as its cause (`origin`, and with it the id); what similar tasks used
when a report was written, and the sentences that say so; the number of a report's revision. Of an
alert about a source of `health` the edges are compared, not their times.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from schemas.letters import AGENTS_SOURCE
from schemas.topics import BY_PARTITION, Topic
from streams.agents import alerts, baselines, governance
from streams.agents.lag import opened
from streams.agents.registry import AGENTS
from streams.agents.stages import Agent, Outbound
from streams.agents.topics import source_partitions
from streams.kafka.settings import Settings
from tests.faults.result import Told
from tests.faults.undisturbed import Logs, Read, decoded, fold_reports, fold_stage, read_logs
from tests.integration.kafka_world import eventually

DIFFERENCES_MAX = 20
OF_SOURCES = frozenset(
    {"queue_depth", "transition_latency", "breaker_open", "ledger_write_failures"}
)
DIED_SAYING = "kill agent_after_outputs"
# Set, not counted: what is told after a restart comes in another order.
SET = frozenset({"tick", "block_classed"})
# What similar tasks used, and what is said because of it.
OF_SIMILAR = frozenset({"similar", "summary", "findings", "unusual", "revision"})


async def until_all_is_told(settings: Settings, within_s: float) -> None:
    """Wait until agents have nothing left to read, and no report is still to be written.

    Raises:
        TimeoutError: they have something left to read, after so long.
    """
    ends_s = asyncio.get_running_loop().time() + within_s
    async with asyncio.timeout_at(ends_s):
        await eventually(lambda: _has_no_lag(settings), within_s)
    logs = await read_logs(settings)
    expected = await asyncio.to_thread(_reports, fold_reports(logs))

    async def are_written() -> bool:
        found = await read_logs(settings, [Topic.REPORTS])
        return _reports(found[Topic.REPORTS, 0]) == expected

    try:
        async with asyncio.timeout_at(ends_s):
            await eventually(are_written, within_s)
    except TimeoutError:
        return  # what differs is said by `hold`


async def _has_no_lag(settings: Settings) -> bool:
    return await lag(settings) == 0 and await lag(settings) == 0


async def lag(settings: Settings) -> int:
    """Return how many records wait for agents, all together."""
    found = 0
    async with opened(settings, "told") as standings:
        for agent in AGENTS.values():
            now = await standings.of(agent.group, _sources(agent, settings))
            found += sum(standing.lag for standing in now.values())
    return found


def _sources(agent: Agent, settings: Settings) -> list[tuple[str, int]]:
    partitioned = settings.partitions
    stages = {
        stage.name: partitioned if stage.sources[0].topic in BY_PARTITION else 1
        for stage in agent.stages
    }
    return source_partitions(agent, stages)


async def hold(settings: Settings) -> tuple[Told, list[str]]:
    """Compare; agents have ended, and with them everything that they have read is committed.

    Returns:
        What was compared, and what differs.
    """
    logs = dict(await read_logs(settings))
    async with opened(settings, "told") as standings:
        for agent, signals in (
            (alerts.AGENT, alerts.SIGNALS.topic),
            (governance.AGENT, governance.SIGNALS.topic),
        ):
            read = (await standings.of(agent.group, _sources(agent, settings)))[signals, 0]
            # The last ticks were written, and not read any more.
            logs[signals, 0] = [each for each in logs[signals, 0] if each.offset < read.next_offset]
    return await asyncio.to_thread(compare, logs)


def compare(logs: Logs) -> tuple[Told, list[str]]:
    """Say what was compared, and what differs."""
    tasks, windows = (fold_stage(stage, logs) for stage in alerts.AGENT.stages)
    governed, shares = (fold_stage(stage, logs) for stage in governance.AGENT.stages)
    measures = fold_stage(baselines.AGENT.stages[0], logs)
    counts = fold_stage(baselines.AGENT.stages[1], logs, at_once=1)
    everything = [*tasks, *windows, *governed, *shares]
    audits = [each for each in logs[Topic.AUDIT, 0] if _is_an_agents(each)]
    of_tasks, of_governed = (
        (_counted(_of(made, topic)), _counted(logs[topic, 0]))
        for made, topic in ((tasks, alerts.SIGNALS.topic), (governed, governance.SIGNALS.topic))
    )
    wrong = [
        *_by_id("audit", _of(everything, Topic.AUDIT), audits),
        *_signals("alerts", *of_tasks),
        *_signals("governance", *of_governed),
        *_by_id("measures", measures, logs[baselines.MEASURES.topic, 0]),
        *_baselines(counts, logs[Topic.BASELINES, 0]),
        *_edges(_of(everything, Topic.ALERTS), logs[Topic.ALERTS, 0]),
        *_differing(
            "the last report of", _reports(fold_reports(logs)), _reports(logs[Topic.REPORTS, 0])
        ),
        *_letters(logs),
    ]
    written = {
        Topic.ALERTS: logs[Topic.ALERTS, 0],
        Topic.AUDIT: audits,
        Topic.BASELINES: logs[Topic.BASELINES, 0],
        Topic.REPORTS: logs[Topic.REPORTS, 0],
    }
    ids = {topic: {decoded(each.value)["id"] for each in found} for topic, found in written.items()}
    # A signal has no id, and one record may cause two that are alike.
    signals = {"signals of alerts": of_tasks, "signals of governance": of_governed}
    told = Told(
        distinct={topic.value: len(found) for topic, found in ids.items()}
        | {topic: len(expected) for topic, (expected, _) in signals.items()},
        repeated={topic.value: len(found) - len(ids[topic]) for topic, found in written.items()}
        | {topic: len(found) - len(expected) for topic, (expected, found) in signals.items()},
    )
    return told, wrong


def never_said_again(happened: Mapping[str, int], told: Told) -> list[str]:
    """Say so where an agent has died with what it caused on the broker, and nothing stands there twice.

    Args:
        happened: how often each fault did.
        told: what agents have written.
    """
    if not happened.get(DIED_SAYING) or any(told.repeated.values()):
        return []
    return [f"{DIED_SAYING} happened, and agents have said nothing once more: {told.repeated}"]


def _of(sent: Iterable[Outbound], topic: str) -> list[Outbound]:
    return [each for each in sent if each.topic == topic]


def _is_an_agents(record: Read) -> bool:
    return bool(decoded(record.value)["source"] == AGENTS_SOURCE)


def _differing(what: str, expected: Mapping[Any, object], found: Mapping[Any, object]) -> list[str]:
    """Say of which key one of both is missing, or another one."""
    wrong = [
        f"{what} {key}: {found.get(key)!r:.400} is there, and undisturbed {expected.get(key)!r:.400}"
        for key in sorted(expected.keys() | found.keys(), key=str)
        if expected.get(key) != found.get(key)
    ]
    return wrong[:DIFFERENCES_MAX]


def _last_of_each_id(what: str, records: Iterable[Read]) -> tuple[dict[str, Any], list[str]]:
    """Return what is said under each id, and what is said in two ways."""
    said: dict[str, Any] = {}
    wrong = []
    for each in records:
        record = decoded(each.value)
        if said.setdefault(record["id"], record) != record:
            wrong.append(f"{what} {record['id']} says two things: {record!r:.400}")
    return said, wrong[:DIFFERENCES_MAX]


def _by_id(what: str, expected: Iterable[Outbound], found: Iterable[Read]) -> list[str]:
    said, wrong = _last_of_each_id(what, found)
    return wrong + _differing(what, {one["id"]: one for one in map(_said, expected)}, said)


def _said(sent: Outbound) -> Any:  # noqa: ANN401 - any JSON
    return decoded(sent.value)


def _counted(signals: Iterable[Read | Outbound]) -> list[Any]:
    return [one for each in signals if (one := decoded(each.value))["type"] not in SET]


def _signals(what: str, expected: Iterable[Any], found: Iterable[Any]) -> list[str]:
    """Compare what is counted, by the record that it follows from."""

    def by_origin(signals: Iterable[Any]) -> dict[str, Any]:
        return {f"{one['type']} {one['origin']}": one for one in signals}

    return _differing(f"signal of {what}", by_origin(expected), by_origin(found))


def _baselines(expected: Iterable[Outbound], found: Sequence[Read]) -> list[str]:
    """Compare each with the same number of changes; agents publish only some of them."""
    made = {one["id"]: one for one in map(_said, expected)}
    said, wrong = _last_of_each_id("baseline", found)
    wrong += _differing("baseline", {key: made.get(key) for key in said}, said)
    last_made = {one["subject"]: one for one in made.values()}
    last_said = {one["subject"]: one for one in said.values()}
    return wrong + _differing("the last baseline of", last_made, last_said)


def _edges(expected: Iterable[Outbound], found: Sequence[Read]) -> list[str]:
    _, wrong = _last_of_each_id("alert", found)
    made = _by_alert(decoded(each.value) for each in expected)
    said = _by_alert(decoded(each.value) for each in found)
    last = {}
    for one in (decoded(each.value) for each in found):
        last[one["subject"]] = f"{one['data']['state']} {one['data']['number']}"
    ends = {alert: " ".join(map(str, edges[-1][:2])) for alert, edges in made.items()}
    return wrong + _differing("alert", made, said) + _differing("the last edge of", ends, last)


def _by_alert(records: Iterable[Any]) -> dict[str, list[tuple[Any, ...]]]:
    """Return the edges of each alert; one that is there twice, once."""
    edges: dict[str, dict[tuple[Any, ...], None]] = {}
    for record in records:
        data = record["data"]
        names = ["state", "number", "severity", "threshold"]
        if data["name"] not in OF_SOURCES:
            names += ["since", "task_id"]
        edge = tuple(data.get(name) for name in names)
        edges.setdefault(record["subject"], {})[edge] = None
    return {alert: list(found) for alert, found in edges.items()}


def _reports(records: Iterable[Read | Outbound]) -> dict[str, Any]:
    """Return the last report of each task."""
    last = {}
    for each in records:
        record = decoded(each.value)
        last[record["subject"]] = record["time"], _without_similar(record["data"])
    return last


def _without_similar(value: Any) -> Any:  # noqa: ANN401 - any JSON
    match value:
        case dict():
            return {
                key: _without_similar(each) for key, each in value.items() if key not in OF_SIMILAR
            }
        case list():
            return [_without_similar(each) for each in value]
        case _:
            return value


def _letters(logs: Logs) -> list[str]:
    letters = [
        each
        for (topic, _), found in logs.items()
        if topic == Topic.DEAD_LETTERS
        for each in found
        if _is_an_agents(each)
    ]
    return [f"agents refuse {each.value!r:.400}" for each in letters[:DIFFERENCES_MAX]]
