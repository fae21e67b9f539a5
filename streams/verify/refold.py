"""`stoploss verify`: folds `events` again, and compares everything that the ledger wrote.

Of each partition, in this order: 1. what `tasks` says, and with it up to which input the ledger has
come; 2. how far its other topics are written; 3. the fold of these inputs, merged on the way with
what stands in the other topics; 4. how far the ledger has come meanwhile: what later inputs have
caused is not judged; 5. the state of every task. Only committed records are seen.

Where retention has removed the first inputs, it begins at a checkpoint: see `since`.
"""

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from schemas.decode import Refusal, decode_event
from schemas.errors import UnavailableError
from schemas.events import partition_subject
from schemas.letters import is_agents_letter
from schemas.topics import OUTPUTS, Topic
from streams.budget.effects import Effect
from streams.budget.encode import EffectEncoder, Encoded
from streams.budget.fold import fold
from streams.budget.policy import Policy, builtin_policy
from streams.budget.snapshot import drain_changes, task_state
from streams.budget.state import PartitionState, Task, new_partition
from streams.kafka.errors import OffsetGoneError
from streams.kafka.ports import RawRecord
from streams.kafka.producers import fits
from streams.kafka.reader import KafkaReader, start_client
from streams.kafka.settings import Settings
from streams.verify.compare import Expected, Found, Merge, found
from streams.verify.reading import (
    COMPACTION_LAG_MS,
    READ,
    OnProgress,
    OutputReader,
    patiently,
)
from streams.verify.result import Difference, PartitionReport, VerifyResult
from streams.verify.since import (
    Families,
    Numbering,
    Past,
    Since,
    known_part,
    renumbered,
    state_at,
)
from streams.verify.stored import StoredState


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
        done.finish()
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

    def finish(self) -> None:
        """Tell the end: offsets without a record, and what is not judged, were counted as well."""
        self.add(self._total)


class _Output:
    """A topic beside `tasks`: what stands in it, and the merge with what must stand in it."""

    def __init__(self, topic: Topic, reader: OutputReader, merge: Merge) -> None:
        self._topic, self.reader, self.merge = topic, reader, merge
        self._expected_places, self._found_places = Numbering(), Numbering()

    def expect(self, effect: Effect, encoded: Encoded, clock_ms: int, since: Since | None) -> None:
        """Add what an input must have caused."""
        place, value = (effect.offset, effect.index), encoded.value
        if since is not None:
            if not since.expects(effect):
                return
            place = self._expected_places.next(effect.offset)
            if value is not None:
                value = renumbered(value, self.reader.partition, place)
        self.merge.expect(Expected(place, encoded.key, value, clock_ms))

    async def run(self, since: Since | None) -> None:
        """Compare all that is expected by now."""
        self.merge.run()
        while self.merge.needs_found:
            await self._read(since)
            self.merge.run()

    async def run_to_end(self, since: Since | None) -> None:
        """Compare with all that is there."""
        while not self.reader.has_ended() and self.merge.difference is None:
            await self._read(since)
            self.merge.run()
        self.merge.end_of_found()
        self.merge.run()

    async def _read(self, since: Since | None) -> None:
        records = await self.reader.read()
        if self.reader.trimmed:
            self.merge.trim()
            self.reader.trimmed = False
        if self._topic is Topic.DEAD_LETTERS:
            records = [one for one in records if not is_agents_letter(one.value)]
        there = [found(self.reader.partition, one.key, one.value) for one in records]
        if since is not None:
            there = [self._renumbered(one) for one in there if since.finds(self._topic, one)]
        self.merge.find(there)
        if self.reader.has_ended():
            self.merge.end_of_found()

    def _renumbered(self, record: Found) -> Found:
        if record.place is None or record.value is None:
            return record
        place = self._found_places.next(record.place[0])
        value = renumbered(record.value, self.reader.partition, place)
        return Found(record.key, value, record.id, place)


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
        self._since: Since | None = None  # None: every input is there, and everything is judged
        self.report = PartitionReport(partition=partition, compared={})

    async def begin(self) -> None:
        """Read where the ledger stands, then how far the rest is written."""
        first = await patiently(self._events.first_offset)
        if first:
            self._stored = StoredState(self._reader(Topic.TASKS), self._partition, known_part)
        await self._stored.read()  # 1.
        self.report.first_offset = first
        self.report.next_offset = self._stored.next_offset
        compacted_before_ms = time.time_ns() // 1_000_000 - COMPACTION_LAG_MS
        for topic in OUTPUTS:  # 2.
            reader = self._reader(topic)
            await reader.begin()
            merge = Merge(
                reader.topic,
                self._partition,
                compacted_before_ms=compacted_before_ms if topic is Topic.DECISIONS else None,
            )
            self._outputs[topic] = _Output(topic, reader, merge)

    async def judge(self, done: _Done) -> None:
        """Fold, compare, and report."""
        difference = await self._missing_inputs() or await self._missing_state()
        if difference is None:
            if self.report.first_offset and not await self._begin_at_checkpoint():
                self.report.first_offset = self.report.next_offset  # nothing can be judged
                return
            difference = await self._fold_all(done) or await self._finish()
        self.report.difference = difference
        self.report.equal = difference is None
        self.report.trimmed = sum(output.merge.trimmed for output in self._outputs.values())
        self.report.compared = {Topic.TASKS.value: self._stored.compared} | {
            topic.value: output.merge.compared for topic, output in self._outputs.items()
        }

    def _reader(self, topic: Topic) -> OutputReader:
        return OutputReader(self._client, self._settings.topic(topic), self._partition)

    async def _begin_at_checkpoint(self) -> bool:
        """Take the state of the first checkpoint that is covered; find out who can be judged."""
        self.report.from_checkpoint = True
        stored = self._stored
        past = Past(stored.policies, self.report.first_offset, stored.next_offset)
        async for record in self._reader(Topic.LIFECYCLE).until_written():
            past.take(record)
        if past.checkpoint is None:
            return False
        self.report.first_offset = past.checkpoint.next_offset
        families = Families(past)
        state = state_at(past.checkpoint, self._partition, stored.own_record)
        async for chunk in self._inputs():
            for record in chunk:
                event = decode_event(record.value, record.headers)
                effects = fold(state, event, offset=record.offset, append_ms=record.timestamp)
                families.learn(state, event, effects)
                forget_changes(state)
        self.report.unjudged_tasks = families.unjudged_count
        self._since = Since(self.report.first_offset, families.judged())
        self._state = state_at(past.checkpoint, self._partition, stored.own_record)
        return True

    async def _missing_inputs(self) -> Difference | None:
        """Return a difference where the ledger has folded what does not stand in `events`.

        A broker that came back without its last records, or a topic that is another one by now:
        to wait for them would be to wait for ever.
        """
        end, next_offset = await patiently(self._events.written_offset), self.report.next_offset
        if end >= next_offset:
            return None
        return Difference(
            problem="missing",
            topic=self._settings.topic(Topic.EVENTS),
            partition=self._partition,
            key=partition_subject(self._partition),
            expected=f"inputs up to offset {next_offset - 1}, which the ledger has folded",
            input_offset=end,
        )

    async def _missing_state(self) -> Difference | None:
        """Return a difference where `tasks` has lost the partition's own record, and all with it.

        Every batch ends with that record: where any other topic has one of the ledger's, it is there.
        """
        if self._stored.own_record:
            return None
        for topic in OUTPUTS:
            async for record in self._reader(topic).until_written():
                place = found(self._partition, record.key, record.value).place
                if place is None:
                    continue
                if await self._stored.later_offset():
                    return None  # the ledger has begun meanwhile
                return Difference(
                    problem="missing",
                    topic=self._settings.topic(Topic.TASKS),
                    partition=self._partition,
                    key=partition_subject(self._partition),
                    expected=f"the state of the partition: {topic.value} has what it caused",
                    input_offset=place[0],
                )
        return None

    async def _inputs(self) -> AsyncIterator[Sequence[RawRecord]]:
        """Yield the inputs that are judged.

        Raises:
            UnavailableError: retention has removed some of them meanwhile.
        """
        self._events.seek(self.report.first_offset)
        next_offset = self.report.next_offset
        while self._events.offset < next_offset:
            try:
                chunks = await patiently(self._events.read)
            except OffsetGoneError as gone:
                raise UnavailableError(f"{gone}: removed while it was judged; try again") from gone
            for chunk in chunks:
                yield [record for record in chunk.records if record.offset < next_offset]

    async def _fold_all(self, done: _Done) -> Difference | None:
        """Fold the inputs that the ledger has folded; return the first difference on the way."""
        async for chunk in self._inputs():  # 3.
            for record in chunk:
                self._fold(record)
            for output in self._outputs.values():
                await output.run(self._since)
            if (difference := self._first_difference()) is not None:
                return difference
            done.add(len(chunk))
        return None

    def _fold(self, record: RawRecord) -> None:
        state = self._state
        event = decode_event(record.value, record.headers)
        effects = fold(state, event, offset=record.offset, append_ms=record.timestamp)
        traceparent = None if isinstance(event, Refusal) else event.traceparent
        for effect in effects:
            self._expect(effect, self._encoder.encode(effect, state.clock_ms, record, traceparent))
        forget_changes(state)
        self.report.events += 1

    def _expect(self, effect: Effect, encoded: Encoded) -> None:
        if effect.topic is not Topic.TASKS:
            clock_ms = self._state.clock_ms
            self._outputs[effect.topic].expect(effect, encoded, clock_ms, self._since)
        elif effect.type == "stoploss.policy.state" and self._since is None:
            assert encoded.key is not None
            if encoded.value is None:
                self._policies.pop(encoded.key, None)
            else:
                self._policies[encoded.key] = encoded, (effect.offset, effect.index)

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
            await output.run_to_end(self._since)
        later = await self._stored.later_offset()  # 4.
        for output in self._outputs.values():
            if output.merge.difference is None:
                output.merge.finish(self.report.next_offset, later)
        return self._first_difference() or await self._compare_states()  # 5.

    async def _compare_states(self) -> Difference | None:
        if self.report.events:
            for encoded, place in self._policies.values():
                if (difference := await self._stored.compare(encoded, place)) is not None:
                    return difference
            for task in sorted(self._state.tasks.values(), key=lambda one: one.last_offset):
                if self._judges(task.task_id):
                    difference = await self._compare_task(task)
                    if difference is not None:
                        return difference
            own = drain_changes(self._state)[-1]
            encoded = self._encoder.encode(own, self._state.clock_ms)
            difference = await self._stored.compare(encoded, (own.offset, own.index))
            if difference is not None:
                return difference
        return self._stored.left(self._judges)

    def _judges(self, key: str) -> bool:
        return self._since is None or key in self._since.judged

    async def _compare_task(self, task: Task) -> Difference | None:
        place = task.last_offset, task.last_index
        effect = Effect(Topic.TASKS, "stoploss.task.state", task.task_id, task_state(task), *place)
        encoded = self._encoder.encode(effect, self._state.clock_ms)
        return await self._stored.compare(encoded, place)


def forget_changes(state: PartitionState) -> None:
    """Forget which tasks changed: of a fold whose states are looked at in the end only."""
    for task in state.changed:
        task.is_changed = False
    state.changed.clear()


def _input_offset(difference: Difference) -> int:
    return -1 if difference.input_offset is None else difference.input_offset
