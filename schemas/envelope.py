"""CloudEvents 1.0 in structured mode: the envelope of everything that comes out."""

from datetime import UTC, datetime
from typing import Annotated, Generic, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

Data = TypeVar("Data")


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
    """Return `2026-11-22T21:00:00.123Z` for milliseconds since 1970."""
    seconds, millis = divmod(epoch_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{millis:03d}Z"


def epoch_ms(time: datetime) -> int:
    """Return the milliseconds since 1970 of an aware `time`, rounded down."""
    whole = int(time.replace(microsecond=0).timestamp())
    return whole * 1000 + time.microsecond // 1000
