"""Kafka as the owner of an input partition has it: a client of its own, its writer, its readers."""

from typing import Any

from schemas.topics import BY_PARTITION
from streams.kafka.reader import KafkaReader, close_client, start_client
from streams.kafka.session import KafkaWriter
from streams.kafka.settings import Settings


class KafkaConnection:
    """See `Connection`."""

    def __init__(self, settings: Settings, client: Any, partition: int) -> None:  # noqa: ANN401 - aiokafka has no types
        self._settings, self._client, self._partition = settings, client, partition

    def writer(self) -> KafkaWriter:
        """See `Connection.writer`."""
        return KafkaWriter(self._settings, self._partition)

    def reader(
        self,
        topic: str,
        offset: int = 0,
        *,
        is_compacted: bool = False,  # noqa: ARG002 - what is gone costs nothing to know
    ) -> KafkaReader:
        """See `Connection.reader`."""
        return KafkaReader(self._client, topic, self._partition, offset)

    async def close(self) -> None:
        """See `Connection.close`."""
        await close_client(self._client)


class KafkaConnect:
    """See `Connect`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __call__(self, partition: int) -> KafkaConnection:
        """See `Connect`."""
        topics = sorted(self._settings.topic(topic) for topic in BY_PARTITION)
        client = await start_client(self._settings, topics, f"reader-{partition}")
        return KafkaConnection(self._settings, client, partition)
