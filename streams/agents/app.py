"""A faust application for one agent: our transport and tables, no web server, no files, no topics.

faust is configured here and nowhere else; the rest of the room sees `FaustApp` and the protocols.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, cast

import faust
from faust.exceptions import ConsumerNotStarted
from faust.types import TP

from streams.agents.positions import Positions
from streams.agents.stages import Agent, Stage
from streams.agents.tables import EMPTY, Table
from streams.agents.transport import Consumer, Transport
from streams.kafka.settings import Settings

COMMIT_EVERY_S = 1.0
# Of each stage's sources together; beyond it nothing more is fetched.
BUFFERED_RECORDS_MAX = 4_096


class Delivered(Protocol):
    """What the broker says of a record that it has."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""


class Sender(Protocol):
    """What is used of faust's producer."""

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: object,
    ) -> Awaitable[Delivered]:
        """Queue a record; what it returns is its delivery."""


class Message(Protocol):
    """A record as faust hands it on; `timestamp` in seconds."""

    tp: TP
    topic: str
    partition: int
    offset: int
    timestamp: float
    key: bytes | None
    value: bytes | None
    headers: Any


class Event(Protocol):
    """A record on its way to an agent."""

    message: Message


class Queue(Protocol):
    """Where records wait for their stage."""

    async def get(self) -> Event:
        """Wait for the next one."""

    def get_nowait(self) -> Event:
        """Return the next one, which is there."""

    def empty(self) -> bool:
        """Whether none waits."""


class StoodStillError(Exception):
    """The process was stopped: the group may have given its partitions to another."""


class FaustApp(faust.App):
    """faust's application, with what our transport and tables ask it for."""

    def __init__(self, agent: Agent, settings: Settings) -> None:
        self.settings = settings
        self.agent_of = agent
        self.positions = Positions()
        # Names this process among the members of its group.
        self.role = f"{agent.group}-{socket.gethostname()}-{os.getpid()}"
        super().__init__(
            settings.group_id(agent.group),
            broker=f"kafka://{settings.bootstrap_servers.split(',')[0].strip()}",
            store="memory://",
            Table=Table,
            web_enabled=False,
            autodiscover=False,
            topic_allow_declare=False,  # ours are created by `topics`, with their settings
            topic_disable_leader=True,
            table_standby_replicas=0,
            stream_wait_empty=False,  # the shell ends its batch itself
            stream_buffer_maxsize=BUFFERED_RECORDS_MAX,
            broker_commit_interval=COMMIT_EVERY_S,
            broker_session_timeout=settings.session_timeout_ms / 1000,
            broker_request_timeout=max(settings.request_timeout_ms, settings.session_timeout_ms)
            / 1000,
        )
        self._tables: dict[str, Table] = {}
        self.failed = asyncio.Event()
        self.failure: BaseException | None = None
        self.is_ending = False  # what fails from now on is what was cut off
        self._turned_s: float | None = None

    def fail(self, error: BaseException) -> None:
        """Remember that it cannot go on as it is: the worker ends, and another begins."""
        if self.is_ending:
            return
        if self.failure is None:
            self.failure = error
        self.failed.set()

    def turn(self, now_s: float) -> None:
        """The loop turns; it fails where that is the first time for longer than a batch may take.

        Then the process was stopped, and somebody else may have its partitions: whoever notices first
        begins no batch, not even with what was read before.

        Args:
            now_s: of the loop's clock.
        """
        since_s = now_s if self._turned_s is None else self._turned_s
        if now_s - since_s > self.settings.batch_deadline_ms / 1000:
            self.fail(StoodStillError(f"stood still for {now_s - since_s:.1f} s"))
        self._turned_s = now_s

    def _crash(self, reason: BaseException) -> None:
        super()._crash(reason)
        self.fail(reason)

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Transport:
        return Transport(self.conf.broker_producer, self)

    def on_rebalance_end(self) -> None:
        """Read on: the entries are restored, the offsets looked up, the queues empty."""
        super().on_rebalance_end()
        cast("Consumer", self.consumer).let_sources_in()

    def _create_directories(self) -> None:
        """Write no files."""

    def add_stage(
        self, stage: Stage, partitions: int, run: Callable[[Queue], Awaitable[None]]
    ) -> None:
        """Have `run` handle the records of a stage's sources, of `partitions` partitions each."""
        topic = self.topic(
            *(f"{self.settings.topic_prefix}{source.topic}" for source in stage.sources),
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            allow_empty=True,
        )
        if stage.entry is not None:
            self._tables[stage.name] = cast(
                "Table",
                self.Table(stage.name, partitions=partitions, key_type=bytes, value_type=bytes),
            )

        async def agent(stream: Any) -> None:  # noqa: ANN401 - faust's
            try:
                await run(cast("Queue", stream.channel.queue))
            except Exception as error:  # noqa: BLE001 - here the room ends: faust would begin again
                self.fail(error)
                await asyncio.Event().wait()

        self.agent(topic, name=stage.name, concurrency=1)(agent)

    @property
    def sender(self) -> Sender:
        """What sends records, once it is started."""
        return cast("Sender", self.producer)

    def stored(self, stage: Stage, partition: int) -> Mapping[bytes, bytes]:
        """Return a stage's entries of a partition, as bytes."""
        table = self._tables.get(stage.name)
        return EMPTY if table is None else table.store.of(partition)

    @property
    def restored(self) -> int:
        """How many changes have been read from changelogs since the start."""
        return sum(table.store.restored for table in self._tables.values())

    def table(self, stage: Stage) -> Table:
        """Return the table of a stage that has entries."""
        return self._tables[stage.name]

    def owned(self) -> set[TP]:
        """Return the partitions that the group has given us; none before it has."""
        if not self.started or self._consumer is None:
            return set()
        try:
            return set(self.consumer.assignment())
        except ConsumerNotStarted:
            return set()

    @property
    def is_reading(self) -> bool:
        """Whether sources are read: entries are restored, and the group does not move."""
        return self.started and self.flow_control.is_active() and not self.rebalancing

    def is_current(self, message: Message) -> bool:
        """Whether a batch may begin with it: it was read since the group last gave partitions."""
        return self.failure is None and self.positions.is_current(message)
