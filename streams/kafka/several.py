"""Many partitions of one broker, read raw by one request.

The owner of an input partition has a reader and a connection of its own (`reader`). Whoever follows
all that is derived, dozens of partitions of which most have nothing new, asks for all of them at once:
the answer comes as soon as one of them has something.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import aiokafka.errors
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import TopicPartition
from msgspec import Struct

from schemas.errors import UnavailableError
from streams.kafka.ports import RawRecord
from streams.kafka.reader import (
    FETCH_WAIT_MS,
    READ_COMMITTED,
    WITH_LOG_START,
    chunks_in,
)

# As it comes over the wire: states of tasks are twenty times as much once they are unpacked.
ANSWER_BYTES_MAX = 1024 * 1024
PARTITION_BYTES_MAX = 512 * 1024


class Fetched(Struct, frozen=True):
    """What came of one partition; `end_offset` is where committed records ended."""

    topic: str
    partition: int
    records: Sequence[RawRecord]
    next_offset: int
    end_offset: int


class SeveralReader:
    """Reads from `offsets` on, committed records only; all of them are led by one broker."""

    def __init__(self, client: Any, node: int, offsets: Mapping[TopicPartition, int]) -> None:  # noqa: ANN401 - aiokafka has no types
        self._client, self._node = client, node
        self._offsets = dict(offsets)

    def __repr__(self) -> str:
        return f"<SeveralReader node={self._node} partitions={len(self._offsets)}>"

    async def read(self) -> list[Fetched]:
        """Return what comes next, of each partition; those with nothing new have no records.

        Raises:
            UnavailableError: Kafka does not answer, or a partition has moved or lost its place.
        """
        asked = self._request()
        try:
            response = await self._client.send(self._node, asked)
        except (aiokafka.errors.KafkaError, OSError, TimeoutError) as error:
            self._client.force_metadata_update()
            raise UnavailableError(f"{self!r}: {error!r}") from error
        fetched = [
            self._fetched(topic, answer, with_log_start=response.API_VERSION >= WITH_LOG_START)
            for topic, partitions in response.topics
            for answer in partitions
        ]
        # Only now: had one partition failed, the next read would leave out what the others brought.
        for each in fetched:
            self._offsets[TopicPartition(each.topic, each.partition)] = each.next_offset
        self._last_goes_first()
        return fetched

    def _request(self) -> FetchRequest:
        topics: dict[str, list[tuple[int, int, int]]] = {}
        for tp, offset in self._offsets.items():
            topics.setdefault(tp.topic, []).append((tp.partition, offset, PARTITION_BYTES_MAX))
        return FetchRequest(FETCH_WAIT_MS, 1, ANSWER_BYTES_MAX, READ_COMMITTED, [*topics.items()])

    def _fetched(self, topic: str, answer: Sequence[Any], *, with_log_start: bool) -> Fetched:
        (partition, code, _, last_stable_offset, *rest) = answer
        error = aiokafka.errors.for_code(code)
        if error is not aiokafka.errors.NoError:
            self._client.force_metadata_update()
            raise UnavailableError(f"{topic} partition {partition}: {error.__name__}")
        aborted = rest[1] if with_log_start else rest[0]
        records: list[RawRecord] = []
        offset = self._offsets[TopicPartition(topic, partition)]
        for chunk in chunks_in(rest[-1] or b"", aborted or [], offset, last_stable_offset):
            records += chunk.records
            offset = chunk.next_offset
        return Fetched(topic, partition, records, offset, last_stable_offset)

    def _last_goes_first(self) -> None:
        """Begin with another topic next time: a broker fills its answer in the order of the request."""
        first = next(iter(self._offsets)).topic
        for tp in [each for each in self._offsets if each.topic == first]:
            self._offsets[tp] = self._offsets.pop(tp)


def by_leader(client: Any, partitions: Sequence[TopicPartition]) -> dict[int, list[TopicPartition]]:  # noqa: ANN401 - aiokafka has no types
    """Return partitions by the broker that leads them.

    Raises:
        UnavailableError: one has no leader now.
    """
    found: dict[int, list[TopicPartition]] = {}
    for tp in partitions:
        leader = client.cluster.leader_for_partition(tp)
        if leader is None or leader == -1:
            client.force_metadata_update()
            raise UnavailableError(f"{tp.topic} partition {tp.partition}: no leader known")
        found.setdefault(leader, []).append(tp)
    return found


async def cluster_id(client: Any) -> str:  # noqa: ANN401 - aiokafka has no types
    """Return what a Kafka cluster calls itself; it is given once, when the cluster is made.

    Raises:
        UnavailableError: Kafka does not answer.
    """
    try:
        response = await client.send(client.get_random_node(), MetadataRequest([]))
    except (aiokafka.errors.KafkaError, OSError, TimeoutError) as error:
        raise UnavailableError(f"Kafka: which cluster it is: {error!r}") from error
    return str(response.cluster_id)
