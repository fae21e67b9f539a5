"""faust's transport as we need it: committed records only, our client settings, our offsets.

What is different from faust's own, and why:
- Its consumer reads uncommitted records unless it is in its exactly-once mode, which puts outputs
  and offsets into different transactions.
- It commits what has been acknowledged, and takes the gap before a record for acknowledged together
  with the record itself: a crash there loses it. Every batch of the ledger ends with such a gap, its
  commit marker. Here an offset is committed when the shell says so, and for no other reason.
- After a restore it lets records in, looks up where to go on, and only then empties the queues: what
  came in between is lost, and committed with what comes next. Here the sources are let in last.
- It reads on from where its consumer stands, and its consumer stands behind what was fetched and then
  dropped: a fetch that waits while its partitions are paused takes what there is of all others. Here
  it is told at each fetch where to begin, which is where the last one was handed on to.
- It knows of TLS and SASL by classes of its own; here clients are made as all of ours are.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, cast

import aiokafka
import aiokafka.errors
from aiokafka.structs import TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.transports import ConsumerT, ProducerT

from streams.agents.positions import Positions
from streams.kafka import failpoints
from streams.kafka.leftovers import pass_over_leftovers
from streams.kafka.settings import Settings

# faust asks for records whenever it has handled the last ones; how long that may take is the
# watchdog's to judge, which restarts a process instead of letting two of them work.
POLL_INTERVAL_MAX_MS = 24 * 3_600_000
FETCH_WAIT_MAX_MS = 200
FETCHED_RECORDS_MAX = 2_000
NOTHING_TO_READ_S = 0.1  # as long as entries are restored, and where no partition is ours
LOOK_UP_AGAIN_S = 0.2
# aiokafka calls neither retriable: the broker does not answer in time, or a partition has just gone.
NOT_NOW = (aiokafka.errors.KafkaTimeoutError, aiokafka.errors.IllegalStateError)


@dataclass(frozen=True)
class Fetched:
    """What one fetch has found.

    Attributes:
        records: by partition, in order.
        starts: where it began, if that is not where it was told to.
        reached: where the next one is to begin, past markers and gaps.
    """

    records: Mapping[TP, list[Any]] = field(default_factory=dict)
    starts: Mapping[TP, int] = field(default_factory=dict)
    reached: Mapping[TP, int] = field(default_factory=dict)


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

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - faust's
        super().__init__(*args, **kwargs)
        self._fetching = asyncio.Lock()

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

    async def fetch(self, places: Mapping[TP, int | None], timeout_s: float) -> Fetched:
        """Return what there is from these places on; None is where the group has committed."""
        found: Fetched = await self.call_thread(self._fetch_from, places, timeout_s)
        return found

    async def _fetch_from(self, places: Mapping[TP, int | None], timeout_s: float) -> Fetched:
        consumer = self._ensure_consumer()
        # One that was given up still reads: the next one begins when it has ended.
        async with self._fetching:
            assignment = _assignment(consumer)
            starts = await self._go_to(consumer, places)
            if starts is None or assignment is None:
                return Fetched()
            records = await self._fetch_records(
                consumer, set(places), timeout=timeout_s, max_records=FETCHED_RECORDS_MAX
            )
            # From here on nothing is awaited: the places are those of these records.
            if _assignment(consumer) is not assignment:
                return Fetched()
            return _spans(assignment, {**places, **starts}, records, starts)

    async def _go_to(
        self, consumer: aiokafka.AIOKafkaConsumer, places: Mapping[TP, int | None]
    ) -> dict[TP, int] | None:
        """Have the next fetch begin at these places; return those that had to be others.

        The consumer's own places do not count: what it has handed out since may have been dropped, and
        so may what it had fetched when somebody looked for the place it had.

        Returns:
            None where the group moves, or the broker does not know.
        """
        assignment = _assignment(consumer)
        if assignment is None or not assignment.tps.issuperset(places):
            return None
        others = astray(assignment, places)
        if not others:
            return {}
        try:
            found = await _look_up(consumer, others)
        except aiokafka.errors.KafkaError as error:
            if not (error.retriable or isinstance(error, NOT_NOW)):
                raise
            await asyncio.sleep(LOOK_UP_AGAIN_S)
            return None
        if _assignment(consumer) is not assignment:
            return None
        for tp, place in found.items():
            consumer._fetcher.seek_to(TopicPartition(*tp), place)  # noqa: SLF001 - at once, in this thread
        return {tp: place for tp, place in found.items() if place != places[tp]}


def astray(
    assignment: Any,  # noqa: ANN401 - aiokafka has no types
    places: Mapping[TP, int | None],
) -> dict[TP, int | None]:
    """Return those of the places where the consumer does not stand; at the start it stands nowhere."""
    return {
        tp: place
        for tp, place in places.items()
        if place is None or _place(assignment, tp) != place
    }


async def _look_up(
    consumer: aiokafka.AIOKafkaConsumer, places: Mapping[TP, int | None]
) -> dict[TP, int]:
    """Return the places, those that are known and those that the group knows, if the log has them.

    Raises:
        KafkaError: the broker does not say.
    """
    tps = {tp: TopicPartition(*tp) for tp in places}
    firsts = await consumer.beginning_offsets(list(tps.values()))
    found = {}
    for tp, known in places.items():
        place = await consumer.committed(tps[tp]) if known is None else known
        found[tp] = firsts[tps[tp]] if place is None else place
    # Asked for last, or what others commit meanwhile would seem to be beyond it.
    ends = await consumer.end_offsets(list(tps.values()))
    return {
        tp: place if firsts[tps[tp]] <= place <= ends[tps[tp]] else firsts[tps[tp]]
        for tp, place in found.items()
    }


def _assignment(consumer: aiokafka.AIOKafkaConsumer) -> Any:  # noqa: ANN401 - aiokafka has no types
    """Return what the group has given it, as long as that holds; another one each time."""
    subscription = consumer._subscription.subscription  # noqa: SLF001 - aiokafka tells it asynchronously alone
    if subscription is None or subscription.assignment is None:
        return None
    return subscription.assignment if subscription.assignment.active else None


def _place(assignment: Any, tp: TP) -> int | None:  # noqa: ANN401 - aiokafka has no types
    state = assignment.state_value(tp)
    return int(state.position) if state.has_valid_position else None


def _spans(
    assignment: Any,  # noqa: ANN401 - aiokafka has no types
    places: Mapping[TP, int | None],
    records: Mapping[TP, Sequence[Any]],
    starts: Mapping[TP, int],
) -> Fetched:
    """Return what was fetched from these places on; somebody may have gone back meanwhile."""
    found, reached = {}, {}
    for tp, place in places.items():
        assert place is not None
        found[tp] = [record for record in records.get(tp, ()) if record.offset >= place]
        reached[tp] = max(place, _place(assignment, tp) or 0)
        assert not found[tp] or found[tp][-1].offset < reached[tp]
    return Fetched({tp: some for tp, some in found.items() if some}, starts, reached)


class Consumer(driver.Consumer):
    """Commits what the shell has finished, nothing else; lets sources in when all else is done.

    faust drops what was fetched in many places, and takes it for read in as many. Here each fetch
    begins where the last one was handed on to: what was dropped is fetched again.
    """

    _turn = 0  # changes where what was fetched before is not to be handed on

    def __post_init__(self) -> None:
        super().__post_init__()
        self._waiting: set[TP] = set()  # sources that are to be let in
        self._changelogs: dict[TP, int] = {}  # from where they are read on

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def stop_flow(self) -> None:
        """Hand on no more records; what waits, and some of what was fetched, is dropped."""
        self._close()
        super().stop_flow()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """The group moves; faust stops the flow only where there were partitions."""
        self._close()
        await super().on_partitions_revoked(revoked)

    def _close(self) -> None:
        self._turn += 1
        self._waiting.clear()
        self._changelogs.clear()
        self._buffered_partitions.clear()
        own(self.app).positions.close()

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Let changelogs in at once, and sources when the queues have been emptied."""
        tps = set(tps)
        changelogs = {tp for tp in tps if self._is_changelog_tp(tp)}
        super().resume_partitions(changelogs)
        self._waiting |= tps - changelogs

    def let_sources_in(self) -> None:
        """Everything is as it was before the group moved, unless it has moved again: read on."""
        waiting, self._waiting = self._waiting, set()
        if waiting:
            own(self.app).positions.open(waiting)
            super().resume_partitions(waiting)

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Restore from these places on; sources are never given one here."""
        assert all(self._is_changelog_tp(tp) for tp in partitions)
        self._turn += 1
        self._changelogs.update(partitions)
        await super().seek_wait(partitions)

    def on_buffer_drop(self, tp: TP) -> None:
        """A queue has room again; while the group moves, nothing is let in for that."""
        if own(self.app).positions.is_open:
            super().on_buffer_drop(tp)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109 - faust's
        """Fetch from where the last fetch was handed on to, and hand on."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow.wait())
        turn = self._turn
        places = self._places()
        if not places:
            await self.sleep(NOTHING_TO_READ_S)
            return
        fetched = await cast("ConsumerThread", self._thread).fetch(places, timeout)
        if not self._goes_on(turn):
            return
        positions = own(self.app).positions
        for tp, offset in fetched.starts.items():
            if self._is_changelog_tp(tp):
                self._changelogs[tp] = offset
            else:
                positions.start(tp, offset)
        for tp, record in self.scheduler.iterate(fetched.records):
            message = self._to_message(tp, record)
            # faust passes over what is below the last record that it has seen, which may be lost.
            self._read_offset[tp] = None
            if not self._is_changelog_tp(tp):
                positions.hand(message)
            elif tp not in self._get_active_partitions():
                continue  # it is restored: what comes now was written by ourselves
            yield tp, message
            if not self._goes_on(turn):
                return
        for tp, offset in fetched.reached.items():
            if self._is_changelog_tp(tp):
                self._changelogs[tp] = offset
            else:
                positions.reach(tp, offset)

    def _places(self) -> dict[TP, int | None]:
        known = {**self._changelogs, **own(self.app).positions.places()}
        return {tp: known[tp] for tp in self._get_active_partitions() if tp in known}

    def _goes_on(self, turn: int) -> bool:
        return turn == self._turn and self.flow_active and not self.should_stop

    def _filter_tps_with_pending_acks(self, topics: object = None) -> Iterator[TP]:  # noqa: ARG002 - faust's
        return iter(own(self.app).positions.uncommitted())

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:  # noqa: ARG002 - faust's
        return own(self.app).positions.uncommitted()

    async def _commit_offsets(
        self,
        offsets: Mapping[TP, int],
        start_new_transaction: bool = True,  # noqa: FBT001, FBT002 - faust's
    ) -> bool:
        positions = own(self.app).positions
        term = positions.term
        failpoints.hit("agent_before_commit")
        committed: bool = await super()._commit_offsets(offsets, start_new_transaction)
        failpoints.hit("agent_after_commit")
        if committed:
            positions.committed(offsets, term)
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
