"""How the text of an option becomes its value; what is no value is in `test_arguments`."""

import pytest

from schemas.envelope import rfc3339
from streams.cli.values import moment

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("30s", "2025-12-31T23:59:30.000Z"),
        ("90m", "2025-12-31T22:30:00.000Z"),
        ("24h", "2025-12-31T00:00:00.000Z"),
        ("7d", "2025-12-25T00:00:00.000Z"),
        ("99999999999999999999d", "1970-01-01T00:00:00.000Z"),
        ("2025-11-22T21:00:00Z", "2025-11-22T21:00:00.000Z"),
        ("2025-11-22T21:00:00.5+01:00", "2025-11-22T20:00:00.500Z"),
        ("1960-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
    ],
)
def test_a_time_is_given_as_a_time_or_as_how_long_ago(text: str, time: str) -> None:
    assert rfc3339(moment("--since", lambda: NOW_MS)(text)) == time
