"""aiokafka's producer: the few methods we use, with types, and a way to let go of one at once."""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, Protocol, cast

import aiokafka.errors
import aiokafka.producer.sender
from aiokafka import AIOKafkaProducer

from schemas.topics import MESSAGE_BYTES_MAX
from streams.kafka.compression import BUILDER_BYTES, compress_fast, lz4_encode
from streams.kafka.leftovers import pass_over_leftovers
from streams.kafka.settings import Settings

# After a commit the broker answers the next transaction's first request with
# CONCURRENT_TRANSACTIONS while it writes its markers; aiokafka then sleeps for this constant of its
# module, 20 ms. At 2,000 events/s that was 30 ms from event to decision, and 7 with 1 ms.
CONCURRENT_TRANSACTIONS_BACKOFF_S = 0.001
aiokafka.producer.sender.BACKOFF_OVERRIDE = CONCURRENT_TRANSACTIONS_BACKOFF_S

compress_fast()
CLOSE_WITHIN_S = 2.0
SENDER_CANCELS = 3
# The broker counts the record batch, with its header and the key, as it comes: compressed.
RECORD_BYTES_MAX = MESSAGE_BYTES_MAX - 64 * 1024


class Builder(Protocol):
    """A record batch in the making."""

    def append(
        self, *, timestamp: int | None, key: bytes | None, value: bytes | None
    ) -> object | None:
        """Add a record; None means that the batch is full."""

    def close(self) -> None:
        """Nothing more comes."""


class Producer(Protocol):
    """What we use of an `AIOKafkaProducer`."""

    def create_batch(self) -> Builder:
        """Return an empty record batch."""

    async def start(self) -> None:
        """Connect; a transactional one also ends its predecessors."""

    async def stop(self) -> None:
        """Deliver what is waiting, however long that takes, and close."""

    async def begin_transaction(self) -> None:
        """Begin; nothing is sent by it."""

    async def commit_transaction(self) -> None:
        """Commit; also where a record batch was refused: await its delivery first."""

    async def abort_transaction(self) -> None:
        """Abort; does nothing after some errors."""

    async def send_batch(self, batch: Builder, topic: str, *, partition: int) -> Awaitable[object]:
        """Queue a record batch; what it returns is its delivery."""

    async def send_and_wait(
        self, topic: str, value: bytes | None, key: bytes | None, partition: int | None
    ) -> object:
        """Deliver one record."""


def transactional_producer(settings: Settings, partition: int) -> Producer:
    """Return a producer, not started, whose start ends every other of this input partition."""
    pass_over_leftovers()
    producer = AIOKafkaProducer(
        **settings.producer_kwargs(f"ledger-{partition}"),
        transactional_id=settings.transactional_id(partition),
        transaction_timeout_ms=settings.transaction_timeout_ms,
        compression_type="lz4",
        max_batch_size=BUILDER_BYTES,
    )
    return cast("Producer", producer)


def idempotent_producer(settings: Settings, role: str) -> Producer:
    """Return a producer, not started, that neither loses nor repeats nor reorders."""
    pass_over_leftovers()
    return cast("Producer", AIOKafkaProducer(**settings.producer_kwargs(role)))


async def discard(producer: Producer) -> None:
    """Let go of a producer whatever state it is in, and send nothing more.

    `stop` alone first delivers what is waiting, for ever while Kafka is away. So the connections go
    first, then what waits fails, then the sender ends. All of it has `CLOSE_WITHIN_S`; each step has a
    part of that for itself, so that none takes it from those that come after.

    Raises:
        CancelledError: we were cancelled meanwhile. That ends the step at which it came; those after
            it are still done, in their time, so that nothing is left that sends.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelled_before = task.cancelling()
    ours = cast("Any", producer)
    until_s = asyncio.get_running_loop().time() + CLOSE_WITHIN_S
    ours._message_accumulator.fail_all(aiokafka.errors.ProducerClosed())  # noqa: SLF001 - see above
    sender = ours._sender.sender_task  # noqa: SLF001 - see above
    with contextlib.suppress(TimeoutError, asyncio.CancelledError):
        async with asyncio.timeout(CLOSE_WITHIN_S / 2):
            await ours.client.close()
    if sender is not None:
        # The sender waits for its requests when it is cancelled; cancelled again it does not.
        for _ in range(SENDER_CANCELS):
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([sender], timeout=CLOSE_WITHIN_S / 4 / SENDER_CANCELS)
            if sender.done():
                break
    with contextlib.suppress(
        aiokafka.errors.KafkaError, OSError, TimeoutError, asyncio.CancelledError
    ):
        async with asyncio.timeout_at(until_s):
            await producer.stop()  # raises the sender's CancelledError, which is none of ours
    # By the count alone: libraries pass over a CancelledError that comes while they close.
    if task.cancelling() > cancelled_before:
        raise asyncio.CancelledError


def fits(value: bytes) -> bool:
    """Whether a record with this value passes the broker, compressed as our producers compress."""
    if len(value) <= RECORD_BYTES_MAX:
        return True
    return len(lz4_encode(value)) <= RECORD_BYTES_MAX
