"""Compares what stands in the topics with what the inputs must have caused.

An id, `{partition}-{offset}-{index}`, says which input has caused a record, so each topic is read
side by side with the inputs. Within one input only the order that the contract gives is judged: that
of the levels of a cell, of the decisions of a task, of the revisions of an execution.
"""

import base64
from collections.abc import Iterable, Iterator
from typing import Literal

from streams.verify.independent.expected import Expected, cell_of
from streams.verify.independent.found import FOREVER, Found, FoundTopic
from streams.verify.independent.limits import LEVELS, Policy
from streams.verify.independent.partition import LEDGER, Partition
from streams.verify.independent.records import TOPICS, Checkpoint, Difference, Records, shown
from streams.verify.independent.scope import Scope
from streams.verify.independent.states import task_fields
from streams.verify.independent.task import Task
from streams.verify.independent.times import rfc3339
from streams.verify.independent.values import OneOf, data_of, same
from streams.verify.independent.wire import Data

NOTHING = "no such record"
NotJudged = Literal["no_checkpoint", "policy_gone"]
TYPES = {
    "decisions": "stoploss.decision",
    "breaches": "stoploss.breach",
    "executions": "stoploss.execution",
    "lifecycle": "stoploss.lifecycle",
    "dead-letters": "stoploss.dead_letter",
}


def first_difference(records: Records) -> Difference | None:
    """Return the first difference, by input; None where everything follows from the inputs."""
    return next(Judge(records).differences(), None)


class Judge:
    """Judges one partition. `differences` yields as it goes; only the first is surely one.

    What comes after the first may follow from it.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._number = records.partition
        self._partition = Partition(records.partition)
        if records.first_policy is not None:
            self._partition.policy = Policy(*records.first_policy)
        self._topics = [
            FoundTopic(name, records.partition, records.outputs.get(name, ())) for name in TOPICS
        ]
        self._stored: dict[str, tuple[int, bytes]] = {}
        self._owed: dict[str | None, Difference] = {}
        self._scope: Scope | None = None  # None: everything is judged
        self.first_offset = 0  # where judging begins
        self.next_offset = 0
        self.events = 0
        self.not_judged: NotJudged | None = None

    @property
    def judged_count(self) -> int:
        """How many tasks have begun after the checkpoint."""
        return 0 if self._scope is None else self._scope.counts[0]

    @property
    def unjudged_count(self) -> int:
        """How many tasks were met that began before the checkpoint."""
        return 0 if self._scope is None else self._scope.counts[1]

    def differences(self) -> Iterator[Difference]:
        """Yield what does not follow from the inputs, in their order."""
        yield from self._read_tasks()
        lost = self._lost_state()
        if lost is not None:
            yield lost
            return
        if self._records.checkpoints is not None:
            self.not_judged = self._begin_at_one(self._records.checkpoints)
            if self.not_judged is not None:
                return
        expected_end = -1
        for offset, append_ms, key, value, headers in self._records.events:
            if offset >= self.next_offset:
                break
            if offset < self.first_offset:
                continue
            self.events += 1
            expected_end = offset
            letters = self._topics[0]
            letters.look(offset)
            expected = self._partition.fold(
                offset, append_ms, value, headers, is_refused=letters.next_input == offset
            )
            if expected or self._is_found(offset):
                yield from self._compare(offset, key, expected)
        yield from self._finish(expected_end)

    def _lost_state(self) -> Difference | None:
        """Return a difference where `tasks` has no record of the partition, and others have.

        Whatever an input causes becomes visible together with that record.
        """
        own = self._partition.own_subject
        if own in self._stored:
            return None
        for topic in self._topics:
            topic.look(0)
            if topic.first_input is None:
                continue
            later_offset = self._records.later_offset
            if later_offset is not None and later_offset():
                return None  # it was written meanwhile
            expected = f"the state of the partition, since {topic.name} has what it caused"
            return self._of_tasks(own, "", expected, NOTHING, topic.first_input)
        return None

    def _begin_at_one(self, checkpoints: Iterable[Checkpoint]) -> NotJudged | None:
        """Begin at the first checkpoint whose policy is still there; tell why there is none."""
        reason: NotJudged = "no_checkpoint"
        for one in checkpoints:
            document = data_of(self._stored.get(f"policy/{one.policy_hash}", (0, b""))[1])
            if "policy" in document:
                self._begin_at(one, Policy(document["policy"], one.policy_hash))
                return None
            reason = "policy_gone"
        return reason

    def _begin_at(self, checkpoint: Checkpoint, policy: Policy) -> None:
        partition = self._partition
        self.first_offset = checkpoint.next_offset
        partition.policy = policy
        partition.is_policy_set = True
        partition.clock_ms, partition.mode = checkpoint.clock_ms, checkpoint.mode
        partition.mode_by = None  # that is not told
        partition.is_partial = True
        self._scope = Scope(partition)
        for topic in self._topics:
            topic.begins_at = checkpoint.next_offset
            topic.keeps_deletion = self._judges

    # The topics beside `tasks`

    def _is_found(self, offset: int) -> bool:
        for topic in self._topics:  # noqa: SIM110 - for every input, and `any` takes twice as long
            if topic.next_input <= offset:
                return True
        return False

    def _compare(
        self, offset: int, key: bytes | None, expected: list[Expected]
    ) -> Iterator[Difference]:
        if self._scope is not None:
            lifecycle = self._topics[TOPICS.index("lifecycle")].peek_all(offset)
            expected = self._scope.learn(expected, lifecycle)
        for topic in self._topics:
            if not expected and topic.next_input > offset:
                continue
            found = topic.take(offset)
            wanted = [one for one in expected if one.topic == topic.name] if expected else []
            if not found and not wanted:
                continue
            for one in wanted:
                if one.is_deletion:
                    yield from self._expect_deletion(topic, one, offset)
            records = []
            for record in found:
                difference = self._misplaced(topic, record, offset)
                if difference is not None:
                    yield difference
                elif self._scope is not None and not self._scope.finds(topic.name, record):
                    continue
                elif record.data.get("change") == "partition_checkpoint":
                    yield from self._check_checkpoint(record, offset)
                else:
                    records.append(record)
            if topic.name == "dead-letters":
                for one in wanted:
                    one.key = None if key is None else key.decode(errors="replace")
            wanted = [one for one in wanted if not one.is_deletion]
            yield from self._pair(topic, wanted, records, offset)

    def _expect_deletion(
        self, topic: FoundTopic, one: Expected, offset: int
    ) -> Iterator[Difference]:
        there = topic.deletions.get(one.key)
        self._owed.pop(one.key, None)
        if there:
            there.pop(0)
            if not there:
                del topic.deletions[one.key]
        elif not self._may_be_compacted():
            yield self._missing(topic.name, one, offset, "a deletion")

    def _may_be_compacted(self) -> bool:
        before_ms = self._records.compacted_before_ms
        return before_ms is not None and self._partition.clock_ms < before_ms

    def _misplaced(self, topic: FoundTopic, record: Found, offset: int) -> Difference | None:
        """Return a difference where a record has no input, or stands after a later one."""
        place = record.place
        if place is None or place[0] < offset:
            expected = "an id of an input, in order of the inputs"
        elif place <= topic.last:
            expected = f"an id after {self._number}-{topic.last[0]}-{topic.last[1]}"
        else:
            topic.last = place
            return None
        return self._differs(topic.name, record, "id", expected, record.envelope.get("id"))

    def _check_checkpoint(self, record: Found, offset: int) -> Iterator[Difference]:
        wanted: Data = {"next_offset": offset + 1, "mode": self._partition.mode}
        for name, value in wanted.items():
            if record.data.get(name) != value:
                yield self._differs("lifecycle", record, name, value, record.data.get(name))

    def _pair(
        self,
        topic: FoundTopic,
        wanted: list[Expected],
        found: list[Found],
        offset: int,
    ) -> Iterator[Difference]:
        """Compare in the order that the contract gives: within one cell, task or execution."""
        expected = sorted(wanted, key=lambda one: _group(topic.name, one.key, one.facts))
        there = sorted(found, key=lambda one: _group(topic.name, one.key, one.data))
        clock = rfc3339(self._partition.clock_ms)
        while expected or there:
            if not there:
                yield from self._absent(topic, expected.pop(0), offset)
                continue
            if not expected:
                record = there.pop(0)
                yield self._differs(topic.name, record, "", NOTHING, record.data)
                continue
            one, record = expected[0], there[0]
            of_one = _group(topic.name, one.key, one.facts)
            of_record = _group(topic.name, record.key, record.data)
            if of_one < of_record or (
                of_one == of_record and len(expected) > len(there) and not _alike(one, record)
            ):
                yield from self._absent(topic, expected.pop(0), offset)
            elif of_one > of_record:
                there.pop(0)
                yield self._differs(topic.name, record, "", NOTHING, record.data)
            else:
                expected.pop(0)
                there.pop(0)
                self._owed.pop(one.key if topic.name == "decisions" else "", None)
                yield from self._check(topic.name, one, record, clock)

    def _absent(self, topic: FoundTopic, one: Expected, offset: int) -> Iterator[Difference]:
        difference = self._missing(topic.name, one, offset, one.facts)
        if topic.name == "decisions" and self._may_be_compacted():
            self._owed[one.key] = difference
            return
        is_first = topic.first_input is None or offset <= topic.first_input
        if not is_first or not self._records.trimmed(topic.name):
            yield difference

    def _check(self, topic: str, one: Expected, record: Found, clock: str) -> Iterator[Difference]:
        envelope = record.envelope
        traceparent = self._partition.traceparent
        of_envelope: Data = {
            "type": TYPES[topic],
            "time": clock,
            "specversion": "1.0",
            "source": LEDGER,
            "traceparent": traceparent,
        }
        if topic != "dead-letters":
            of_envelope["subject"] = one.key
        else:  # carried on as far as the record was understood
            of_envelope["traceparent"] = OneOf((None, self._partition.letter_traceparent))
        for name, value in of_envelope.items():
            if not same(value, envelope.get(name)):
                yield self._differs(topic, record, name, value, envelope.get(name))
                return
        if record.key != one.key:
            yield self._differs(topic, record, "key", one.key, record.key)
            return
        data = record.data
        for name, value in one.facts.items():
            there = data.get(name)
            if name == "original" and "original_bytes" in data:
                value = _cut(value, data)  # noqa: PLW2901 - of a record too large to be kept
            if not same(value, there):
                yield self._differs(topic, record, name, value, there)
                return
        if one.cells is not None and "cell" in data:
            yield from self._check_cell(topic, one, record)

    def _check_cell(self, topic: str, one: Expected, record: Found) -> Iterator[Difference]:
        """Judge the cell that a decision names: one at its level, and how it stands."""
        assert one.cells is not None
        data = record.data
        cell = data["cell"]
        key = (cell.get("phase"), str(cell.get("metric"))) if isinstance(cell, dict) else (None, "")
        stands = one.cells.get(key)
        if stands is None:
            verdict = one.facts["verdict"]
            cells = "a cell of the task" if verdict == LEVELS[0] else f"a cell at {verdict}"
            yield self._differs(topic, record, "cell", cells, cell)
            return
        for name, value in [("cell", cell_of(key)), *stands.items()]:
            if not same(value, data.get(name)):
                yield self._differs(topic, record, name, value, data.get(name))
                return

    # `tasks`

    def _read_tasks(self) -> Iterator[Difference]:
        """Keep the last record of each key; the partition's own says how far is judged."""
        own = self._partition.own_subject
        for offset, raw_key, value in self._records.outputs.get("tasks", ()):
            key = (raw_key or b"").decode(errors="replace")
            if value is None:
                self._stored.pop(key, None)
                continue
            self._stored[key] = offset, value
            if key == own:
                next_offset = data_of(value).get("next_offset")
                if not isinstance(next_offset, int) or next_offset < self.next_offset:
                    yield self._of_tasks(
                        key, "next_offset", f"at least {self.next_offset}", next_offset, None
                    )
                else:
                    self.next_offset = next_offset

    def _finish(self, last_offset: int) -> Iterator[Difference]:
        later_offset = self._records.later_offset
        for topic in self._topics:
            left = topic.take(FOREVER)
            # Asked once all of a topic is read: what stands there was written before.
            later = self.next_offset
            if later_offset is not None:
                later = max(later, later_offset())
            for record in left:
                if self._scope is not None and not self._scope.finds(topic.name, record):
                    continue
                place = record.place
                if place is None or not self.next_offset <= place[0] < later:
                    yield self._differs(topic.name, record, "", NOTHING, record.data)
            # From a checkpoint on, they may be of a life before it.
            if later == self.next_offset and self._scope is None:
                for key, offsets in topic.deletions.items():
                    record = Found(offsets[0], key, None, {})
                    yield self._differs(topic.name, record, "", NOTHING, "a deletion")
        yield from self._owed.values()
        if self.events:
            yield from self._compare_states(last_offset)

    def _judges(self, key: str | None) -> bool:
        return self._scope is None or key in self._scope.judged

    def _compare_states(self, last_offset: int) -> Iterator[Difference]:
        partition = self._partition
        for task in sorted(partition.tasks.values(), key=lambda one: (one.last_offset, one.id)):
            if not self._judges(task.id):
                continue
            yield from self._compare_task(task)
            policy_key = f"policy/{task.policy.hash}"
            if task.policy.hash and policy_key not in self._stored:
                yield self._of_tasks(policy_key, "", "the policy of a task", NOTHING, None)
        for key in self._stored:
            if (
                key not in partition.tasks
                and self._judges(key)
                and not key.startswith(("policy/", "partition/"))
            ):
                yield self._of_tasks(key, "", NOTHING, "a task's state", None)
        own = data_of(self._stored[partition.own_subject][1])
        wanted: Data = {
            "next_offset": last_offset + 1,
            "clock": rfc3339(partition.clock_ms),
            "mode": partition.mode,
        }
        if partition.is_policy_set:
            wanted["policy"] = {
                "version": partition.policy.version,
                "hash": partition.policy.hash,
            }
        for name, value in wanted.items():
            if not same(value, own.get(name)):
                yield self._of_tasks(partition.own_subject, name, value, own.get(name), last_offset)

    def _compare_task(self, task: Task) -> Iterator[Difference]:
        if task.id not in self._stored:
            yield self._of_tasks(task.id, "", "a task's state", NOTHING, task.last_offset)
            return
        data = data_of(self._stored[task.id][1])
        for name, value, there in task_fields(task, data, self._partition.clock_ms):
            if not same(value, there):
                yield self._of_tasks(task.id, name, value, there, task.last_offset)
                return

    # Words

    def _missing(self, topic: str, one: Expected, offset: int, what: object) -> Difference:
        return Difference(topic, self._number, None, offset, str(one.key), "", shown(what), NOTHING)

    def _differs(
        self, topic: str, record: Found, name: str, expected: object, found: object
    ) -> Difference:
        input_offset = None if record.place is None else record.place[0]
        return Difference(
            topic=topic,
            partition=self._number,
            offset=record.offset,
            input_offset=input_offset,
            key=str(record.key),
            field=name,
            expected=shown(expected),
            found=shown(found),
        )

    def _of_tasks(
        self, key: str, name: str, expected: object, found: object, input_offset: int | None
    ) -> Difference:
        stored = self._stored.get(key)
        return Difference(
            topic="tasks",
            partition=self._number,
            offset=None if stored is None else stored[0],
            input_offset=input_offset,
            key=key,
            field=name,
            expected=shown(expected),
            found=shown(found),
        )


def _cut(original: str, data: Data) -> str:
    """Return what must stand in a letter that has kept the first bytes alone."""
    value = base64.b64decode(original)
    there = data.get("original")
    kept = len(there) // 4 * 3 - there.count("=") if isinstance(there, str) else 0
    if data["original_bytes"] != len(value) or not 0 < kept < len(value):
        return original
    return base64.b64encode(value[:kept]).decode()


def _group(topic: str, key: str | None, data: Data) -> tuple[str, ...]:
    """Return what keeps its order: a cell, a task, an execution."""
    if topic == "breaches":
        cell = data.get("cell")
        cell = cell if isinstance(cell, dict) else {}
        return str(data.get("task_id")), str(cell.get("phase")), str(cell.get("metric"))
    if topic == "executions":
        return str(data.get("task_id")), str(data.get("phase")), str(data.get("attempt"))
    return (str(key),)


def _alike(one: Expected, record: Found) -> bool:
    """Tell whether a record is the one that was expected, by what names it."""
    names = ("number", "level", "withdrawn", "revision", "change", "limits_version", "original")
    return all(same(one.facts[name], record.data.get(name)) for name in names if name in one.facts)
