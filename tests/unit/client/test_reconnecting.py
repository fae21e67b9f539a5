"""Who loses the connection waits, ever longer, and says what happened once."""

import asyncio
import logging

import pytest
from aiokafka.errors import KafkaConnectionError

from streams.client.reconnecting import Reconnecting

log = logging.getLogger("test")


class Connections:
    """Connections that fail or succeed as they are told, and then are lost; None succeeds."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self._outcomes = list(outcomes)
        self.waited_s: list[float] = []
        self.reconnecting = Reconnecting("verdicts", log, self.wait)

    async def wait(self, seconds: float) -> None:
        self.waited_s.append(seconds)

    async def connect_and_read(self) -> None:
        if not self._outcomes:
            raise asyncio.CancelledError
        failure = self._outcomes.pop(0)
        if failure is not None:
            raise failure
        self.reconnecting.is_up()
        raise KafkaConnectionError("lost")

    async def until_cancelled(self) -> None:
        with pytest.raises(asyncio.CancelledError):
            await self.reconnecting.run(self.connect_and_read)


AWAY = KafkaConnectionError("away")


async def test_it_waits_ever_longer_up_to_a_bound() -> None:
    connections = Connections(*[AWAY] * 7)
    await connections.until_cancelled()
    assert connections.waited_s == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


async def test_another_outage_begins_with_a_short_wait() -> None:
    connections = Connections(AWAY, AWAY, AWAY, None, AWAY)
    await connections.until_cancelled()
    assert connections.waited_s == [0.2, 0.4, 0.8, 0.2, 0.4]


async def test_an_outage_is_said_once_and_that_it_is_over_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await Connections(AWAY, AWAY, None, AWAY).until_cancelled()
    said = [record.getMessage() for record in caplog.records]
    assert [each.partition(":")[0] for each in said] == [
        "verdicts cannot be read yet",
        "verdicts are read again",
        "verdicts cannot be read yet",
    ]


@pytest.mark.parametrize(
    ("failure", "has_stack"),
    [
        pytest.param(AWAY, False, id="Kafka is away"),
        pytest.param(OSError("no route"), False, id="the network is"),
        pytest.param(ZeroDivisionError(), True, id="a defect of ours"),
    ],
)
async def test_only_a_defect_is_said_with_its_stack(
    failure: Exception,
    has_stack: bool,  # noqa: FBT001 - a row of the table
    caplog: pytest.LogCaptureFixture,
) -> None:
    await Connections(failure).until_cancelled()
    (record,) = caplog.records
    assert bool(record.exc_info) == has_stack
