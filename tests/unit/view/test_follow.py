"""How often a broker is asked."""

import pytest

from streams.view.follow import FEW_RECORDS, PACE_S, pause_s


@pytest.mark.parametrize(
    ("records", "since_s", "waits_s"),
    [
        pytest.param(1, 0.0, PACE_S, id="an answer that came at once: more is gathered"),
        pytest.param(1, PACE_S / 4, PACE_S * 3 / 4, id="what the answer took is no further wait"),
        pytest.param(0, PACE_S, 0.0, id="a broker that was slow is asked again at once"),
        pytest.param(0, 25 * PACE_S, 0.0, id="one that had nothing, too"),
        pytest.param(FEW_RECORDS, 0.0, 0.0, id="of many there is more"),
    ],
)
def test_requests_are_a_pace_apart_however_long_each_takes(
    records: int, since_s: float, waits_s: float
) -> None:
    assert pause_s(records, since_s) == pytest.approx(waits_s)
