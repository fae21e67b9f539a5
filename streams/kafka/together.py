"""Records that an operator writes: all of them, or none, over several partitions and topics."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import aiokafka.errors
from aiokafka import AIOKafkaProducer

from schemas.errors import UnavailableError
from streams.kafka import failpoints
from streams.kafka.leftovers import pass_over_leftovers
from streams.kafka.ports import HeadedRecord, Record
from streams.kafka.producers import Producer, discard
from streams.kafka.settings import Settings


async def write_together(
    settings: Settings, records: Sequence[Record], writer: str, within_s: float
) -> list[int]:
    """Write `records` in one transaction; return the offset of each, in the order given.

    Args:
        settings: where.
        records: to any topics and partitions.
        writer: names the transaction; two writers at the same time need two names.
        within_s: the deadline of all of it.

    Raises:
        UnavailableError: none is visible, or, where the answer to the commit was lost, all are.
    """
    pass_over_leftovers()
    producer: Any = AIOKafkaProducer(
        **settings.producer_kwargs(f"together-{writer}"),
        transactional_id=f"{settings.topic_prefix}{writer}",
        transaction_timeout_ms=settings.transaction_timeout_ms,
    )
    committing = False
    deliveries: list[Awaitable[Any]] = []
    try:
        async with asyncio.timeout(within_s):
            await producer.start()
            await producer.begin_transaction()
            for record in records:
                headers = record.headers if isinstance(record, HeadedRecord) else None
                topic, partition, key = record.topic, record.partition, record.key
                delivery = await producer.send(
                    topic, record.value, key=key, partition=partition, headers=headers
                )
                deliveries.append(delivery)
            delivered = await asyncio.gather(*deliveries)
            committing = True
            failpoints.hit("operator_before_commit")
            await producer.commit_transaction()
            failpoints.hit("operator_after_commit")
            await producer.stop()
    except (aiokafka.errors.KafkaError, OSError, TimeoutError) as error:
        await _give_up(producer, deliveries)
        what = "it is not known whether it was written" if committing else "nothing was written"
        raise UnavailableError(
            f"Kafka at {settings.bootstrap_servers}: {what} ({error!r})"
        ) from error
    except BaseException:
        await _give_up(producer, deliveries)
        raise
    return [one.offset for one in delivered]


async def _give_up(producer: Producer, deliveries: Sequence[Awaitable[Any]]) -> None:
    await discard(producer)
    await asyncio.gather(*deliveries, return_exceptions=True)  # all are over by now
