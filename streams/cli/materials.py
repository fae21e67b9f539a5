"""What a report is made of, from the topics: as it was written, or what there is to compose one of."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from schemas.baselines import Baseline
from schemas.envelope import Envelope
from schemas.feedback import Feedback
from schemas.outputs import Breach, Decision, ExecutionRecord, Lifecycle
from schemas.refusal import UNREADABLE
from schemas.reports import Report
from schemas.topics import BY_PARTITION, Topic
from streams.cli.facts import ENDED
from streams.cli.operating import UnknownTaskError
from streams.cli.reading import Log, Seen, readable
from streams.insight.reports import Material, compose, report_link, used_below
from streams.insight.similar import Baselines
from streams.insight.task_facts import (
    NOWHERE,
    Place,
    TaskFacts,
    place_of,
    tell_breach,
    tell_decision,
    tell_execution,
    tell_feedback,
    tell_lifecycle,
)
from streams.kafka.topics import partition_for

TOPICS = (*BY_PARTITION, Topic.REPORTS, Topic.BASELINES, Topic.FEEDBACK)
# The clocks of brokers and ledgers differ: records are looked for from so long before a task began.
SLACK_MS = 3_600_000
_CHILD = b'"parent_task_id"'

_LIFECYCLE = msgspec.json.Decoder(Envelope[Lifecycle])
_EXECUTION = msgspec.json.Decoder(Envelope[ExecutionRecord])
_BREACH = msgspec.json.Decoder(Envelope[Breach])
_DECISION = msgspec.json.Decoder(Envelope[Decision])
_REPORT = msgspec.json.Decoder(Envelope[Report])
_BASELINE = msgspec.json.Decoder(Envelope[Baseline])
_FEEDBACK = msgspec.json.Decoder(Envelope[Feedback])


class TaskMaterial(Struct, frozen=True):
    """A report that was written when the task had ended, else what one is made of."""

    written: Report | None = None
    material: Material | None = None

    def report(self, url: str | None = None) -> Report:
        """Return the report.

        Args:
            url: the template of the address at which reports are to be read; in one that was written
                stands what held then.
        """
        if self.written is not None:
            return self.written
        assert self.material is not None
        link = report_link(url, self.material.facts.task_id)
        return compose(msgspec.structs.replace(self.material, link=link))


class Told(Struct, frozen=True):
    """What the ledger and people have said of one task, each topic in its order."""

    changes: Sequence[Envelope[Lifecycle]]
    executions: Sequence[Envelope[ExecutionRecord]] = ()
    breaches: Sequence[Envelope[Breach]] = ()
    decisions: Sequence[Envelope[Decision]] = ()
    feedback: Sequence[Envelope[Feedback]] = ()


def facts_of(task_id: str, told: Told, born: Place = NOWHERE) -> TaskFacts:
    """Return what is known of a task; what is older than `born` was said of an earlier one.

    Runs stand in the order in which they ended: one that is published again would be the last. What no
    ledger has written, by its id, says nothing.
    """
    facts = TaskFacts(task_id=task_id, born=born)
    for change in filter(_is_ledgers, told.changes):
        tell_lifecycle(facts, change)
    for execution in sorted(filter(_is_ledgers, told.executions), key=_ended):
        tell_execution(facts, execution)
    for breach in filter(_is_ledgers, told.breaches):
        tell_breach(facts, breach)
    for decision in filter(_is_ledgers, told.decisions):
        tell_decision(facts, decision)
    for answer in told.feedback:
        tell_feedback(facts, answer)
    return facts


def _is_ledgers(record: Envelope[Any]) -> bool:
    try:
        place_of(record.id)
    except ValueError:
        return False
    return True


def _ended(record: Envelope[ExecutionRecord]) -> tuple[str, Place]:
    said = record.data
    return said.ended or said.started or "", place_of(record.id)


async def task_material(log: Log, task_id: str) -> TaskMaterial:
    """Return what is there for the report of a task; `log` has `TOPICS`.

    Raises:
        UnknownTaskError: neither the ledger nor its topics know it.
    """
    seen = (await log.ledger_view()).tasks.get(task_id)
    if seen is None or seen.state.status == ENDED:
        since_ms = None if seen is None else seen.state.ended_ms
        written = await _written(log, task_id, since_ms)
        if written is not None:
            return TaskMaterial(written)
    partition = partition_of(log, task_id, seen)
    family = await _family(log, partition, task_id, None if seen is None else seen.state.started_ms)
    facts = family.pop(task_id)
    if seen is None and facts.changed == NOWHERE:
        raise UnknownTaskError(task_id)
    return TaskMaterial(
        material=Material(
            facts=facts,
            baselines=await _baselines(log),
            below=used_below(family.values()),
            state=None if seen is None else seen.state,
        )
    )


def partition_of(log: Log, task_id: str, seen: Seen | None) -> int:
    """Return where a task lives; one that the ledger has forgotten is taken for a root."""
    return partition_for(task_id.encode(), len(log.partitions)) if seen is None else seen.partition


async def _written(log: Log, task_id: str, since_ms: int | None) -> Report | None:
    """Return the last report of a task, if there is one."""
    found = await readable(_REPORT, _of(log, Topic.REPORTS, 0, since_ms, task_id))
    return found[-1].data if found else None


async def _family(
    log: Log, partition: int, task_id: str, since_ms: int | None
) -> dict[str, TaskFacts]:
    """Return what is known of a task and of all tasks below it, of those what they have used."""
    told: dict[str, list[Envelope[Lifecycle]]] = {task_id: []}
    children: dict[str, list[str]] = {}
    async for key, value in _records(log, Topic.LIFECYCLE, partition, since_ms):
        if key != task_id and _CHILD not in value:
            continue
        with contextlib.suppress(*UNREADABLE):
            record = _LIFECYCLE.decode(value)
            told.setdefault(key, []).append(record)
            if (parent := record.data.parent_task_id) is not None:
                children.setdefault(parent, []).append(key)
    below = _below(children, task_id)
    executions: dict[str, list[Envelope[ExecutionRecord]]] = {each: [] for each in below}
    mine = executions[task_id] = []
    async for key, value in _records(log, Topic.EXECUTIONS, partition, since_ms):
        if key in executions:
            with contextlib.suppress(*UNREADABLE):
                executions[key].append(_EXECUTION.decode(value))
    said = Told(
        told[task_id],
        mine,
        await readable(_BREACH, _of(log, Topic.BREACHES, partition, since_ms, task_id)),
        await readable(_DECISION, _of(log, Topic.DECISIONS, partition, since_ms, task_id)),
        await readable(_FEEDBACK, _of(log, Topic.FEEDBACK, 0, None, task_id)),
    )
    family = {each: facts_of(each, Told(told[each], executions[each])) for each in below}
    return {task_id: facts_of(task_id, said)} | family


def _below(children: dict[str, list[str]], task_id: str) -> list[str]:
    """Return all tasks below one, each once."""
    found: dict[str, None] = {task_id: None}
    waiting = [task_id]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found[child] = None
                waiting.append(child)
    return list(found)[1:]


async def _baselines(log: Log) -> Baselines:
    found = Baselines()
    async for _, value in _records(log, Topic.BASELINES, 0, None):
        with contextlib.suppress(*UNREADABLE):
            found.take(_BASELINE.decode(value).data)
    return found


async def _of(
    log: Log, topic: Topic, partition: int, since_ms: int | None, task_id: str
) -> AsyncIterator[bytes]:
    """Yield what a topic has of a task from a time on."""
    async for key, value in _records(log, topic, partition, since_ms):
        if key == task_id:
            yield value


async def _records(
    log: Log, topic: Topic, partition: int, since_ms: int | None
) -> AsyncIterator[tuple[str, bytes]]:
    """Yield key and value of what a topic has from a time on; what deletes a key is left out."""
    first = None
    if since_ms is not None:
        first = await log.reader(topic, partition).offset_since(max(since_ms - SLACK_MS, 0))
    async for record in log.records(topic, partition, first):
        if record.value is not None:
            yield (record.key or b"").decode(errors="replace"), record.value
