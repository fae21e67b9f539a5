"""Compares what stands in the topics with what the inputs must have caused.

An id, `{partition}-{offset}-{index}`, says which input has caused a record, so each topic is read
side by side with the inputs. Within one input only the order that the contract gives is judged: that
of the levels of a cell, of the decisions of a task, of the revisions of an execution.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from streams.verify.independent.limits import LEVELS, as_number
from streams.verify.independent.partition import (
    Expected,
    Partition,
    counters_as_numbers,
    ratio,
)
from streams.verify.independent.records import TOPICS, Difference, Output, Records, shown
from streams.verify.independent.task import Task
from streams.verify.independent.wire import Data, loads

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOTHING = "no such record"
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


@dataclass(slots=True)
class Found:
    """A record that is there, with the place that its id names."""

    offset: int
    key: str | None
    place: tuple[int, int] | None
    envelope: Data

    @property
    def data(self) -> Data:
        """Return its data; empty where it has none."""
        data = self.envelope.get("data")
        return data if isinstance(data, dict) else {}


class _Topic:
    """The records of one topic, handed out input by input."""

    def __init__(self, name: str, partition: int, records: Iterable[Output]) -> None:
        self.name, self._partition = name, partition
        self._records = iter(records)
        self._next: Found | None = None
        self.deletions: dict[str | None, list[int]] = {}
        self.last: tuple[int, int] = (-1, -1)
        self.count = 0

    def take(self, input_offset: int) -> list[Found]:
        """Return the records of an input, and those before that nobody has asked for."""
        found: list[Found] = []
        while (record := self._peek()) is not None:
            if record.place is not None and record.place[0] > input_offset:
                break
            found.append(record)
            self._next = None
        return found

    def _peek(self) -> Found | None:
        while self._next is None:
            record = next(self._records, None)
            if record is None:
                return None
            self.count += 1
            offset, raw_key, value = record
            key = None if raw_key is None else raw_key.decode(errors="replace")
            if value is None:
                self.deletions.setdefault(key, []).append(offset)
                continue
            try:
                envelope = loads(value)
            except ValueError:
                envelope = {}
            if not isinstance(envelope, dict):
                envelope = {}
            place = _place(envelope.get("id"), self._partition)
            self._next = Found(offset, key, place, envelope)
        return self._next


def _place(name: object, partition: int) -> tuple[int, int] | None:
    parts = name.split("-") if isinstance(name, str) else []
    if len(parts) != 3 or not all(one.isascii() and one.isdigit() for one in parts):  # noqa: PLR2004
        return None
    own, offset, index = (int(one) for one in parts)
    return (offset, index) if own == partition else None


class Judge:
    """Judges one partition. `differences` yields as it goes; only the first is surely one.

    What comes after the first may follow from it.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._number = records.partition
        self._partition = Partition(records.partition)
        self._topics = [
            _Topic(name, records.partition, records.outputs.get(name, ())) for name in TOPICS
        ]
        self._stored: dict[str, tuple[int, bytes]] = {}
        self._owed: dict[str | None, Difference] = {}
        self.next_offset = 0
        self.events = 0

    def differences(self) -> Iterator[Difference]:
        """Yield what does not follow from the inputs, in their order."""
        yield from self._read_tasks()
        expected_end = -1
        for offset, append_ms, key, value, headers in self._records.events:
            if offset >= self.next_offset:
                break
            self.events += 1
            expected_end = offset
            expected = self._partition.fold(offset, append_ms, value, headers)
            yield from self._compare(offset, key, expected)
        yield from self._finish(expected_end)

    # The topics beside `tasks`

    def _compare(
        self, offset: int, key: bytes | None, expected: list[Expected]
    ) -> Iterator[Difference]:
        for topic in self._topics:
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
                elif record.data.get("change") == "partition_checkpoint":
                    yield from self._check_checkpoint(record, offset)
                else:
                    records.append(record)
            if topic.name == "dead-letters":
                for one in wanted:
                    one.key = None if key is None else key.decode(errors="replace")
            wanted = [one for one in wanted if not one.is_deletion]
            yield from self._pair(topic, wanted, records, offset)

    def _expect_deletion(self, topic: _Topic, one: Expected, offset: int) -> Iterator[Difference]:
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

    def _misplaced(self, topic: _Topic, record: Found, offset: int) -> Difference | None:
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
        topic: _Topic,
        wanted: list[Expected],
        found: list[Found],
        offset: int,
    ) -> Iterator[Difference]:
        """Compare in the order that the contract gives: within one cell, task or execution."""
        expected = sorted(wanted, key=lambda one: _group(topic.name, one.key, one.facts))
        there = sorted(found, key=lambda one: _group(topic.name, one.key, one.data))
        clock = _rfc3339(self._partition.clock_ms)
        while expected or there:
            if not there:
                yield from self._absent(topic.name, expected.pop(0), offset)
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
                yield from self._absent(topic.name, expected.pop(0), offset)
            elif of_one > of_record:
                there.pop(0)
                yield self._differs(topic.name, record, "", NOTHING, record.data)
            else:
                expected.pop(0)
                there.pop(0)
                self._owed.pop(one.key if topic.name == "decisions" else "", None)
                yield from self._check(topic.name, one, record, clock)

    def _absent(self, topic: str, one: Expected, offset: int) -> Iterator[Difference]:
        difference = self._missing(topic, one, offset, one.facts)
        if topic == "decisions" and self._may_be_compacted():
            self._owed[one.key] = difference
        elif topic not in self._records.trimmed or self._has_begun(topic):
            yield difference

    def _has_begun(self, topic: str) -> bool:
        return any(one.name == topic and one.last >= (0, 0) for one in self._topics)

    def _check(self, topic: str, one: Expected, record: Found, clock: str) -> Iterator[Difference]:
        envelope = record.envelope
        of_envelope = {"type": TYPES[topic], "time": clock, "specversion": "1.0"}
        for name, value in of_envelope.items():
            if envelope.get(name) != value:
                yield self._differs(topic, record, name, value, envelope.get(name))
                return
        if record.key != one.key:
            yield self._differs(topic, record, "key", one.key, record.key)
            return
        data = record.data
        for name, value in one.facts.items():
            there = data.get(name)
            if not _same(value, there):
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
            yield self._differs(topic, record, "cell", "a cell of the task", cell)
            return
        used, limit, level = stands
        verdict = LEVELS.index(one.facts["verdict"])
        if level != verdict and verdict:
            yield self._differs(topic, record, "cell", f"a cell at {LEVELS[verdict]}", cell)
            return
        wanted = {
            "used": as_number(used, key[1]),
            "limit": as_number(limit, key[1], is_limit=True),
            "ratio": ratio(used, limit, key[1]),
        }
        for name, value in wanted.items():
            if not _same(value, data.get(name)):
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
                next_offset = _data_of(value).get("next_offset")
                if not isinstance(next_offset, int) or next_offset < self.next_offset:
                    yield self._of_tasks(
                        key, "next_offset", f"at least {self.next_offset}", next_offset, None
                    )
                else:
                    self.next_offset = next_offset

    def _finish(self, last_offset: int) -> Iterator[Difference]:
        later = self._records.later_offset or self.next_offset
        for topic in self._topics:
            for record in topic.take(2**63):
                place = record.place
                if place is None or not self.next_offset <= place[0] < later:
                    yield self._differs(topic.name, record, "", NOTHING, record.data)
            if later == self.next_offset:
                for key, offsets in topic.deletions.items():
                    record = Found(offsets[0], key, None, {})
                    yield self._differs(topic.name, record, "", NOTHING, "a deletion")
        yield from self._owed.values()
        if self.events:
            yield from self._compare_states(last_offset)

    def _compare_states(self, last_offset: int) -> Iterator[Difference]:
        partition = self._partition
        for task in sorted(partition.tasks.values(), key=lambda one: (one.last_offset, one.id)):
            yield from self._compare_task(task)
            policy_key = f"policy/{task.policy.hash}"
            if task.policy.hash and policy_key not in self._stored:
                yield self._of_tasks(policy_key, "", "the policy of a task", NOTHING, None)
        for key in self._stored:
            if key not in partition.tasks and not key.startswith(("policy/", "partition/")):
                yield self._of_tasks(key, "", NOTHING, "a task's state", None)
        own = _data_of(self._stored[partition.own_subject][1])
        wanted: Data = {
            "next_offset": last_offset + 1,
            "clock": _rfc3339(partition.clock_ms),
            "mode": partition.mode,
        }
        if partition.policy.hash:
            wanted["policy"] = {
                "version": partition.policy.version,
                "hash": partition.policy.hash,
            }
        for name, value in wanted.items():
            if not _same(value, own.get(name)):
                yield self._of_tasks(partition.own_subject, name, value, own.get(name), last_offset)

    def _compare_task(self, task: Task) -> Iterator[Difference]:
        if task.id not in self._stored:
            yield self._of_tasks(task.id, "", "a task's state", NOTHING, task.last_offset)
            return
        data = _data_of(self._stored[task.id][1])
        dedupe = data.get("dedupe", {})
        wanted: list[tuple[str, Any, Any]] = [
            ("status", "open" if task.is_open else "ended", data.get("status")),
            ("verdict", LEVELS[task.verdict], data.get("verdict")),
            ("limits_version", task.limits_version, data.get("limits_version")),
            ("decisions", task.decisions, data.get("decisions", 0)),
            ("parent_task_id", task.parent, data.get("parent_task_id")),
            ("complexity", task.complexity, data.get("complexity", "medium")),
            ("importance", task.importance, data.get("importance", "medium")),
            ("dedupe.sequences", task.sequences, dedupe.get("sequences", {})),
            ("dedupe.recent", len(task.recent), len(dedupe.get("recent", []))),
        ]
        if task.policy.hash:
            wanted.append(("policy.hash", task.policy.hash, data.get("policy", {}).get("hash")))
        wanted += self._of_cells(task, data)
        wanted += _of_phases(task, data)
        for name, value, there in wanted:
            if not _same(value, there):
                yield self._of_tasks(task.id, name, value, there, task.last_offset)
                return

    def _of_cells(self, task: Task, data: Data) -> Iterator[tuple[str, Any, Any]]:
        cells = {
            (cell.get("phase"), cell.get("metric")): cell
            for cell in data.get("cells", [])
            if isinstance(cell, dict)
        }
        names = {key: f"cells {key[0] or 'task'} {key[1]}" for key in task.cells}
        unknown = [
            f"{phase or 'task'} {metric}"
            for phase, metric in cells
            if (phase, metric) not in task.cells
        ]
        yield "cells", [], unknown
        for key, cell in task.cells.items():
            if key not in cells and not cell.level and not task.used(key, self._partition.clock_ms):
                continue  # of a phase that is not planned, which need not stand there
            there, metric = cells.get(key, {}), key[1]
            name = names[key]
            yield f"{name} limit", as_number(cell.limit, metric, is_limit=True), there.get("limit")
            yield f"{name} level", LEVELS[cell.level], there.get("level")
            used = task.used(key, self._partition.clock_ms)
            run = task.open_run
            is_growing = run is not None and run.estimates() and metric == "latency_ms"
            if is_growing and key[0] in {None, task.open_phase}:
                # As of when it was written: it grows with the clock, without a record.
                most = used + task.policy.execution_max_ms
                yield f"{name} used", True, 0 <= there.get("used", -1) <= most
            else:
                yield f"{name} used", as_number(used, metric), there.get("used")

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


def _of_phases(task: Task, data: Data) -> Iterator[tuple[str, Any, Any]]:
    phases = data.get("phases", {})
    yield "phases", sorted(task.phases), sorted(phases)
    for phase, runs in task.phases.items():
        there = phases.get(phase, {})
        summed: dict[str, int] = {}
        for run in runs.values():
            for name, count in run.counters.items():
                summed[name] = summed.get(name, 0) + count
        yield f"phases {phase} attempts", max(runs), there.get("attempts")
        counters = {name: one for name, one in there.get("counters", {}).items() if one}
        yield f"phases {phase} counters", counters_as_numbers(summed), counters


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
    return all(_same(one.facts[name], record.data.get(name)) for name in names if name in one.facts)


def _same(expected: object, found: object) -> bool:
    if isinstance(expected, dict):
        if not isinstance(found, dict):
            return not expected and found is None
        names = expected.keys() | found.keys()
        return all(_same(expected.get(name), found.get(name)) for name in names)
    if isinstance(expected, bool) or expected is None:
        return (expected or False) is (found or False)
    if isinstance(expected, Decimal) and isinstance(found, int | Decimal):
        return expected == found
    if expected == 0 and found is None:
        return True
    return expected == found


def _data_of(value: bytes) -> Data:
    try:
        data = loads(value)["data"]
    except (ValueError, LookupError, TypeError):
        return {}
    return data if isinstance(data, dict) else {}


def _rfc3339(epoch_ms: int) -> str:
    time = EPOCH + timedelta(milliseconds=epoch_ms)
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{epoch_ms % 1000:03d}Z"
