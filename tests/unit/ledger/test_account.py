"""What a ledger says of itself: how its batches went, said once."""

import asyncio
from collections import Counter

import msgspec
import pytest

from schemas.envelope import Envelope
from schemas.errors import UnavailableError
from schemas.fields import NAME_LENGTH_MAX
from schemas.health import Health, LedgerHealth
from schemas.quantiles import quantile
from schemas.sketches import Histogram
from streams.kafka.ports import Record
from streams.kafka.settings import Settings
from streams.ledger import account
from streams.ledger.account import Account, keep_saying, process_source
from streams.ledger.metrics import unseen


class Broker:
    """Takes records, but for the first `refusals` times."""

    def __init__(self, wanted: int, refusals: int = 0) -> None:
        self.records: list[Record] = []
        self._wanted, self._refusals = wanted, refusals
        self.has_them = asyncio.Event()

    async def append(self, record: Record) -> None:
        if self._refusals:
            self._refusals -= 1
            raise UnavailableError("away")
        self.records.append(record)
        if len(self.records) == self._wanted:
            self.has_them.set()

    async def close(self) -> None:
        """There is nothing to let go of."""


async def said(broker: Broker, mine: Account, monkeypatch: pytest.MonkeyPatch) -> list[Health]:
    monkeypatch.setattr(account, "SAY_EVERY_S", 0.001)
    async with asyncio.TaskGroup() as group:
        saying = group.create_task(keep_saying(broker, Settings(), mine, lambda: 1_000))
        await broker.has_them.wait()
        saying.cancel()
    return [
        msgspec.json.decode(one.value or b"", type=Envelope[Health]).data for one in broker.records
    ]


def test_what_happened_since_is_said_and_then_begun_anew() -> None:
    mine = Account()
    assert mine.take() is None
    for commit_ms in (4.2, 4.4, 90.0, 0.1):
        mine.committed(commit_ms)
    mine.failed("unconfirmed")
    said = mine.take()
    assert said is not None
    assert (said.batches, said.batch_failures) == (4, 1)
    assert quantile(said.commit_ms, 1) == pytest.approx(90, rel=0.01)
    assert said.commit_ms.zeros == 1
    assert mine.take() is None


def test_a_fence_is_no_failure_since_each_ledger_that_comes_makes_some() -> None:
    metrics = unseen()
    for kind in ("fenced", "events_lost"):
        metrics.failed(0, kind)
    assert metrics.account.take() is None
    for kind in ("unconfirmed", "stopped", "mistake"):
        metrics.failed(0, kind)
    said = metrics.account.take()
    assert said == LedgerHealth(batches=0, batch_failures=3, commit_ms=Histogram())


def test_every_committed_batch_is_counted() -> None:
    metrics = unseen()
    for _ in range(3):
        metrics.committed(
            0, events=5, records=7, commit_ms=4.0, latency_ms=None, dead_letters=Counter()
        )
    said = metrics.account.take()
    assert said is not None
    assert said.batches == 3


async def test_it_goes_to_health_under_the_name_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine, broker = Account(), Broker(1)
    mine.committed(5)
    (health,) = await said(broker, mine, monkeypatch)
    assert health.source == process_source()
    assert health.ledger is not None
    assert health.ledger.batches == 1
    (record,) = broker.records
    assert (record.topic, record.partition, record.key) == (
        "stoploss.health",
        0,
        health.source.encode(),
    )


async def test_what_could_not_be_delivered_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, broker = Account(), Broker(1, refusals=3)
    mine.failed("unconfirmed")
    (health,) = await said(broker, mine, monkeypatch)
    assert health.ledger is not None
    assert health.ledger.batch_failures == 1


def test_the_name_of_a_process_fits_whatever_its_host_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "h" * 300)
    assert process_source().startswith("ledger/hhh")
    assert len(process_source()) <= NAME_LENGTH_MAX
