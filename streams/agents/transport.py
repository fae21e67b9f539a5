"""faust's transport as we need it: committed records only, our client settings, our offsets.

What is different from faust's own, and why:
- Its consumer reads uncommitted records unless it is in its exactly-once mode, which puts outputs
  and offsets into different transactions.
- It commits what has been acknowledged, and takes the gap before a record for acknowledged together
  with the record itself: a crash there loses it. Every batch of the ledger ends with such a gap, its
  commit marker. Here an offset is committed when the shell says so, and for no other reason.
- After a restore it lets records in, looks up where to go on, and only then empties the queues: what
  came in between is lost, and committed with what comes next. Here the sources are let in last.
- It knows of TLS and SASL by classes of its own; here clients are made as all of ours are.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol, cast

import aiokafka
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.transports import ConsumerT, ProducerT

from streams.kafka import failpoints
from streams.kafka.leftovers import pass_over_leftovers
from streams.kafka.settings import Settings

# faust asks for records whenever it has handled the last ones; how long that may take is the
# watchdog's to judge, which restarts a process instead of letting two of them work.
POLL_INTERVAL_MAX_MS = 24 * 3_600_000
FETCH_WAIT_MAX_MS = 200
FETCHED_RECORDS_MAX = 2_000


class Positions:
    """Per source partition: where to go on, once everything before it has been done.

    `reached` moves with what has been handed to the agents, past markers and gaps; `done` with what
    they have finished. Both forget a partition when the group takes it away.
    """

    def __init__(self) -> None:
        self.reached: dict[TP, int] = {}
        self.done: dict[TP, int] = {}

    def __repr__(self) -> str:
        return f"<Positions {self.done}>"

    def finish(self, tp: TP, next_offset: int) -> None:
        """Everything of `tp` before `next_offset` is done."""
        if next_offset > self.done.get(tp, -1):
            self.done[tp] = next_offset

    def forget(self) -> None:
        """The group gives partitions anew."""
        self.reached.clear()
        self.done.clear()


class OwnApp(Protocol):
    """What a transport of ours asks its application for."""

    settings: Settings
    positions: Positions
    role: str


def own(app: object) -> OwnApp:
    """Return an application of faust's as what it is."""
    return cast("OwnApp", app)


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """aiokafka's consumer, in a thread of its own: heartbeats go on while an agent works."""

    def _create_worker_consumer(self, transport: "driver.Transport") -> aiokafka.AIOKafkaConsumer:  # noqa: ARG002 - faust's
        settings = own(self.app).settings
        self._assignor = self.app.assignor
        pass_over_leftovers()
        return aiokafka.AIOKafkaConsumer(
            **settings.consumer_kwargs(own(self.app).role),
            **settings.group_kwargs(),
            group_id=self.app.conf.id,
            partition_assignment_strategy=[self._assignor],
            max_poll_interval_ms=POLL_INTERVAL_MAX_MS,
            max_poll_records=FETCHED_RECORDS_MAX,
            fetch_max_wait_ms=FETCH_WAIT_MAX_MS,
        )

    def highwater(self, tp: TP) -> int:
        """Return where committed records end, as far as the last answer told."""
        return int(self._ensure_consumer().last_stable_offset(tp) or 0)

    def reached(self, tps: Iterable[TP]) -> dict[TP, int]:
        """Return where the next fetch begins, for those that have such a place."""
        assignment = self._ensure_consumer()._subscription.subscription.assignment  # noqa: SLF001 - aiokafka tells it asynchronously alone
        found = {}
        for tp in tps:
            state = assignment.state_value(tp)
            if state is not None and state.has_valid_position:
                found[tp] = int(state.position)
        return found


class Consumer(driver.Consumer):
    """Commits what the shell has finished, nothing else; lets sources in when all else is done."""

    _stops = 0
    _is_open = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._waiting: set[TP] = set()  # sources that are to be let in

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def stop_flow(self) -> None:
        """Hand on no more records; what waits, and some of what was fetched, is dropped."""
        self._stops += 1
        self._is_open = False
        self._waiting.clear()
        self._buffered_partitions.clear()
        own(self.app).positions.reached.clear()
        super().stop_flow()

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Let changelogs in at once, and sources when the queues have been emptied."""
        tps = set(tps)
        changelogs = {tp for tp in tps if self._is_changelog_tp(tp)}
        super().resume_partitions(changelogs)
        self._waiting |= tps - changelogs
        if self._is_open:
            self.let_sources_in()

    def let_sources_in(self) -> None:
        """Everything is as it was before the group moved: read on."""
        self._is_open = True
        waiting, self._waiting = self._waiting, set()
        super().resume_partitions(waiting)

    def on_buffer_drop(self, tp: TP) -> None:
        """A queue has room again; while the group moves, nothing is let in for that."""
        if self._is_open:
            super().on_buffer_drop(tp)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109 - faust's
        """Fetch, and note what has been reached, if nothing of it was dropped on the way."""
        stops = self._stops
        async for tp, message in super().getmany(timeout):
            yield tp, message
        # A consumer that failed, or is ending, drops what it has fetched and says nothing of it.
        if stops == self._stops and self.flow_active and not self.should_stop:
            sources = [tp for tp in self._get_active_partitions() if not self._is_changelog_tp(tp)]
            thread = cast("ConsumerThread", self._thread)
            own(self.app).positions.reached.update(thread.reached(sources))

    def _filter_tps_with_pending_acks(self, topics: object = None) -> Iterator[TP]:  # noqa: ARG002 - faust's
        return iter(list(own(self.app).positions.done))

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        done: Mapping[TP, int] = own(self.app).positions.done
        return {
            tp: done[tp] for tp in tps if tp in done and done[tp] != self._committed_offset.get(tp)
        }

    async def _commit_offsets(
        self,
        offsets: Mapping[TP, int],
        start_new_transaction: bool = True,  # noqa: FBT001, FBT002 - faust's
    ) -> bool:
        failpoints.hit("agent_before_commit")
        committed = await super()._commit_offsets(offsets, start_new_transaction)
        failpoints.hit("agent_after_commit")
        return committed


class Producer(driver.Producer):
    """Neither loses nor repeats nor reorders what is sent."""

    def _new_producer(self, transactional_id: str | None = None) -> aiokafka.AIOKafkaProducer:
        assert transactional_id is None
        settings = own(self.app).settings
        pass_over_leftovers()
        return aiokafka.AIOKafkaProducer(
            **settings.producer_kwargs(own(self.app).role), compression_type="lz4"
        )


class Transport(driver.Transport):
    """The two together."""

    Consumer: ClassVar[type[ConsumerT]] = Consumer
    Producer: ClassVar[type[ProducerT]] = Producer
