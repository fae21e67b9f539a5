"""A broker behind proxies, for tests that need to come between."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.broker import ProxiedBroker, proxied_broker

CALM, TROUBLED = "calm", "troubled"


@pytest.fixture
async def proxied(tmp_path: Path) -> AsyncIterator[ProxiedBroker]:
    """One broker for this test, whose clients come through the proxies `calm` and `troubled`."""
    async with proxied_broker(tmp_path / "kafka", CALM, TROUBLED) as broker:
        yield broker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxied_for_all(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[ProxiedBroker]:
    """The same, for all tests of a module that leave the broker itself alone.

    The proxies live in the loop of the module: these tests run in it as well. Topics are a test's
    own, and a proxy has no fault any more once the test's block is over.
    """
    async with proxied_broker(tmp_path_factory.mktemp("proxied"), CALM, TROUBLED) as broker:
        yield broker
