"""What agents would have written had nothing happened to them: their stages, fold by fold.

The same stages (`streams/agents/registry.py`) fold the same topics once more, here in one process, with
no faust, no group, no restart and no offset to lose, each topic from its first record to its last. What
a stage reads of its own agent, signals and measures, is what the agents have left there: whether that
is right is asked of the stage that writes it.
"""

import heapq
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from schemas.topics import BY_PARTITION, Topic
from streams.agents import alerts, baselines, governance, reports
from streams.agents.folding import fold_batch
from streams.agents.stages import Outbound, Stage, encode
from streams.insight.gathering import Tick
from streams.insight.writing import PENDING, Pending
from streams.kafka.reader import start_client
from streams.kafka.settings import Settings
from streams.verify.reading import OutputReader

AT_ONCE = 500
# Of what is due, before time passes for it: less than may wait.
DUE_AT_ONCE = 1_000
TICK_MS = 1_000

_PENDING = msgspec.json.Decoder(Pending)


class Read(NamedTuple):
    """A record as a stage reads it; `timestamp` in seconds, `topic` without a prefix."""

    topic: str
    partition: int
    offset: int
    timestamp: float
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


Logs = Mapping[tuple[str, int], Sequence[Read]]
"""All committed records, by topic without the prefix, and partition."""

INTERNAL = (alerts.SIGNALS.topic, governance.SIGNALS.topic, baselines.MEASURES.topic)
PUBLIC = (
    Topic.LIFECYCLE,
    Topic.DECISIONS,
    Topic.EXECUTIONS,
    Topic.BREACHES,
    Topic.DEAD_LETTERS,
    Topic.HEALTH,
    Topic.FEEDBACK,
    Topic.AUDIT,
    Topic.ALERTS,
    Topic.BASELINES,
    Topic.REPORTS,
)


async def read_logs(settings: Settings, topics: Iterable[str] = (*PUBLIC, *INTERNAL)) -> Logs:
    """Read topics to their ends."""
    topics = tuple(topics)
    found: dict[tuple[str, int], list[Read]] = {}
    names = {topic: f"{settings.topic_prefix}{topic}" for topic in topics}
    client = await start_client(settings, list(names.values()), "undisturbed")
    try:
        for topic, name in names.items():
            for partition in range(settings.partitions if topic in BY_PARTITION else 1):
                reader = OutputReader(client, name, partition)
                found[topic, partition] = [
                    Read(
                        topic,
                        partition,
                        each.offset,
                        each.timestamp / 1000,
                        each.key,
                        each.value,
                    )
                    async for each in reader.until_written()
                ]
    finally:
        await client.close()
    return found


class Folding:
    """One stage with its entries, by partition."""

    def __init__(self, stage: Stage, at_once: int = AT_ONCE) -> None:
        self._stage, self._at_once = stage, at_once
        self.entries: defaultdict[int, dict[bytes, bytes]] = defaultdict(dict)
        self.refused = 0

    def fold(self, records: Iterable[Read]) -> Iterator[Outbound]:
        """Fold records; yield what is to be sent."""
        waiting = iter(records)
        while some := list(itertools.islice(waiting, self._at_once)):
            folded = fold_batch(self._stage, "", some, self.entries.__getitem__)
            self.refused += folded.refused
            for change in folded.changes:
                if change.value is None:
                    self.entries[change.partition].pop(change.key, None)
                else:
                    self.entries[change.partition][change.key] = change.value
            yield from folded.outputs


def _merged(logs: Logs, topics: Sequence[str], partition: int) -> Iterator[Read]:
    """Yield the records of topics in the order in which they were written, each topic's in its own."""

    def told(topic: str) -> Iterator[tuple[float, Read]]:
        at_s = 0.0
        for each in logs[topic, partition]:
            at_s = max(at_s, _at_s(each))
            yield at_s, each

    for _, each in heapq.merge(*map(told, topics), key=lambda pair: pair[0]):
        yield each


class _Timed(msgspec.Struct):
    type: str
    at_ms: int


_TIMED = msgspec.json.Decoder(_Timed)


def _at_s(record: Read) -> float:
    """Return when a record was written; a tick counts as of when all that is before it was."""
    if record.topic in INTERNAL[:2] and record.value is not None:
        said = _TIMED.decode(record.value)
        return said.at_ms / 1000 if said.type == "tick" else 0.0
    return record.timestamp


def fold_stage(stage: Stage, logs: Logs, *, at_once: int = AT_ONCE) -> list[Outbound]:
    """Return all that a stage sends: its sources are read side by side, partition by partition."""
    # Those that are read to now before a tick first: it was written after them.
    topics = sorted((each.topic for each in stage.sources), key=lambda topic: topic in INTERNAL)
    folding = Folding(stage, at_once)
    count = sum((topics[0], partition) in logs for partition in range(len(logs)))
    sent: list[Outbound] = []
    for partition in range(count):
        sent += folding.fold(_merged(logs, topics, partition))
    assert folding.refused == 0, f"{stage.name}: a record that nobody can read"
    return sent


def fold_reports(logs: Logs) -> list[Outbound]:
    """Return all reports; time passes for them where it is said to."""
    gather, write = reports.AGENT.stages
    due = [each.value for each in fold_stage(gather, logs)]
    writing = Folding(write)
    offsets, clock_ms = itertools.count(), itertools.count(TICK_MS, TICK_MS)

    def said(value: bytes | None, at_ms: int) -> Read:
        return Read(reports.DUE.topic, 0, next(offsets), at_ms / 1000, None, value)

    sent: list[Outbound] = []
    for first in range(0, len(due), DUE_AT_ONCE):
        at_ms = next(clock_ms)
        sent += writing.fold(said(value, at_ms) for value in due[first : first + DUE_AT_ONCE])
        while _waits(writing):
            at_ms = next(clock_ms)
            sent += writing.fold([said(encode(Tick(at_ms)), at_ms)])
    return sent


def _waits(writing: Folding) -> bool:
    pending = writing.entries[0].get(PENDING.encode())
    return pending is not None and bool(_PENDING.decode(pending).since_ms)


def decoded(value: bytes | None) -> Any:  # noqa: ANN401 - any JSON
    """Return what a record says."""
    assert value is not None
    return msgspec.json.decode(value)
