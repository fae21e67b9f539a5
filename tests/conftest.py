"""What all tests share: one real broker and one real Redis for the whole session."""

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import hypothesis
import pytest

from streams.local.broker import KafkaBroker
from streams.local.redis import RedisServer

# How fast examples come is a property of the machine: beside other work on it they are slow, and no
# test fails for that.
hypothesis.settings.register_profile(
    "stoploss",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
hypothesis.settings.load_profile("stoploss")

# A shell that runs something in the background has it ignore Ctrl-C, and so do our child processes;
# tests that send one would wait in vain, though nothing is wrong.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A broker of a test lives for seconds: compiled by the quick one of Java's two compilers alone it costs
# 0.6 of the processor time, its start included.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")

WITH_A_BROKER = [Path(__file__).parent / folder for folder in ("integration", "faults")]


class Broker(Protocol):
    """As much of a broker as a test needs, be it ours or somebody else's."""

    @property
    def bootstrap_servers(self) -> str: ...


class ExternalBroker:
    """The broker that STOPLOSS_TEST_BOOTSTRAP_SERVERS names."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """See that who needs a broker says so, and where: by that `.ci/run` divides the tests."""
    unmarked = [
        item.nodeid
        for item in items
        if isinstance(item, pytest.Function)
        and {"broker", "proxied", "proxied_for_all"} & set(item.fixturenames)
        and item.get_closest_marker("integration") is None
    ]
    if unmarked:
        raise pytest.UsageError(f"needs a broker, so mark it `integration`: {', '.join(unmarked)}")
    elsewhere = [
        item.nodeid
        for item in items
        if item.get_closest_marker("integration") is not None
        and not any(item.path.is_relative_to(folder) for folder in WITH_A_BROKER)
    ]
    if elsewhere:
        folders = " or ".join(f"tests/{folder.name}" for folder in WITH_A_BROKER)
        raise pytest.UsageError(f"needs a broker, so move it to {folders}: {', '.join(elsewhere)}")


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for the whole session: topics are a test's own, see `topic_prefix`."""
    if servers := os.environ.get("STOPLOSS_TEST_BOOTSTRAP_SERVERS"):
        yield ExternalBroker(servers)
        return
    ours = KafkaBroker(tmp_path_factory.mktemp("kafka"))
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: asyncio.run(ours.stop()))
        asyncio.run(ours.start())
        yield ours


@pytest.fixture(scope="session")
def bootstrap_servers(broker: Broker) -> str:
    return broker.bootstrap_servers


@pytest.fixture
def topic_prefix() -> str:
    """A prefix of this test's own, such as `t-1f2e3d4c.`."""
    return f"t-{uuid.uuid4().hex[:8]}."


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for the whole session; keys are a test's own, by its `topic_prefix`."""
    server = RedisServer(Path(tmp_path_factory.mktemp("redis")))
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: asyncio.run(server.stop()))
        asyncio.run(server.start())
        yield server
