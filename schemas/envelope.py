"""CloudEvents 1.0 in structured mode: the envelope of everything that comes out."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Generic, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

Data = TypeVar("Data")
EPOCH_MS_MIN = -62_135_596_800_000  # 0001-01-01T00:00:00.000Z
EPOCH_MS_MAX = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
_EPOCH_UTC = datetime.fromtimestamp(0, UTC)
_EPOCH = _EPOCH_UTC.replace(tzinfo=None)
_MS = timedelta(milliseconds=1)


class Envelope(Struct, Generic[Data], kw_only=True, omit_defaults=False):
    """One record that a part of ours publishes.

    `id` is derived from what caused the record (`{partition}-{offset}-{index}`), never random;
    `time` is RFC 3339 UTC with milliseconds.
    """

    specversion: str = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
    traceparent: str | UnsetType = UNSET
    data: Data


def rfc3339(epoch_ms: int) -> str:
    """Return `2026-11-22T21:00:00.123Z` for milliseconds since 1970, in the years 1 to 9999."""
    return f"{(_EPOCH + epoch_ms * _MS).isoformat(timespec='milliseconds')}Z"


def epoch_ms(time: datetime) -> int:
    """Return the milliseconds since 1970 of an aware `time`, rounded down.

    In its first and last hours the calendar of the time zone has years that UTC's has not: such
    times are taken for the first and the last that can be written.
    """
    return min(max((time - _EPOCH_UTC) // _MS, EPOCH_MS_MIN), EPOCH_MS_MAX)


def epoch_ms_of(text: str) -> int:
    """Return the milliseconds since 1970 of what `rfc3339` has written.

    Raises:
        ValueError: it has not; a time without a zone is none either.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text:.80}: a time without a zone")
    return epoch_ms(time)
