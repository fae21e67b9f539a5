"""What runs around the stages: take a batch, fold it, send, remember, and only then let it be committed.

The order of a batch, in which a crash anywhere is a repetition that changes nothing:
1. fold, from what is stored: nothing has left yet;
2. send what it causes, and wait until the broker has all of it;
3. send what becomes of the entries to the changelog, and wait until the broker has all of that; what
   belongs together is announced before (`together`);
4. put it into the store;
5. say that the offsets are done; they are committed some time later.
A crash before 3. sends the same records again, under the same ids. One during 3. leaves all entries of
a partition as they were, or as they are to become: they hold how far they have come in their sources.

A batch is bounded in records and in time, and ends before the group gives its partitions to another.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Sequence
from typing import Protocol

from faust.types import TP

from schemas.errors import UnavailableError
from streams.agents.app import Delivered, Event, FaustApp, Message, Queue
from streams.agents.folding import Change, Folded, fold_batch
from streams.agents.stages import Outbound, Stage
from streams.agents.tables import Table
from streams.agents.together import announcement
from streams.agents.traces import tell_spans
from streams.kafka import failpoints
from streams.kafka.settings import Settings
from streams.kafka.topics import partition_counts
from streams.kafka.tracing import Tracing

log = logging.getLogger("stoploss.agents")

# On a slow machine a batch of the largest size is late again and again: a worker begins with small
# ones, makes them larger while they are done in an eighth of the time that one has, and smaller when
# one takes a quarter of it.
FIRST_RECORDS_MAX = 64
SMALLEST_RECORDS_MAX = 8


class Counting(Protocol):
    """Where a shell says what it does."""

    def batch(
        self, *, records: int, outputs: int, refused: int, dropped: int, took_ms: int
    ) -> None:
        """One batch is done."""


class LateBatchError(Exception):
    """A batch takes too long: the group may have given its partitions to another."""


class StageRunner:
    """Runs one stage of an agent in a worker."""

    def __init__(
        self,
        app: FaustApp,
        stage: Stage,
        settings: Settings,
        counting: Counting,
        tracing: Tracing | None = None,
    ) -> None:
        self.stage = stage
        self._app, self._settings, self._counting = app, settings, counting
        self._tracing = tracing
        self._deadline_s = settings.batch_deadline_ms / 1000
        self._records_max = min(FIRST_RECORDS_MAX, stage.records_max)
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"<StageRunner {self.stage.name} {'idle' if self._idle.is_set() else 'in a batch'}>"

    async def run(self, queue: Queue) -> None:
        """Handle what comes, for ever.

        Raises:
            LateBatchError: a batch was not done in time.
            Exception: Kafka does not take what is sent.
        """
        while True:
            events = await self._take(queue)
            self._app.turn(asyncio.get_running_loop().time())
            self._idle.clear()
            try:
                current = [each.message for each in events if self._app.is_current(each.message)]
                if current:
                    await self._in_time(current)
            finally:
                self._idle.set()

    async def release(self) -> None:
        """Wait until no batch is open, for as long as one may take."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._deadline_s):
                await self._idle.wait()

    async def _take(self, queue: Queue) -> list[Event]:
        """Wait for records; return what comes within a moment of the first, up to a number."""
        events = [await queue.get()]
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + self.stage.linger_s
        while len(events) < self._records_max:
            if not queue.empty():
                events.append(queue.get_nowait())
                continue
            try:
                async with asyncio.timeout_at(ends_s):
                    events.append(await queue.get())
            except TimeoutError:
                break
        return events

    async def _in_time(self, messages: Sequence[Message]) -> None:
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._batch(messages)
        except TimeoutError:
            raise LateBatchError(f"{self.stage.name}: a batch took {self._deadline_s} s") from None

    async def _batch(self, messages: Sequence[Message]) -> None:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        app, stage = self._app, self.stage
        folded = fold_batch(  # 1.
            stage, self._settings.topic_prefix, messages, lambda number: app.stored(stage, number)
        )
        failpoints.hit("agent_after_fold")
        await self._send_outputs(folded)  # 2.
        if self._tracing is not None:
            tell_spans(self._tracing, folded.outputs, time.time_ns() // 1_000_000)
        if folded.outputs or folded.everywhere:
            failpoints.hit("agent_after_outputs")
        if loop.time() - begun_s > self._deadline_s:
            # The process was stopped meanwhile. Somebody else may have these partitions by now, and
            # would not learn of what is written to their changelog.
            raise LateBatchError(f"{stage.name}: stood still in a batch")
        await self._remember(folded.changes)  # 3. and 4.
        failpoints.hit("agent_after_table")
        for message in messages:  # 5.
            app.positions.finish(message)
        took_s = loop.time() - begun_s
        self._size_next(len(messages), took_s)
        self._counting.batch(
            records=len(messages),
            outputs=len(folded.outputs) + len(folded.everywhere),
            refused=folded.refused,
            dropped=folded.dropped,
            took_ms=round(took_s * 1000),
        )

    def _size_next(self, records: int, took_s: float) -> None:
        if took_s > self._deadline_s / 4:
            self._records_max = max(self._records_max // 2, SMALLEST_RECORDS_MAX)
        elif records >= self._records_max and took_s < self._deadline_s / 8:
            self._records_max = min(self._records_max * 2, self.stage.records_max)

    async def _send_outputs(self, folded: Folded) -> None:
        prefix = self._settings.topic_prefix
        sender = self._app.sender
        deliveries = []
        for index, output in enumerate([*folded.outputs, *await self._everywhere(folded)]):
            topic = f"{prefix}{output.topic}"
            deliveries.append(
                await sender.send(topic, output.key, output.value, output.partition, None, None)
            )
            if index == 0 and failpoints.is_armed("agent_in_outputs"):
                await deliveries[0]
                failpoints.hit("agent_in_outputs")
        await _all(deliveries)

    async def _everywhere(self, folded: Folded) -> list[Outbound]:
        """Return what goes to each partition of a topic; it is rare enough to ask how many there are.

        Raises:
            UnavailableError: the broker does not tell.
        """
        found = []
        for output in folded.everywhere:
            name = f"{self._settings.topic_prefix}{output.topic}"
            counts = await partition_counts(self._settings, [name])
            if name not in counts:
                raise UnavailableError(f"there is no topic {name}")
            found += [output.make(partition) for partition in range(counts[name])]
        return found

    async def _remember(self, changes: Sequence[Change]) -> None:
        by_partition: dict[int, list[Change]] = {}
        for change in changes:
            by_partition.setdefault(change.partition, []).append(change)
        if by_partition:
            table = self._app.table(self.stage)
            await asyncio.gather(
                *(self._write(table, *of_partition) for of_partition in by_partition.items())
            )

    async def _write(self, table: Table, partition: int, changes: Sequence[Change]) -> None:
        """Write the entries of a partition so that all of them or none are restored."""
        store = table.store
        changed = store.to_write(partition, changes)
        batch = store.persisted_offset(TP(table.topic, partition)) + 1
        parts = announcement(batch, changed)
        for place in await self._deliver(table.topic, partition, parts):
            store.announced(partition, place.offset)
        failpoints.hit("agent_after_announcement")
        places = await self._deliver(table.topic, partition, list(changed.items()))
        for (key, value), place in zip(changed.items(), places, strict=True):
            store.write(partition, place.offset, key, value)

    async def _deliver(
        self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes | None]]
    ) -> Sequence[Delivered]:
        deliveries = []
        for index, (key, value) in enumerate(records):
            deliveries.append(await self._app.sender.send(topic, key, value, partition, None, None))
            if index == 0 and failpoints.is_armed("agent_in_table"):
                await deliveries[0]
                failpoints.hit("agent_in_table")
        return await _all(deliveries)


async def _all(deliveries: Sequence[Awaitable[Delivered]]) -> Sequence[Delivered]:
    """Wait for every delivery.

    Raises:
        KafkaError: the first that failed.
    """
    return await asyncio.gather(*deliveries)
