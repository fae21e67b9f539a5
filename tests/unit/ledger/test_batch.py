"""When an open batch is committed."""

import pytest

from streams.kafka.ports import Record
from streams.ledger.batch import (
    BYTES_MAX,
    EVENTS_MAX,
    GATHER_BEHIND_S,
    GATHER_FAR_BEHIND_S,
    GATHER_QUIET_S,
    OpenBatch,
)


@pytest.mark.parametrize(
    ("urgent", "lag", "due_s"),
    [
        pytest.param(True, 0, 0.0, id="a decision is said at once"),
        pytest.param(False, 0, GATHER_QUIET_S, id="state alone waits for company"),
        pytest.param(True, 1, GATHER_BEHIND_S, id="behind, a decision comes with the others"),
        pytest.param(False, 10**6, GATHER_FAR_BEHIND_S, id="far behind, the fewer commits"),
    ],
)
def test_a_batch_waits_as_long_as_it_is_worth(urgent: bool, lag: int, due_s: float) -> None:  # noqa: FBT001
    batch = OpenBatch(started_s=100.0)
    batch.urgent = urgent
    assert batch.due_in_s(100.0, lag=lag) == pytest.approx(due_s)
    assert batch.due_in_s(100.0 + due_s, lag=lag) <= 1e-9


def test_a_full_batch_does_not_wait() -> None:
    many, large = OpenBatch(0.0), OpenBatch(0.0)
    many.events = EVENTS_MAX
    large.add([Record("t", 0, b"k", bytes(BYTES_MAX))])
    assert (many.due_in_s(0.0, lag=10**6), large.due_in_s(0.0, lag=10**6)) == (0.0, 0.0)
