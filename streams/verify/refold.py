"""`stoploss verify`: folds `events` again, and compares everything that the ledger wrote.

Of each partition, in this order: 1. what `tasks` says, and with it up to which input the ledger has
come; 2. how far its other topics are written; 3. the fold of these inputs, merged on the way with
what stands in the other topics; 4. how far the ledger has come meanwhile: what later inputs have
caused is not judged; 5. the state of every task. Only committed records are seen.
"""

import time
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from schemas.decode import Refusal, decode_event
from schemas.topics import DAY_MS, SPECS, Topic
from streams.budget.effects import Effect
from streams.budget.encode import EffectEncoder, Encoded
from streams.budget.fold import fold
from streams.budget.policy import Policy, builtin_policy
from streams.budget.snapshot import drain_changes, task_state
from streams.budget.state import Task, new_partition
from streams.kafka.errors import OffsetGoneError
from streams.kafka.ports import RawRecord
from streams.kafka.producers import fits
from streams.kafka.reader import KafkaReader, start_client
from streams.kafka.settings import Settings
from streams.verify.compare import Expected, Merge, found
from streams.verify.reading import OutputReader, patiently
from streams.verify.result import Difference, PartitionReport, VerifyResult
from streams.verify.stored import StoredState

OUTPUTS = (
    Topic.DECISIONS,
    Topic.BREACHES,
    Topic.EXECUTIONS,
    Topic.LIFECYCLE,
    Topic.DEAD_LETTERS,
)
READ = (Topic.EVENTS, Topic.TASKS, *OUTPUTS)
COMPACTION_LAG_MS = int(SPECS[Topic.DECISIONS].config["min.compaction.lag.ms"])
assert COMPACTION_LAG_MS >= DAY_MS

OnProgress = Callable[[int, int], None]


async def verify(
    settings: Settings,
    *,
    default_policy: Policy | None = None,
    on_progress: OnProgress | None = None,
) -> VerifyResult:
    """Judge every partition; each up to its first difference.

    Args:
        settings: where; the number of partitions is that of `events`.
        default_policy: what the ledger folded by before the first `policy.set`; the built-in one.
        on_progress: told how many inputs are folded, and how many there are.

    Raises:
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    client = await start_client(settings, [settings.topic(topic) for topic in READ], "verify")
    try:
        count = len(client.cluster.partitions_for_topic(settings.topic(Topic.EVENTS)))
        judges = [
            _Judge(client, settings, partition, default_policy or builtin_policy())
            for partition in range(count)
        ]
        for judge in judges:
            await judge.begin()
        total = sum(judge.report.next_offset - judge.report.first_offset for judge in judges)
        done = _Done(total, on_progress)
        for judge in judges:
            await judge.judge(done)
    finally:
        await client.close()
    reports = [judge.report for judge in judges]
    return VerifyResult(equal=all(report.equal for report in reports), partitions=reports)


class _Done:
    """Adds up inputs over all partitions."""

    def __init__(self, total: int, report: OnProgress | None) -> None:
        self._total, self._report = total, report
        self._done = 0

    def add(self, inputs: int) -> None:
        self._done += inputs
        if self._report is not None:
            self._report(min(self._done, self._total), self._total)


class _Output(Struct):
    """A topic beside `tasks`: what stands in it, and the merge with what must stand in it."""

    reader: OutputReader
    merge: Merge

    async def run(self) -> None:
        """Compare all that is expected by now."""
        self.merge.run()
        while self.merge.needs_found:
            await self.read()
            self.merge.run()

    async def read(self) -> None:
        records = await self.reader.read()
        if self.reader.trimmed:
            self.merge.trim()
            self.reader.trimmed = False
        self.merge.find([found(self.reader.partition, one.key, one.value) for one in records])
        if self.reader.has_ended():
            self.merge.end_of_found()


class _Judge:
    """Folds one partition again."""

    def __init__(
        self,
        client: Any,  # noqa: ANN401 - aiokafka has no types
        settings: Settings,
        partition: int,
        default_policy: Policy,
    ) -> None:
        self._client, self._settings, self._partition = client, settings, partition
        self._encoder = EffectEncoder(partition, settings.topic(Topic.EVENTS), fits)
        self._events = KafkaReader(client, settings.topic(Topic.EVENTS), partition)
        self._stored = StoredState(self._reader(Topic.TASKS), partition)
        self._state = new_partition(partition, default_policy)
        self._policies: dict[bytes, tuple[Encoded, tuple[int, int]]] = {}
        self._outputs: dict[Topic, _Output] = {}
        self.report = PartitionReport(partition=partition, compared={})

    async def begin(self) -> None:
        """Read where the ledger stands, then how far the rest is written."""
        await self._stored.read()  # 1.
        self.report.next_offset = self._stored.next_offset
        self.report.first_offset = await patiently(self._events.first_offset)
        compacted_before_ms = time.time_ns() // 1_000_000 - COMPACTION_LAG_MS
        for topic in OUTPUTS:  # 2.
            reader = self._reader(topic)
            await reader.begin()
            merge = Merge(
                reader.topic,
                self._partition,
                compacted_before_ms=compacted_before_ms if topic is Topic.DECISIONS else None,
            )
            self._outputs[topic] = _Output(reader, merge)

    async def judge(self, done: _Done) -> None:
        """Fold, compare, and report."""
        difference = await self._fold_all(done) or await self._finish()
        self.report.difference = difference
        self.report.equal = difference is None
        self.report.trimmed = sum(output.merge.trimmed for output in self._outputs.values())
        self.report.compared = {Topic.TASKS.value: self._stored.compared} | {
            topic.value: output.merge.compared for topic, output in self._outputs.items()
        }

    def _reader(self, topic: Topic) -> OutputReader:
        return OutputReader(self._client, self._settings.topic(topic), self._partition)

    async def _fold_all(self, done: _Done) -> Difference | None:
        """Fold the inputs that the ledger has folded; return the first difference on the way."""
        self._events.seek(self.report.first_offset)
        next_offset = self.report.next_offset
        while self._events.offset < next_offset:
            before = self._events.offset
            try:
                chunks = await patiently(self._events.read)
            except OffsetGoneError as gone:
                self._events.seek(gone.first)  # a difference will show, if it was needed
                continue
            for chunk in chunks:
                for record in chunk.records:
                    if record.offset < next_offset:
                        self._fold(record)
                for output in self._outputs.values():
                    await output.run()
                if (difference := self._first_difference()) is not None:
                    return difference
            done.add(min(self._events.offset, next_offset) - before)
        return None

    def _fold(self, record: RawRecord) -> None:
        state = self._state
        event = decode_event(record.value, record.headers)
        effects = fold(state, event, offset=record.offset, append_ms=record.timestamp)
        traceparent = None if isinstance(event, Refusal) else event.traceparent
        for effect in effects:
            encoded = self._encoder.encode(effect, state.clock_ms, record, traceparent)
            self._expect(effect, encoded)
        for task in state.changed:  # all states are compared in the end
            task.is_changed = False
        state.changed.clear()
        self.report.events += 1

    def _expect(self, effect: Effect, encoded: Encoded) -> None:
        place = effect.offset, effect.index
        if effect.topic is not Topic.TASKS:
            merge = self._outputs[effect.topic].merge
            merge.expect(Expected(place, encoded.key, encoded.value, self._state.clock_ms))
        elif effect.type == "stoploss.policy.state":
            assert encoded.key is not None
            if encoded.value is None:
                self._policies.pop(encoded.key, None)
            else:
                self._policies[encoded.key] = encoded, place

    def _first_difference(self) -> Difference | None:
        """Of what differs by now, that of the earliest input."""
        differences = [
            output.merge.difference
            for output in self._outputs.values()
            if output.merge.difference is not None
        ]
        return min(differences, key=_input_offset, default=None)

    async def _finish(self) -> Difference | None:
        """Compare the ends of the topics, then the states."""
        for output in self._outputs.values():
            while not output.reader.has_ended() and output.merge.difference is None:
                await output.read()
                output.merge.run()
            output.merge.end_of_found()
            output.merge.run()
        later = await self._stored.later_offset()  # 4.
        for output in self._outputs.values():
            if output.merge.difference is None:
                output.merge.finish(self.report.next_offset, later)
        return self._first_difference() or await self._compare_states()  # 5.

    async def _compare_states(self) -> Difference | None:
        state = self._state
        if self.report.events:
            for encoded, place in self._policies.values():
                if (difference := await self._stored.compare(encoded, place)) is not None:
                    return difference
            for task in sorted(state.tasks.values(), key=lambda one: one.last_offset):
                if (difference := await self._compare_task(task)) is not None:
                    return difference
            own = drain_changes(state)[-1]
            encoded = self._encoder.encode(own, state.clock_ms)
            difference = await self._stored.compare(encoded, (own.offset, own.index))
            if difference is not None:
                return difference
        return self._stored.left()

    async def _compare_task(self, task: Task) -> Difference | None:
        place = task.last_offset, task.last_index
        effect = Effect(Topic.TASKS, "stoploss.task.state", task.task_id, task_state(task), *place)
        encoded = self._encoder.encode(effect, self._state.clock_ms)
        return await self._stored.compare(encoded, place)


def _input_offset(difference: Difference) -> int:
    return -1 if difference.input_offset is None else difference.input_offset
