"""What the tests of both judges share: a log is recorded once, and copied with damage."""

import asyncio
import uuid

import pytest

from streams.kafka.settings import Settings
from tests.integration.recorded_log import Log, record_log, settings_of


@pytest.fixture(scope="session")
def log(bootstrap_servers: str) -> Log:
    return asyncio.run(record_log(bootstrap_servers, f"t-{uuid.uuid4().hex[:8]}."))


@pytest.fixture
def settings(bootstrap_servers: str, topic_prefix: str) -> Settings:
    """Where a copy of the log goes."""
    return settings_of(bootstrap_servers, topic_prefix)
