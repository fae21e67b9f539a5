"""A record of `tasks` that is torn or foreign, made anew from `events`: for `stoploss recover`.

The partition is folded again up to where its ledger has come, as `verify` does it; what the fold
gives for a key is what has to stand there. This room only reads: whoever writes the record must own
the partition first, and then call `catch_up` once more, since its ledger may have gone on.

Where retention has removed the first events, the fold begins at a checkpoint, and knows only the
tasks that began after it, with their whole families: see `since`. Where `tasks` no longer says how
far the ledger had come, the latest input that any other record names does: what comes after it has
caused nothing but states, and is folded once more by the ledger.

With the partition's own record come all tasks that are not there: `tasks` may have been emptied, and
with that record alone the ledger would go on as if there had never been any.
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from schemas.decode import decode_event
from schemas.envelope import Envelope
from schemas.errors import StoplossError, UnavailableError
from schemas.events import PARTITION_PREFIX, partition_subject
from schemas.outputs import Heartbeat
from schemas.refusal import UNREADABLE
from schemas.topics import OUTPUTS, Topic
from streams.budget.effects import Effect
from streams.budget.encode import EffectEncoder
from streams.budget.fold import fold
from streams.budget.policy import Policy
from streams.budget.snapshot import drain_changes, task_state
from streams.budget.state import POLICY_KEY, PartitionState, Task, new_partition
from streams.kafka.errors import OffsetGoneError
from streams.kafka.ports import RawRecord
from streams.kafka.producers import fits
from streams.kafka.reader import KafkaReader
from streams.kafka.settings import Settings
from streams.verify.compare import found
from streams.verify.difference import first_difference
from streams.verify.reading import OnProgress, OutputReader, patiently
from streams.verify.refold import forget_changes
from streams.verify.since import Families, Past, known_part, state_at
from streams.verify.tasks_log import TasksLog

READ = (Topic.EVENTS, Topic.TASKS, *OUTPUTS, Topic.HEARTBEATS)

_HEARTBEAT = msgspec.json.Decoder(Envelope[Heartbeat])


class NotRebuildableError(StoplossError):
    """What is left in the topics does not say what a record of `tasks` was."""

    def __init__(self, partition: int, key: str, why: str) -> None:
        super().__init__(f"tasks, partition {partition}, key {key}: cannot be rebuilt: {why}")
        self.partition, self.key = partition, key


class Rebuild:
    """The fold of one partition, for a record of it.

    Args:
        client: knows the leaders of `READ`.
        settings: names the topics.
        partition: of `events`, and of `tasks`.
        key: of the record.
        default_policy: what the ledger folded by before the first `policy.set`.
        on_progress: told how many events are folded, and how many there are.
    """

    def __init__(
        self,
        client: Any,  # noqa: ANN401 - aiokafka has no types
        settings: Settings,
        partition: int,
        key: str,
        default_policy: Policy,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._client, self._settings, self._partition = client, settings, partition
        self._on_progress = on_progress
        self._key, self._own_key = key, partition_subject(partition)
        self._events = KafkaReader(client, settings.topic(Topic.EVENTS), partition)
        self._encoder = EffectEncoder(partition, settings.topic(Topic.EVENTS), fits)
        self._state: PartitionState = new_partition(partition, default_policy)
        self._policies: dict[str, bytes] = {}
        self._families: Families | None = None  # None: every event is there
        self._told: set[str] = set()  # tasks that `lifecycle` names, where that matters
        self.stored = TasksLog(self._reader(Topic.TASKS), partition)
        self.events = 0

    def __repr__(self) -> str:
        return f"<Rebuild {self._partition} {self._key}: {self.events} events, {self.stored}>"

    @property
    def from_checkpoint(self) -> bool:
        """Whether the first events are gone."""
        return self._families is not None

    async def begin(self) -> None:
        """Fold up to where the ledger has come.

        Raises:
            NotRebuildableError: it says why.
            UnavailableError: Kafka does not answer.
        """
        await self.stored.read()
        next_offset = await self._next_offset()
        first = await patiently(self._events.first_offset)
        self._events.seek(first)
        if first:
            await self._begin_at_checkpoint(first, next_offset)
        await self._fold_to(next_offset)

    async def catch_up(self) -> None:
        """Fold what the ledger has committed since.

        Raises:
            NotRebuildableError: it says why.
            UnavailableError: Kafka does not answer.
        """
        await self.stored.read()
        await self._fold_to(await self._next_offset())

    def is_sound(self) -> bool:
        """Whether the record that stands there is what the fold gives."""
        there, wanted = self.stored.last.get(self._key), self._rebuilt(self._key)
        if there is None or wanted is None:
            return there is wanted
        if self._missing() or self._strangers():
            return False
        if self.from_checkpoint:
            there, wanted = known_part(there), known_part(wanted)
        return first_difference(wanted, there) is None

    def records(self) -> list[tuple[bytes, bytes | None]]:
        """Return key and value of what has to be written; None deletes, the partition's own is last.

        With the record comes what it refers to, as far as that is not there: policies, parents; with
        the partition's own all of its tasks.

        Raises:
            NotRebuildableError: it says why.
        """
        stored = self.stored
        keys = [*self._missing(), *self._strangers(), self._key]
        made = [(key, self._rebuilt(key)) for key in keys]
        if self._key != self._own_key:
            if stored.own_counts:  # a batch ends with it
                made.append((self._own_key, stored.own_record))
            elif self._state.next_offset:
                raise self._impossible(
                    f"{self._own_key} is torn as well; `stoploss recover {self._own_key} --reason …` first"
                )
        return [(stored.raw_keys.get(key, key.encode()), value) for key, value in made]

    def task(self) -> Task | None:
        """Return the task that the record is about, if the fold knows it."""
        return self._state.tasks.get(self._key)

    def root_id(self, task: Task) -> str:
        """Return the root of a task's family, which its events are keyed by."""
        return self._state.root(task).task_id

    def is_caused(self) -> bool:
        """Whether the events give a record of this key at all.

        Raises:
            NotRebuildableError: the fold does not know.
        """
        return self._rebuilt(self._key) is not None

    @property
    def next_offset(self) -> int:
        """Events before this one are folded."""
        return self._state.next_offset

    async def _next_offset(self) -> int:
        """Return where the ledger has come to: what `tasks` says, else what everything else says."""
        end = await patiently(self._events.written_offset)
        next_offset = self.stored.next_offset
        # Nothing says it, or what does is torn, or an older one that came again.
        if not next_offset or next_offset < self.stored.folded_at_least:
            next_offset = max([self.stored.folded_at_least, *[at async for at in self._traces()]])
        if next_offset > end:
            raise self._impossible(
                f"the ledger had folded events up to offset {next_offset - 1}, and `events` ends at "
                f"{end}: it is another topic by now, or has lost its end"
            )
        return next_offset

    async def _traces(self) -> AsyncIterator[int]:
        """Yield what the other topics say of how far the ledger had come."""
        for topic in OUTPUTS:
            async for record in self._reader(topic).until_written():
                place = found(self._partition, record.key, record.value).place
                if place is not None:
                    yield place[0] + 1
        beats = OutputReader(self._client, self._settings.topic(Topic.HEARTBEATS), 0)
        async for record in beats.until_written():
            if record.key == self._own_key.encode() and record.value is not None:
                with contextlib.suppress(*UNREADABLE):
                    yield _HEARTBEAT.decode(record.value).data.next_offset

    async def _begin_at_checkpoint(self, first: int, next_offset: int) -> None:
        if next_offset and self._own_key not in self.stored.raw_keys:
            raise self._impossible(
                f"`events` begins at offset {first}, and `tasks` has lost what came before"
            )
        past = Past(self.stored.policies, first, next_offset)
        async for record in self._reader(Topic.LIFECYCLE).until_written():
            past.take(record)
            self._told.add((record.key or b"").decode(errors="replace"))
        checkpoint = past.checkpoint
        if checkpoint is None:
            raise self._impossible(
                f"`events` begins at offset {first}, and `lifecycle` has no checkpoint from there on"
            )
        self._families = Families(past)
        self._state = state_at(checkpoint, self._partition, self.stored.own_record)
        self._state.offset = checkpoint.next_offset - 1
        self._events.seek(checkpoint.next_offset)

    async def _fold_to(self, next_offset: int) -> None:
        begin = self._events.offset
        while self._events.offset < next_offset:
            try:
                chunks = await patiently(self._events.read)
            except OffsetGoneError as gone:
                raise UnavailableError(f"{gone}: removed while it was read; try again") from gone
            for chunk in chunks:
                for record in chunk.records:
                    if record.offset < next_offset:
                        self._fold(record)
                if self._on_progress is not None:
                    done = min(chunk.next_offset, next_offset) - begin
                    self._on_progress(done, next_offset - begin)
        self._events.seek(next_offset)  # what was read beyond is read again

    def _fold(self, record: RawRecord) -> None:
        state = self._state
        event = decode_event(record.value, record.headers)
        effects = fold(state, event, offset=record.offset, append_ms=record.timestamp)
        for effect in effects:
            if effect.type == "stoploss.policy.state":
                encoded = self._encoder.encode(effect, state.clock_ms)
                if encoded.value is None:
                    self._policies.pop(effect.key, None)
                else:
                    self._policies[effect.key] = encoded.value
        if self._families is not None:
            self._families.learn(state, event, effects)
        forget_changes(state)
        self.events += 1

    def _missing(self) -> list[str]:
        """Return the keys that the record refers to and that are not there."""
        stored = self.stored.last
        return [key for key in self._referred() if key not in stored and key != self._key]

    def _strangers(self) -> list[str]:
        """Return other partitions' own keys: a restore takes their records for this one's."""
        if self._key != self._own_key:
            return []
        return [
            key
            for key in self.stored.last
            if key.startswith(PARTITION_PREFIX) and key != self._own_key
        ]

    def _referred(self) -> list[str]:
        if self._key == self._own_key:
            return self._all_known()
        task = self.task()
        if task is None:
            return []
        family = [task, *self._state.ancestors(task)]
        policies = dict.fromkeys(POLICY_KEY + one.policy.hash for one in family)
        return [*policies, *(one.task_id for one in family)]

    def _all_known(self) -> list[str]:
        """Return the keys of all policies and tasks that the fold knows."""
        state = self._state
        tasks = list(state.tasks)
        if self._families is not None:
            judged = self._families.judged()
            tasks = [task_id for task_id in tasks if task_id in judged]
        policies = [state.tasks[task_id].policy for task_id in tasks]
        if state.policy is not None:
            policies.append(state.policy)
        return [*dict.fromkeys(POLICY_KEY + policy.hash for policy in policies), *tasks]

    def _rebuilt(self, key: str) -> bytes | None:
        """Return the value that the fold gives for a key; None where nothing has caused one.

        Raises:
            NotRebuildableError: the fold does not know, since it began at a checkpoint.
        """
        if key.startswith(POLICY_KEY):
            return self._rebuilt_policy(key)
        if key.startswith(PARTITION_PREFIX):
            if key != self._own_key or not self._state.next_offset:
                return None  # another partition's, or the ledger has folded nothing here yet
            own = drain_changes(self._state)[-1]
            return self._encoder.encode(own, self._state.clock_ms).value
        task = self._state.tasks.get(key)
        if self._families is not None and key not in self._families.judged():
            if task is None and key not in self._told:
                return None  # a task's start is told for 90 days, and it is forgotten sooner
            raise self._impossible(
                "it began, or its family did, before the first event that is left"
            )
        if task is None:
            return None
        place = task.last_offset, task.last_index
        effect = Effect(Topic.TASKS, "stoploss.task.state", key, task_state(task), *place)
        return self._encoder.encode(effect, self._state.clock_ms).value

    def _rebuilt_policy(self, key: str) -> bytes | None:
        """Return a policy's record: its key is the hash of its content, so any sound one is right."""
        made = self._policies.get(key) or self.stored.policies.get(key.removeprefix(POLICY_KEY))
        if made is None and self._families is not None:
            raise self._impossible("the event that set it is gone")
        if key not in self._policies and self._families is None:
            return None  # no task refers to it any more
        return made

    def _impossible(self, why: str) -> NotRebuildableError:
        return NotRebuildableError(self._partition, self._key, why)

    def _reader(self, topic: Topic) -> OutputReader:
        return OutputReader(self._client, self._settings.topic(topic), self._partition)
