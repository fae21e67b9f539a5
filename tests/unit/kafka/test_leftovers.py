"""What aiokafka leaves to nobody is no traceback on stderr; what we leave is one."""

import asyncio
import logging

import pytest
from aiokafka.errors import ProducerClosed
from aiokafka.producer.transaction_manager import TransactionManager, TransactionState

from streams.kafka.leftovers import pass_over_leftovers


@pytest.fixture
async def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log, of a loop of which aiokafka's leftovers are passed over."""
    # Some command that a test has run in this process may have set a level of its own.
    caplog.set_level(logging.DEBUG, logger="stoploss.kafka")
    pass_over_leftovers()
    return caplog


def lines(said: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(one.levelname, one.message) for one in said.records]


async def test_an_error_of_kafka_that_nobody_waits_for_is_a_line_for_debugging(
    said: pytest.LogCaptureFixture,
) -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(ProducerClosed())
    del future
    assert lines(said) == [
        ("DEBUG", "aiokafka: Future exception was never retrieved: ProducerClosed()")
    ]


async def test_a_callback_of_aiokafka_that_fails_by_itself_is_one_as_well(
    said: pytest.LogCaptureFixture,
) -> None:
    manager = TransactionManager("t", 1_000)
    manager.state = TransactionState.READY
    asyncio.get_running_loop().call_soon(manager.fatal_error, ProducerClosed())
    await asyncio.sleep(0)
    ((level, message),) = lines(said)
    assert level == "DEBUG"
    assert "AttributeError" in message


async def test_a_connection_that_was_lost_and_never_closed_is_one_as_well(
    said: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.get_running_loop()
    loop.call_exception_handler({"message": "Unclosed AIOKafkaConnection"})
    assert [level for level, _ in lines(said)] == ["DEBUG"]


async def test_a_mistake_of_ours_is_told_as_ever(said: pytest.LogCaptureFixture) -> None:
    asyncio.get_running_loop().call_soon([].pop)
    await asyncio.sleep(0)
    assert [level for level, _ in lines(said)] == ["ERROR"]
    assert said.records[-1].exc_info is not None


async def test_a_loop_with_a_handler_of_its_own_keeps_it() -> None:
    heard: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: heard.append(context["message"]))
    pass_over_leftovers()
    loop.call_exception_handler({"message": "Unclosed AIOKafkaConnection"})
    assert heard == ["Unclosed AIOKafkaConnection"]
