"""What the records of one read say, as changes in Redis. Pure: records in, changes out.

Only one thing has to be looked up in Redis: the earlier word about an execution that is published
again (`wanted`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec
from msgspec import Struct

from schemas.alerts import Alert, AlertState
from schemas.audit import Audit
from schemas.baselines import Baseline
from schemas.envelope import Envelope, epoch_ms_of
from schemas.events import PARTITION_PREFIX
from schemas.feedback import Feedback
from schemas.health import Health
from schemas.outputs import Breach, Decision, ExecutionRecord, Heartbeat, Lifecycle
from schemas.refusal import UNREADABLE
from schemas.reports import Report
from schemas.sketches import RELATIVE_ERROR, Histogram
from schemas.topics import Topic
from streams.kafka.ports import RawRecord
from streams.view.changes import Changes
from streams.view.keys import KEPT_DAYS, REPORT_DAYS, Keys, day_end_s, hour_end_s
from streams.view.totals import Counted, Totals, counted

POLICY_PREFIX = "policy/"
TRANSITIONS, COMMITS = "transitions", "commits"
ZEROS = b"zeros"
ENDED = "ended"
FIRST_REVISION = 1

Field = tuple[bytes, bytes]  # a hash, and one of its fields


class _CellShare(Struct):
    scope: str
    metric: str
    used: float
    limit: float


class _TaskShare(Struct):
    """As much of a task's state as decides where it stands in the lists."""

    task_id: str
    status: str
    cells: list[_CellShare]


class _Stamped(Struct):
    """As much of any record of ours as says when it was written."""

    time: str


class _Reason(Struct):
    reason: str


_TASK = msgspec.json.Decoder(Envelope[_TaskShare])
_EXECUTION = msgspec.json.Decoder(Envelope[ExecutionRecord])
_DECISION = msgspec.json.Decoder(Envelope[Decision])
_BREACH = msgspec.json.Decoder(Envelope[Breach])
_LIFECYCLE = msgspec.json.Decoder(Envelope[Lifecycle])
_HEARTBEAT = msgspec.json.Decoder(Envelope[Heartbeat])
_HEALTH = msgspec.json.Decoder(Envelope[Health])
_ALERT = msgspec.json.Decoder(Envelope[Alert])
_BASELINE = msgspec.json.Decoder(Envelope[Baseline])
_REPORT = msgspec.json.Decoder(Envelope[Report])
_AUDIT = msgspec.json.Decoder(Envelope[Audit])
_FEEDBACK = msgspec.json.Decoder(Envelope[Feedback])
_LETTER = msgspec.json.Decoder(Envelope[_Reason])
_STAMPED = msgspec.json.Decoder(_Stamped)


class Digest:
    """Takes the records of one read, topic by topic; each partition's in their order."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._changes = Changes()
        self._totals = Totals(keys)
        self._executions: list[tuple[Field, int, Counted]] = []  # with its revision
        self._last: dict[tuple[int, bytes], bytes | None] = {}
        self.unreadable: Counter[Topic] = Counter()

    def __repr__(self) -> str:
        return f"<Digest {self._changes}>"

    def take(self, topic: Topic, partition: int, records: Iterable[RawRecord]) -> None:
        """Take what was read of one partition; what cannot be read is counted and left out."""
        if topic is Topic.TASKS:
            for record in records:
                self._last[partition, record.key or b""] = record.value
            return
        taker = _TAKERS[topic]
        for record in records:
            try:
                taker(self, record.key or b"", record.value)
            except UNREADABLE:
                self.unreadable[topic] += 1

    def wanted(self) -> list[Field]:
        """Return what has to be looked up before `changes` can be said."""
        wanted: dict[Field, None] = {}
        seen: set[Field] = set()
        for field, revision, _ in self._executions:
            if field not in seen and revision > FIRST_REVISION:
                wanted[field] = None
            seen.add(field)
        return list(wanted)

    def changes(self, found: Mapping[Field, bytes | None]) -> Changes:
        """Return what all records together change.

        Args:
            found: what Redis has of the fields that are `wanted`.
        """
        changes = self._changes
        for (partition, key), value in self._last.items():
            try:
                self._task(partition, key, value)
            except UNREADABLE:
                self.unreadable[Topic.TASKS] += 1
        last: dict[Field, Counted] = {
            field: counted(_EXECUTION.decode(value))
            for field, value in found.items()
            if value is not None
        }
        for field, revision, now in self._executions:
            # Before the first revision there is none: one that is found is of an earlier life of
            # the task, and stays counted.
            earlier = last.get(field) if revision > FIRST_REVISION else None
            self._totals.execution(now, earlier)
            last[field] = now
        self._totals.into(changes)
        for topic, count in self.unreadable.items():
            changes.count(self._keys.unreadable, topic.encode(), count)
        return changes

    def _task(self, partition: int, key: bytes, value: bytes | None) -> None:
        keys, changes, name = self._keys, self._changes, key.decode()
        if name.startswith(PARTITION_PREFIX):
            number = name.removeprefix(PARTITION_PREFIX).encode()
            changes.set_field(keys.partitions, number, _checked(value))
        elif name.startswith(POLICY_PREFIX):
            # Each partition has a copy of its own, which goes with the last task that refers to it.
            field = f"{partition}/{name.removeprefix(POLICY_PREFIX)}".encode()
            changes.set_field(keys.policies, field, _checked(value))
        elif value is None:
            changes.set_field(keys.tasks, key, None)
            changes.score(keys.open, key, None)
            changes.score(keys.ended, key, None)
        else:
            record = _TASK.decode(value)
            share, is_ended = _share(record.data.cells), record.data.status == ENDED
            changes.set_field(keys.tasks, key, value)
            changes.score(keys.open, key, None if is_ended else share)
            changes.score(keys.ended, key, share if is_ended else None)

    def _decision(self, _key: bytes, value: bytes | None) -> None:
        if (
            value is not None
        ):  # deleted when the task leaves: what was decided stays until it expires
            record = _DECISION.decode(value)
            self._of_task("decisions", record.data.task_id, record.time, value)
            self._feed("decisions", record.time, value)

    def _breach(self, _key: bytes, value: bytes | None) -> None:
        if value is not None:
            record = _BREACH.decode(value)
            self._of_task("breaches", record.data.task_id, record.time, value)
            self._feed("breaches", record.time, value)

    def _lifecycle(self, _key: bytes, value: bytes | None) -> None:
        if value is None:
            return
        record = _LIFECYCLE.decode(value)
        task_id, parent = record.data.task_id, record.data.parent_task_id
        if task_id is None:
            return  # where a partition stands
        self._of_task("changes", task_id, record.time, value)
        if parent is not None:
            # Not from its state, of which not each one is looked at.
            children = self._keys.of_task("children", parent)
            self._keep(children, record.time)
            self._changes.add_member(children, task_id.encode())
        if record.data.change == ENDED:
            self._totals.ended(record)

    def _execution(self, _key: bytes, value: bytes | None) -> None:
        if value is None:
            return
        record = _EXECUTION.decode(value)
        adds = counted(record)
        key = self._keys.of_task("executions", record.data.task_id)
        field = f"{record.data.phase}/{record.data.attempt}".encode()
        self._keep(key, record.time)
        self._changes.set_field(key, field, value)
        self._executions.append(((key, field), record.data.revision, adds))

    def _heartbeat(self, key: bytes, value: bytes | None) -> None:
        if value is not None:
            _HEARTBEAT.decode(value)
            number = key.decode().removeprefix(PARTITION_PREFIX).encode()
            self._changes.set_field(self._keys.heartbeats, number, value)

    def _health(self, _key: bytes, value: bytes | None) -> None:
        if value is None:
            return
        record = _HEALTH.decode(value)
        keys, changes, source = self._keys, self._changes, record.data.source.encode()
        changes.score(keys.sources, source, float(_ms(record.time)))
        changes.set_field(keys.health, source, value)
        changes.bound(keys.sources, keys.health)
        hour = record.time[:13]
        if record.data.transition_ms is not None:
            self._sketch(TRANSITIONS, hour, record.data.source, record.data.transition_ms)
        if record.data.ledger is not None:
            self._sketch(COMMITS, hour, record.data.source, record.data.ledger.commit_ms)

    def _sketch(self, kind: str, hour: str, source: str, histogram: Histogram) -> None:
        if histogram.relative_error != RELATIVE_ERROR:
            raise ValueError(f"relative_error: {histogram.relative_error}: other buckets than ours")
        key = self._keys.sketch(kind, hour, source)
        self._changes.expire(key, hour_end_s(hour))
        self._changes.count(key, ZEROS, histogram.zeros)
        for index, count in histogram.buckets.items():
            self._changes.count(key, b"%d" % index, count)

    def _alert(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._changes.set_field(self._keys.alerts, key, None)
            return
        record = _ALERT.decode(value)
        fires = record.data.state is AlertState.FIRING
        self._changes.set_field(self._keys.alerts, key, value if fires else None)
        self._feed("alerts", record.time, value)

    def _baseline(self, key: bytes, value: bytes | None) -> None:
        if value is not None:
            _BASELINE.decode(value)
        self._changes.set_field(self._keys.baselines, key, value)

    def _report(self, key: bytes, value: bytes | None) -> None:
        place = self._keys.of_task("report", key.decode())
        if value is not None:
            time = _REPORT.decode(value).time
            _ms(time)  # who reads it asks whether it is of this task or of an earlier one
            self._keep(place, time, REPORT_DAYS)
        self._changes.set_text(place, value)

    def _audit(self, _key: bytes, value: bytes | None) -> None:
        if value is None:
            return
        record = _AUDIT.decode(value)
        self._feed("audit", record.time, value)
        about = record.data.task_id or record.data.subject
        self._of_task("audit", about, record.time, value, REPORT_DAYS)

    def _feedback(self, _key: bytes, value: bytes | None) -> None:
        if value is not None:
            record = _FEEDBACK.decode(value)
            self._of_task("feedback", record.data.task_id, record.time, value, REPORT_DAYS)

    def _dead_letter(self, _key: bytes, value: bytes | None) -> None:
        if value is not None:
            record = _LETTER.decode(value)
            key = self._keys.dead_letters(record.time[:10])
            self._keep(key, record.time)
            self._changes.count(key, record.data.reason.encode(), 1)

    def _of_task(
        self, kind: str, task_id: str, time: str, value: bytes, days: int = KEPT_DAYS
    ) -> None:
        key = self._keys.of_task(kind, task_id)
        self._keep(key, time, days)
        self._changes.push(key, value)

    def _feed(self, name: str, time: str, value: bytes) -> None:
        self._changes.feed(self._keys.feed(name), _ms(time), value)

    def _keep(self, key: bytes, time: str, days: int = KEPT_DAYS) -> None:
        self._changes.expire(key, day_end_s(time[:10], days))


Taker = Callable[[Digest, bytes, bytes | None], None]
_TAKERS: Mapping[Topic, Taker] = {
    Topic.DECISIONS: Digest._decision,  # noqa: SLF001 - a table of our own methods
    Topic.BREACHES: Digest._breach,  # noqa: SLF001
    Topic.LIFECYCLE: Digest._lifecycle,  # noqa: SLF001
    Topic.EXECUTIONS: Digest._execution,  # noqa: SLF001
    Topic.HEARTBEATS: Digest._heartbeat,  # noqa: SLF001
    Topic.HEALTH: Digest._health,  # noqa: SLF001
    Topic.ALERTS: Digest._alert,  # noqa: SLF001
    Topic.BASELINES: Digest._baseline,  # noqa: SLF001
    Topic.REPORTS: Digest._report,  # noqa: SLF001
    Topic.AUDIT: Digest._audit,  # noqa: SLF001
    Topic.FEEDBACK: Digest._feedback,  # noqa: SLF001
    Topic.DEAD_LETTERS: Digest._dead_letter,  # noqa: SLF001
}
TOPICS = (Topic.TASKS, *_TAKERS)


def _share(cells: list[_CellShare]) -> float:
    """Return what part of its token limit a task has used; 0 where it has none."""
    for cell in cells:
        if cell.scope == "task" and cell.metric == "tokens":
            return cell.used / cell.limit if cell.limit else 0.0
    return 0.0


def _checked(value: bytes | None) -> bytes | None:
    if value is not None:
        _STAMPED.decode(value)
    return value


def _ms(time: str) -> int:
    return epoch_ms_of(time)
