"""Who owns what: the consumer group gives partitions, and takes them back all at once (eager).

The group's consumer reads nothing; each partition has a reader of its own. The offset it commits
is for lag tools: where a partition goes on stands in its state.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import Any

import aiokafka.errors
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.structs import TopicPartition

from schemas.topics import Topic
from streams.kafka import failpoints
from streams.kafka.leftovers import pass_over_leftovers
from streams.kafka.settings import Settings
from streams.ledger.partition import PartitionWorker, Shared

log = logging.getLogger("stoploss.ledger")

# The consumer is asked for records only so that it says what is wrong with the group.
POLL_MS = 500
# It never gets any, which is no reason to leave the group.
POLL_INTERVAL_MAX_MS = 24 * 3_600_000
COMMIT_EVERY_S = 1.0
CANCEL_WITHIN_S = 3.0
LEAVE_WITHIN_S = 3.0


def group_consumer(settings: Settings) -> Any:  # noqa: ANN401 - aiokafka has no types
    """Return the consumer, not started, by which a process is a member of the group."""
    pass_over_leftovers()
    return AIOKafkaConsumer(
        **settings.consumer_kwargs("ledger"),
        **settings.group_kwargs(),
        group_id=settings.group_id(),
        max_poll_interval_ms=POLL_INTERVAL_MAX_MS,
        fetch_max_bytes=1,
        max_partition_fetch_bytes=1,
    )


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Starts and ends the workers as the group says.

    aiokafka swallows what a listener raises, and waits for it: it has to be quick, and right.
    """

    def __init__(self, shared: Shared, group: asyncio.TaskGroup, consumer: Any) -> None:  # noqa: ANN401 - aiokafka has no types
        self._shared = shared
        self._group = group
        self._workers: dict[PartitionWorker, asyncio.Task[None]] = {}
        self._closing = False
        self._events = shared.settings.topic(Topic.EVENTS)
        self.consumer = consumer

    @property
    def partitions(self) -> list[int]:
        """What this process owns now."""
        return sorted(worker.partition for worker in self._workers)

    async def start(self) -> None:
        """Join the group.

        Raises:
            KafkaError: no broker answers.
        """
        await self.consumer.start()
        self.consumer.subscribe([self._events], listener=self)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Finish or abort what is open, in time for the rebalance."""
        if partitions := sorted(tp.partition for tp in revoked):
            log.info("ledger: gives back partitions %s", partitions)
            failpoints.hit("in_revocation")
        await self.release(self._shared.settings.batch_deadline_ms / 1000)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Begin; fencing and restoring take their time elsewhere."""
        tps = sorted(assigned)
        if self._closing:
            return  # the group answered after we had begun to leave
        log.info("ledger: owns partitions %s", [tp.partition for tp in tps])
        self.consumer.pause(*tps)
        for tp in tps:
            worker = PartitionWorker(self._shared, tp.partition)
            self._workers[worker] = self._group.create_task(worker.run())

    async def release(self, within_s: float) -> None:
        """Let all workers commit what is open and end; those that take too long are cancelled."""
        workers, self._workers = self._workers, {}
        if not workers:
            return
        for worker in workers:
            worker.release()
        _, late = await asyncio.wait(workers.values(), timeout=within_s)
        for task in late:
            task.cancel()
        if late:
            log.warning("ledger: %s batches did not end in %s s: aborted", len(late), within_s)
            await asyncio.wait(late, timeout=CANCEL_WITHIN_S)

    async def watch(self) -> None:
        """Learn of what is wrong with the group, and tell lag tools where we are.

        Raises:
            KafkaError: the group cannot go on as it is.
        """
        clock = asyncio.get_running_loop().time
        told: dict[TopicPartition, int] = {}
        told_at_s = clock()
        while True:
            await self.consumer.getmany(timeout_ms=POLL_MS)
            if clock() - told_at_s >= COMMIT_EVERY_S:
                told = await self._tell(told)
                told_at_s = clock()

    async def _tell(self, told: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        standing = {
            TopicPartition(self._events, worker.partition): worker.next_offset
            for worker in self._workers
            if worker.next_offset is not None
        }
        fresh = {tp: offset for tp, offset in standing.items() if told.get(tp) != offset}
        if fresh:
            # Nothing depends on it; a rebalance makes it fail, and the next one succeeds.
            with contextlib.suppress(aiokafka.errors.KafkaError, TimeoutError):
                async with asyncio.timeout(COMMIT_EVERY_S):
                    await self.consumer.commit(fresh)
                return standing
        return told

    async def close(self, within_s: float) -> None:
        """Let go of everything within `within_s`, and leave the group."""
        self._closing = True
        await self.release(within_s)
        with contextlib.suppress(aiokafka.errors.KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(LEAVE_WITHIN_S):
                await self.consumer.stop()
