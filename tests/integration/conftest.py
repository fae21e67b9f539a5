"""What the tests of both judges share: a log is recorded once, and copied with damage."""

import asyncio
import uuid
from typing import get_args

import pytest

from streams.kafka.settings import Driver, Settings
from tests.integration.recorded_log import Log, record_log, settings_of


@pytest.fixture(scope="session")
def log(bootstrap_servers: str) -> Log:
    return asyncio.run(record_log(bootstrap_servers, f"t-{uuid.uuid4().hex[:8]}."))


@pytest.fixture(params=get_args(Driver))
def driver(request: pytest.FixtureRequest) -> Driver:
    """By which a ledger reads and writes: whoever asks for it runs with each."""
    found: Driver = request.param
    return found


@pytest.fixture
def settings(bootstrap_servers: str, topic_prefix: str) -> Settings:
    """Where a copy of the log goes."""
    return settings_of(bootstrap_servers, topic_prefix)
