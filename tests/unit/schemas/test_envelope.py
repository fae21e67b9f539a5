"""Times as they travel."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.envelope import EPOCH_MS_MAX, EPOCH_MS_MIN, epoch_ms_of, rfc3339


@given(st.integers(EPOCH_MS_MIN, EPOCH_MS_MAX))
def test_a_time_is_read_back_to_the_millisecond(at_ms: int) -> None:
    assert epoch_ms_of(rfc3339(at_ms)) == at_ms


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="isoformat"):
        epoch_ms_of("yesterday")
    with pytest.raises(ValueError, match="a time without a zone"):
        epoch_ms_of("2026-11-22T21:00:00")
