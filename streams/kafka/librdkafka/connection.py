"""librdkafka as the owner of an input partition has it: a consumer of its own, and its writer."""

from typing import Any

from schemas.topics import BY_PARTITION
from streams.kafka.librdkafka.calls import Caller
from streams.kafka.librdkafka.reader import Place, PlacedConsumer, RdReader
from streams.kafka.librdkafka.session import RdWriter
from streams.kafka.reader import KafkaReader, close_client, start_client
from streams.kafka.settings import Settings


class RdConnection:
    """See `Connection`. Its readers share a consumer: to read in turn begins anew each time."""

    def __init__(self, settings: Settings, client: Any, partition: int) -> None:  # noqa: ANN401 - aiokafka has no types
        self._settings, self._client, self._partition = settings, client, partition
        self._consumer = PlacedConsumer(settings, partition)
        self._caller = Caller(f"reader-{partition}")

    def writer(self) -> RdWriter:
        """See `Connection.writer`."""
        return RdWriter(self._settings, self._partition)

    def reader(self, topic: str, offset: int = 0, *, is_compacted: bool = False) -> RdReader:
        """See `Connection.reader`."""
        inquirer = KafkaReader(self._client, topic, self._partition)
        place = Place(topic, self._partition, offset)
        return RdReader(self._consumer, self._caller, inquirer, place, is_compacted=is_compacted)

    async def close(self) -> None:
        """See `Connection.close`."""
        try:
            await self._caller.close(self._consumer.close)
        finally:
            await close_client(self._client)


class RdConnect:
    """See `Connect`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __call__(self, partition: int) -> RdConnection:
        """See `Connect`."""
        topics = sorted(self._settings.topic(topic) for topic in BY_PARTITION)
        client = await start_client(self._settings, topics, f"reader-{partition}")
        try:
            return RdConnection(self._settings, client, partition)
        except BaseException:
            await close_client(client)
            raise
