"""Judging from a checkpoint on, where retention has removed the first inputs.

What came before is not known, so only tasks are judged that began afterwards, each with its whole
family: a child's usage counts in its parents, and a parent's block is its children's. A task began
afterwards where the ledger says so (its first `started` in `lifecycle`) at the same input at which
the fold opens it. Since the others' records are missing among what an input caused, the last number
of an id means nothing here: it is replaced by the place among the judged records.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal

import msgspec
from msgspec import Struct

from schemas.decode import Refusal
from schemas.envelope import epoch_ms_of
from schemas.events import Event
from schemas.fields import Mode
from schemas.outputs import Lifecycle
from schemas.refusal import UNREADABLE
from schemas.topics import Topic
from streams.budget.effects import Effect, Refused
from streams.budget.policy import InvalidPolicyError, Policy, policy_from_json
from streams.budget.state import BREAKER, PartitionState, Task, new_partition
from streams.kafka.ports import RawRecord
from streams.verify.compare import Found, Place

STARTED, CHECKPOINT = "started", "partition_checkpoint"
# Of the partition's own record: what a checkpoint does not tell.
UNKNOWN_OF_PARTITION = ("dedupe", "mode_by", "previous_mode")
# Of a task's state: where it stands among what others caused as well.
UNKNOWN_OF_TASK = ("last_index",)

_DECODER = msgspec.json.Decoder(float_hook=Decimal)
_ENCODER = msgspec.json.Encoder(decimal_format="number")


class _LifecycleRecord(Struct):
    data: Lifecycle


class _PolicyData(Struct):
    policy: msgspec.Raw


class _PolicyRecord(Struct):
    data: _PolicyData


class _LetterData(Struct):
    task_id: str | None = None


class _LetterRecord(Struct):
    data: _LetterData


class _OwnData(Struct):
    mode: Mode
    mode_by: str = ""


class _OwnRecord(Struct):
    data: _OwnData


_LIFECYCLE = msgspec.json.Decoder(_LifecycleRecord)
_POLICY = msgspec.json.Decoder(_PolicyRecord)
_LETTER = msgspec.json.Decoder(_LetterRecord)
_OWN = msgspec.json.Decoder(_OwnRecord)


class Checkpoint(Struct, frozen=True):
    """Where a partition stood: all inputs before `next_offset` were folded."""

    next_offset: int
    clock_ms: int
    mode: Mode
    policy: Policy


class Past:
    """What `lifecycle` says of a partition: its checkpoints, and where each task began."""

    def __init__(self, policies: dict[str, bytes], first_offset: int, next_offset: int) -> None:
        self._policies = policies
        self._first, self._next = first_offset, next_offset
        self._began: dict[str, int] = {}
        self.checkpoint: Checkpoint | None = None

    def __repr__(self) -> str:
        return f"<Past {len(self._began)} tasks, {self.checkpoint}>"

    def take(self, record: RawRecord) -> None:
        """Read one record; one that is torn is found out later."""
        if record.value is None:
            return
        try:
            data = _LIFECYCLE.decode(record.value).data
        except UNREADABLE:
            return
        if data.change == CHECKPOINT and self.checkpoint is None:
            self.checkpoint = self._usable(data)
        elif data.change == STARTED and data.task_id is not None and data.input is not None:
            self._began.setdefault(data.task_id, data.input.offset)

    def began_at(self, task_id: str, offset: int) -> bool:
        """Tell whether a task began, for the first time, by the input at `offset`."""
        return self._began.get(task_id) == offset

    def _usable(self, data: Lifecycle) -> Checkpoint | None:
        """Return the checkpoint if its inputs are still there, and its policy is."""
        if data.next_offset is None or not self._first <= data.next_offset <= self._next:
            return None
        stored = self._policies.get(data.policies[0]) if data.policies else None
        if stored is None or data.clock is None or data.mode is None:
            return None
        try:
            document = bytes(_POLICY.decode(stored).data.policy)
            policy = policy_from_json(document, "tasks")
            clock_ms = epoch_ms_of(data.clock)
        except (*UNREADABLE, InvalidPolicyError):
            return None
        return Checkpoint(data.next_offset, clock_ms, data.mode, policy)


def state_at(checkpoint: Checkpoint, partition: int, own_record: bytes) -> PartitionState:
    """Return the state of a partition at a checkpoint, as far as it is known.

    Who set the mode is told by the partition's last record alone: taken from there if it is still
    the same mode.
    """
    state = new_partition(partition, checkpoint.policy)
    state.next_offset, state.clock_ms = checkpoint.next_offset, checkpoint.clock_ms
    state.checkpoint_ms = checkpoint.clock_ms
    state.mode, state.policy = checkpoint.mode, checkpoint.policy
    state.retain(checkpoint.policy)
    try:
        own = _OWN.decode(own_record).data
    except UNREADABLE:
        return state
    if own.mode is checkpoint.mode and own.mode_by == BREAKER:
        state.mode_by = BREAKER
    return state


class Families:
    """Finds out, in a first fold, which tasks can be judged."""

    def __init__(self, past: Past) -> None:
        self._past = past
        self._known: set[str] = set()
        self._unknown: set[str] = set()

    def learn(
        self, state: PartitionState, event: Event | Refusal, effects: Sequence[Effect]
    ) -> None:
        """Look at what an event has opened, and at the family that it belongs to."""
        for effect in effects:
            data = effect.data
            if isinstance(data, Lifecycle) and data.change == STARTED and data.task_id is not None:
                known = self._past.began_at(data.task_id, effect.offset)
                (self._known if known else self._unknown).add(data.task_id)
        task = None if isinstance(event, Refusal) else state.tasks.get(event.subject)
        if task is not None:
            chain = {task.task_id, *(above.task_id for above in state.ancestors(task))}
            if chain & self._unknown and chain - self._unknown:
                self._unknown.update(_family(state, task))

    def judged(self) -> frozenset[str]:
        """Return the tasks that can be judged."""
        return frozenset(self._known - self._unknown)

    @property
    def unjudged_count(self) -> int:
        """How many tasks were met that cannot be judged."""
        return len(self._unknown)


def _family(state: PartitionState, task: Task) -> Iterator[str]:
    root_id = state.root(task).task_id
    yield root_id
    yield from state.descendants(root_id)


class Since:
    """What is judged from an input on: records of these tasks, and letters of nobody's."""

    def __init__(self, next_offset: int, judged: frozenset[str]) -> None:
        self._next_offset = next_offset
        self.judged = judged

    def expects(self, effect: Effect) -> bool:
        """Tell whether the record of an effect is judged."""
        if isinstance(effect.data, Refused):
            return effect.data.task_id is None or effect.data.task_id in self.judged
        return effect.key in self.judged

    def finds(self, topic: Topic, record: Found) -> bool:
        """Tell whether a record that is there is judged; what is not ours always is."""
        if record.value is None:
            return self._has(record.key)
        if record.place is None:
            return True
        if record.place[0] < self._next_offset:
            return False
        if topic is not Topic.DEAD_LETTERS:
            return self._has(record.key)
        try:
            task_id = _LETTER.decode(record.value).data.task_id
        except UNREADABLE:
            return True
        return task_id is None or task_id in self.judged

    def _has(self, key: bytes | None) -> bool:
        return key is not None and key.decode(errors="replace") in self.judged


class Numbering:
    """Numbers records anew within each input."""

    def __init__(self) -> None:
        self._last: Place = (-1, -1)

    def next(self, offset: int) -> Place:
        """Return the place of the next record that the input at `offset` has caused."""
        index = self._last[1] + 1 if offset == self._last[0] else 0
        self._last = offset, index
        return self._last


def renumbered(value: bytes, partition: int, place: Place) -> bytes:
    """Return a record under the id of another place; one that is torn as it is."""
    try:
        envelope = _DECODER.decode(value)
    except UNREADABLE:
        return value
    if not isinstance(envelope, dict):
        return value
    return _ENCODER.encode(envelope | {"id": f"{partition}-{place[0]}-{place[1]}"})


def known_part(value: bytes) -> bytes:
    """Return a record of `tasks` without what cannot be known from a checkpoint on."""
    try:
        envelope = _DECODER.decode(value)
        kind, data = envelope["type"], envelope["data"]
        unknown = UNKNOWN_OF_TASK if kind == "stoploss.task.state" else UNKNOWN_OF_PARTITION
        data = {name: item for name, item in data.items() if name not in unknown}
    except (*UNREADABLE, LookupError, TypeError, AttributeError):
        return value
    offset = str(envelope.get("id", "")).rpartition("-")[0]
    return _ENCODER.encode(envelope | {"id": offset, "data": data})
