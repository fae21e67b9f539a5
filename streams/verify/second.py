"""`stoploss verify --independent`: reads the topics for the judge that shares nothing with the ledger.

That judge is plain code without I/O, which asks for the next record where it needs one. So it runs in
a thread of its own, and its iterators wait for what is read on the event loop; nothing is kept but
what they hand on. Of each partition, in this order: 1. `tasks`, which says up to which input the
ledger has come; 2. how far its other topics are written; 3. the inputs, side by side with them;
4. `tasks` again: how far the ledger has come meanwhile.
"""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

from schemas.topics import OUTPUTS, Topic
from streams.kafka.ports import RawRecord
from streams.kafka.reader import KafkaReader, start_client
from streams.kafka.settings import Settings
from streams.verify.independent.exact_json import loads
from streams.verify.independent.judge import Judge
from streams.verify.independent.records import Checkpoint, Input, Output, Records
from streams.verify.independent.records import Difference as Found
from streams.verify.independent.times import epoch_ms
from streams.verify.reading import (
    COMPACTION_LAG_MS,
    READ,
    OnProgress,
    OutputReader,
    patiently,
)
from streams.verify.result import IndependentDifference, IndependentReport, IndependentResult

Answer = TypeVar("Answer")


async def judge(settings: Settings, *, on_progress: OnProgress | None = None) -> IndependentResult:
    """Judge every partition; each up to its first difference.

    Args:
        settings: where; the number of partitions is that of `events`.
        on_progress: told how many inputs are read, and how many there are.

    Raises:
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    client = await start_client(settings, [settings.topic(topic) for topic in READ], "verify")
    try:
        count = len(client.cluster.partitions_for_topic(settings.topic(Topic.EVENTS)))
        partitions = [_Partition(client, settings, number) for number in range(count)]
        total = sum([await one.begin() for one in partitions])
        done = 0
        for one in partitions:
            await one.judge(functools.partial(_tell, on_progress, done, total))
            done += one.inputs
    finally:
        await client.close()
    _tell(on_progress, total, total, 0)
    reports = [one.report for one in partitions]
    return IndependentResult(equal=all(report.equal for report in reports), partitions=reports)


def _tell(on_progress: OnProgress | None, done: int, total: int, more: int) -> None:
    if on_progress is not None:
        on_progress(min(done + more, total), total)


class _Partition:
    """Reads one partition of every topic."""

    def __init__(self, client: Any, settings: Settings, number: int) -> None:  # noqa: ANN401 - aiokafka has no types
        self._client, self._settings, self._number = client, settings, number
        self._events = self._reader(Topic.EVENTS)
        self._tasks = self._reader(Topic.TASKS)
        self._outputs = {topic: self._reader(topic) for topic in OUTPUTS}
        self._loop = asyncio.get_running_loop()
        self._tell: Callable[[int], None] = lambda _: None
        self._later = 0
        self.inputs = 0
        self.report = IndependentReport(partition=number)

    def __repr__(self) -> str:
        return f"<_Partition {self._number}: {self.inputs} inputs read>"

    async def begin(self) -> int:
        """Find out how many inputs there are."""
        events = KafkaReader(self._client, self._settings.topic(Topic.EVENTS), self._number)
        self.report.first_offset = await patiently(events.first_offset)
        return await patiently(events.written_offset) - self.report.first_offset

    async def judge(self, tell: Callable[[int], None]) -> None:
        """Judge, and report."""
        self._tell = tell
        self.report.from_checkpoint = self.report.first_offset > 0
        await asyncio.to_thread(self._judge)

    def _judge(self) -> None:
        """Run in a thread: every record that it asks for is read on the event loop."""
        made = Judge(
            Records(
                self._number,
                self._read_events(),
                {"tasks": self._read_tasks()}
                | {topic.value: self._read_output(topic) for topic in OUTPUTS},
                trimmed=self._trimmed,
                compacted_before_ms=time.time_ns() // 1_000_000 - COMPACTION_LAG_MS,
                later_offset=self._later_offset,
                checkpoints=self._checkpoints() if self.report.from_checkpoint else None,
            )
        )
        difference = next(made.differences(), None)
        report = self.report
        report.events, report.next_offset = made.events, made.next_offset
        report.unjudged_tasks = made.unjudged_count
        report.not_judged = made.not_judged
        if report.from_checkpoint:
            report.first_offset = report.next_offset if made.not_judged else made.first_offset
        report.equal = difference is None
        if difference is not None:
            report.difference = self._told(difference)

    def _told(self, difference: Found) -> IndependentDifference:
        return IndependentDifference(
            topic=f"{self._settings.topic_prefix}{difference.topic}",
            partition=difference.partition,
            offset=difference.offset,
            input_offset=difference.input_offset,
            key=difference.key,
            field=difference.field,
            expected=difference.expected,
            found=difference.found,
            text=str(difference),
        )

    def _reader(self, topic: Topic) -> OutputReader:
        return OutputReader(self._client, self._settings.topic(topic), self._number)

    def _await(self, what: Awaitable[Answer]) -> Answer:
        """Wait in the judge's thread for what the event loop does."""

        async def answer() -> Answer:
            return await what

        return asyncio.run_coroutine_threadsafe(answer(), self._loop).result()

    def _read_tasks(self) -> Iterator[Output]:
        yield from self._read_all(self._tasks)  # 1.
        for reader in self._outputs.values():  # 2.
            self._await(reader.begin())

    def _read_output(self, topic: Topic) -> Iterator[Output]:
        for record in self._rest_of(self._outputs[topic]):
            yield record.offset, record.key, record.value

    def _read_events(self) -> Iterator[Input]:
        self._await(self._events.begin())  # 3.
        for record in self._rest_of(self._events):
            yield record.offset, record.timestamp, record.key, record.value, record.headers
            self.inputs += 1
            if self.inputs % 1_000 == 0:
                self._tell(self.inputs)

    def _read_all(self, reader: OutputReader) -> Iterator[Output]:
        self._await(reader.begin())
        for record in self._rest_of(reader):
            yield record.offset, record.key, record.value

    def _rest_of(self, reader: OutputReader) -> Iterator[RawRecord]:
        while not reader.has_ended():
            records: Sequence[RawRecord] = self._await(reader.read())
            yield from records

    def _trimmed(self, topic: str) -> bool:
        """Tell whether retention has removed the first records of a topic."""
        return self._outputs[Topic(topic)].trimmed

    def _later_offset(self) -> int:
        """Return how far the ledger has come by now; asked for each topic, once that is read."""
        own = b"partition/%d" % self._number
        for _, key, value in self._read_all(self._tasks):  # 4. what is new since the last time
            if key == own and value is not None:
                self._later = int(loads(value)["data"]["next_offset"])
        return self._later

    def _checkpoints(self) -> Iterator[Checkpoint]:
        """Yield the checkpoints that the events still cover."""
        first = self.report.first_offset
        for _, _, value in self._read_all(self._reader(Topic.LIFECYCLE)):
            found = None if value is None else _checkpoint(value)
            if found is not None and found.next_offset >= first:
                yield found


def _checkpoint(value: bytes) -> Checkpoint | None:
    """Return what a record of `lifecycle` says of a partition, where it is a checkpoint."""
    try:
        data = loads(value)["data"]
        if data["change"] != "partition_checkpoint":
            return None
        return Checkpoint(
            int(data["next_offset"]), epoch_ms(data["clock"]), data["mode"], data["policies"][0]
        )
    except (ValueError, LookupError, TypeError):
        return None
