"""The transaction of one batch on librdkafka; its states, and what each means, as in `session`.

Its queue tells nobody of single deliveries here: a callback each would have to win the interpreter
from the event loop each time. Instead a flush waits until every one of them has ended, and librdkafka
refuses to commit a transaction of which a record was not delivered.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Generator
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.errors import UnavailableError
from streams.kafka import failpoints
from streams.kafka.librdkafka.calls import SLICE_S, Caller
from streams.kafka.librdkafka.config import producer_config
from streams.kafka.ports import Record
from streams.kafka.session import ABORT_WITHIN_S, At, GatheredBatch
from streams.kafka.settings import Settings

# Enough that the request for a commit is written, too little for its answer to come.
WRITTEN_WITHIN_S = 0.001
PAUSE_S = 0.005  # between calls that end at once
FENCED = frozenset(
    {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}  # noqa: SLF001 - its public constants
)


class Client:
    """A transactional producer; its calls block, a slice at a time, and none after `let_go`."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self._config = producer_config(settings, partition)
        self._producer: Producer | None = None
        self._is_let_go = threading.Event()

    def begin(self, until_s: float) -> None:
        """Connect and fence.

        Raises:
            KafkaException: no broker answers in time, or none that has us.
        """
        self._producer = Producer(self._config)
        self._in_slices("init_transactions", until_s)

    def begin_transaction(self) -> None:
        """Begin; nothing is sent by it."""
        self._made.begin_transaction()

    def queue(self, records: list[Record], until_s: float) -> None:
        """Hand records over; where the queue is full, what is in it is delivered first.

        Raises:
            BufferError: one record is larger than the queue.
            TimeoutError: the queue was not empty in time.
        """
        produce = self._made.produce
        try:
            for record in records:
                try:
                    produce(record.topic, record.value, record.key, record.partition)
                except BufferError:
                    self.flush(until_s)
                    produce(record.topic, record.value, record.key, record.partition)
        finally:
            del produce  # see `close`: the traceback of an error lives longer

    def flush(self, until_s: float) -> None:
        """Wait until each record that was handed over has been delivered, or refused.

        Raises:
            TimeoutError: not all have.
        """
        while self._made.flush(SLICE_S):
            if self._is_let_go.is_set() or time.monotonic() > until_s:
                raise TimeoutError("not every record was delivered in time")

    def commit(self, until_s: float) -> None:
        """Commit.

        Raises:
            KafkaException: it is not known to be committed; a record that was refused is a reason.
        """
        first_s = WRITTEN_WITHIN_S if failpoints.is_armed("in_commit") else SLICE_S
        try:
            self._made.commit_transaction(first_s)
        except KafkaException as exception:
            if not exception.args[0].retriable():
                raise
            failpoints.hit("in_commit")  # it has asked, and nobody has answered
            self._in_slices("commit_transaction", until_s)

    def abort(self, until_s: float) -> None:
        """Abort.

        Raises:
            KafkaException: not in this state, or not in time.
        """
        # Below 0 it would wait for ever.
        self._made.abort_transaction(max(0.0, until_s - time.monotonic()))

    def let_go(self) -> None:
        """Have what waits in another thread end soon; nothing more is sent but an abort."""
        self._is_let_go.set()
        if self._producer is not None:
            with contextlib.suppress(KafkaException, SystemError):
                # Waiting for it would be the event loop's wait for threads that may be connecting.
                self._producer.purge(blocking=False)

    def close(self) -> None:
        """Let go of everything at once; nothing is sent.

        The producer's own `close` aborts and delivers first, for as long as Kafka is away. Without
        its last reference it is destroyed without that, here: nobody else may hold one, be it a
        method of it among the variables of a function in a traceback.
        """
        self._producer = None

    @property
    def _made(self) -> Producer:
        assert self._producer is not None, "begin first"
        return self._producer

    def _in_slices(
        self, call: Literal["init_transactions", "commit_transaction"], until_s: float
    ) -> None:
        while True:
            try:
                getattr(self._made, call)(SLICE_S)
            except KafkaException as exception:
                # It goes on by itself; called again, the call waits for what it has begun.
                goes_on = exception.args[0].retriable() and time.monotonic() < until_s
                if not goes_on or self._is_let_go.wait(PAUSE_S):
                    raise
            else:
                return


class RdWriter:
    """The transactional producer of one input partition; see `PartitionWriter`."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self._settings = settings
        self.partition = partition
        self._link: Link | None = None
        self._batch: RdBatch | None = None

    def __repr__(self) -> str:
        return f"<RdWriter {self._settings.transactional_id(self.partition)} {self._batch}>"

    async def fence(self) -> None:
        """See `PartitionWriter.fence`: InitProducerId ends the predecessor's transaction."""
        await self.close()
        link = Link(self._settings, self.partition)
        until_s = time.monotonic() + self._settings.request_timeout_ms / 1000
        try:
            await link.caller(link.client.begin, until_s)
        except KafkaException as error:
            await link.discard()
            raise UnavailableError(f"{self!r}: {error.args[0]!r}") from error
        except BaseException:
            await link.discard()
            raise
        self._link = link

    def batch(self) -> "RdBatch":
        """See `PartitionWriter.batch`."""
        assert self._link is not None, "fence first"
        assert self._batch is None or self._batch.at in (At.COMMITTED, At.ABORTED)
        deadline_s = self._settings.batch_deadline_ms / 1000
        self._batch = RdBatch(self._link, self.partition, deadline_s)
        return self._batch

    async def close(self) -> None:
        """See `PartitionWriter.close`."""
        link, self._link, self._batch = self._link, None, None
        if link is not None:
            await link.discard()


class Link:
    """A client with its thread."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self.client = Client(settings, partition)
        self.caller = Caller(f"writer-{partition}")
        self._is_discarded = False

    async def discard(self) -> None:
        """Let go of it whatever state it is in, and send nothing more."""
        if not self._is_discarded:
            self._is_discarded = True
            self.client.let_go()
            await self.caller.close(self.client.close)


class RdBatch(GatheredBatch):
    """One transaction; see `Batch`."""

    def __init__(self, link: Link, partition: int, deadline_s: float) -> None:
        super().__init__(partition, deadline_s)
        self._link = link

    async def _transact(self) -> None:
        client, call = self._link.client, self._link.caller
        until_s = time.monotonic() + self._deadline_s  # of every call: none outlasts the batch
        await call(client.begin_transaction)  # 1. nothing is sent by this
        failpoints.hit("after_begin")
        for (topic, _), records in self._by_target():  # 2.
            await failpoints.delivered("after_outputs_sent", [_Flushed(self._link)], topic)
            await call(client.queue, list(records), until_s)
        failpoints.hit("after_state_sent")
        await call(client.flush, until_s)  # 3.
        failpoints.hit("before_commit")
        await call(client.commit, until_s)  # 4. refused where 3. was not all well
        failpoints.hit("after_commit")

    async def _give_up(self, error: BaseException) -> bool:
        """See `GatheredBatch._give_up`.

        librdkafka says of what else it refuses that a fatal error came before; the abort says which.
        """
        is_fenced = _is_fenced(error)
        self._link.client.let_go()
        if not is_fenced:
            until_s = time.monotonic() + ABORT_WITHIN_S
            try:
                async with asyncio.timeout(ABORT_WITHIN_S + SLICE_S):
                    await self._link.caller(self._link.client.abort, until_s)
            except (KafkaException, SystemError, TimeoutError) as refused:
                is_fenced = _is_fenced(refused)  # else the next owner's fence ends it, or time does
        await self._link.discard()
        return is_fenced


class _Flushed:
    """Awaited, everything that has been handed over is on the broker."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __await__(self) -> Generator[Any, None, None]:
        until_s = time.monotonic() + ABORT_WITHIN_S
        return self._link.caller(self._link.client.flush, until_s).__await__()


def _is_fenced(error: BaseException) -> bool:
    # A call in which librdkafka says it on the side ends with a SystemError because of it.
    cause = error.__cause__ if isinstance(error, SystemError) else error
    return isinstance(cause, KafkaException) and cause.args[0].code() in FENCED
