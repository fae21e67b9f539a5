"""Who owns what: the consumer group gives partitions, and takes them back all at once (eager).

What is taken back is mostly given again a moment later. So its owner goes on meanwhile, and only
what is then another's is let go of: who owns a partition is decided by the fence, not by the group.

The group's consumer reads nothing; each partition has a reader of its own. The offset it commits
is for lag tools: where a partition goes on stands in its state.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

import aiokafka.errors
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.structs import TopicPartition

from schemas.topics import Topic
from streams.kafka import failpoints
from streams.kafka.leftovers import pass_over_leftovers
from streams.kafka.settings import Settings
from streams.ledger.partition import PartitionWorker, Shared
from streams.ledger.shares import Held, Sharing

log = logging.getLogger("stoploss.ledger")

# The consumer is asked for records only so that it says what is wrong with the group.
POLL_MS = 500
# It never gets any, which is no reason to leave the group.
POLL_INTERVAL_MAX_MS = 24 * 3_600_000
COMMIT_EVERY_S = 1.0
CANCEL_WITHIN_S = 3.0
LEAVE_WITHIN_S = 3.0


MakeConsumer = Callable[[Callable[[], Held]], Any]
"""Returns the group's consumer, not started, of a process that has what it is told."""


def group_consumer(settings: Settings, held: Callable[[], Held]) -> Any:  # noqa: ANN401 - aiokafka has no types
    """Return the consumer, not started, by which a process is a member of the group.

    Args:
        settings: name the group.
        held: returns what the process has of the partitions.
    """
    pass_over_leftovers()

    def generation() -> int:
        """Return the generation that has been joined; nothing public of aiokafka's says it."""
        joined: int = consumer._coordinator.generation  # noqa: SLF001 - see above
        return joined

    sharing = Sharing(settings.topic(Topic.EVENTS), held, generation)
    consumer = AIOKafkaConsumer(
        **settings.consumer_kwargs("ledger"),
        **settings.group_kwargs(),
        group_id=settings.group_id(),
        partition_assignment_strategy=(sharing,),
        max_poll_interval_ms=POLL_INTERVAL_MAX_MS,
        fetch_max_bytes=1,
        max_partition_fetch_bytes=1,
    )
    return consumer


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Starts and ends the workers as the group says.

    aiokafka swallows what a listener raises, and waits for it: it has to be quick, and right.
    """

    def __init__(
        self, shared: Shared, group: asyncio.TaskGroup, make_consumer: MakeConsumer
    ) -> None:
        self._shared = shared
        self._group = group
        self._workers: dict[PartitionWorker, asyncio.Task[None]] = {}
        self._leaving: dict[int, asyncio.Task[None]] = {}
        self._in_doubt = False
        self._closing = False
        self._events = shared.settings.topic(Topic.EVENTS)
        self.consumer = make_consumer(lambda: self.held)

    @property
    def held(self) -> Held:
        """What this process owns now, and where it goes on; what is not restored yet, at 0."""
        return {worker.partition: worker.next_offset or 0 for worker in self._workers}

    async def start(self) -> None:
        """Join the group.

        Raises:
            KafkaError: no broker answers.
        """
        await self.consumer.start()
        self.consumer.subscribe([self._events], listener=self)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Take nothing over until the group has decided anew; what is owned goes on."""
        if partitions := sorted(tp.partition for tp in revoked):
            log.info("ledger: the group decides anew; goes on with partitions %s", partitions)
            failpoints.hit("in_revocation")
        self._in_doubt = True
        for worker in self._workers:
            worker.hold()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Keep, begin and let go; fencing, restoring and the last commit take their time elsewhere.

        aiokafka sends no heartbeat before this has returned.
        """
        tps = sorted(assigned)
        if self._closing:
            return  # the group answered after we had begun to leave
        self._in_doubt = False
        owned = [tp.partition for tp in tps]
        self._let_go_of_all_but(owned)
        log.info("ledger: owns partitions %s", owned)
        self.consumer.pause(*tps)
        kept = {worker.partition: worker for worker in self._workers}
        for partition in owned:
            if partition in kept:
                kept[partition].keep()
            else:
                worker = PartitionWorker(self._shared, partition)
                running = self._run(worker, self._leaving.get(partition))
                self._workers[worker] = self._group.create_task(running)

    def _let_go_of_all_but(self, owned: list[int]) -> None:
        gone = {
            worker: task for worker, task in self._workers.items() if worker.partition not in owned
        }
        if not gone:
            return
        for worker in gone:
            del self._workers[worker]
        within_s = self._shared.settings.batch_deadline_ms / 1000
        leaving = self._group.create_task(_release(gone, within_s))
        self._leaving = {
            partition: task for partition, task in self._leaving.items() if not task.done()
        }
        self._leaving |= {worker.partition: leaving for worker in gone}

    async def _run(self, worker: PartitionWorker, former: asyncio.Task[None] | None) -> None:
        """Run `worker` when the partition's former one, of this process, has ended."""
        if former is not None:
            await asyncio.wait([former])
        await worker.run()

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
        if self._in_doubt:
            return told  # a commit between join and sync would begin the next rebalance
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
        workers, self._workers = self._workers, {}
        await _release(workers, within_s)
        with contextlib.suppress(aiokafka.errors.KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(LEAVE_WITHIN_S):
                await self.consumer.stop()


async def _release(workers: dict[PartitionWorker, asyncio.Task[None]], within_s: float) -> None:
    """Let workers commit what is open and end; those that take too long are cancelled."""
    if not workers:
        return
    log.info("ledger: gives back partitions %s", sorted(worker.partition for worker in workers))
    for worker in workers:
        worker.release()
    _, late = await asyncio.wait(workers.values(), timeout=within_s)
    for task in late:
        task.cancel()
    if late:
        log.warning("ledger: %s batches did not end in %s s: aborted", len(late), within_s)
        await asyncio.wait(late, timeout=CANCEL_WITHIN_S)
