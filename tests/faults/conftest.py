"""A broker behind proxies, for tests that need to come between."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.broker import ProxiedBroker, proxied_broker

CALM, TROUBLED = "calm", "troubled"


@pytest.fixture
async def proxied(tmp_path: Path) -> AsyncIterator[ProxiedBroker]:
    """One broker for this test, whose clients come through the proxies `calm` and `troubled`."""
    async with proxied_broker(tmp_path / "kafka", CALM, TROUBLED) as broker:
        yield broker
