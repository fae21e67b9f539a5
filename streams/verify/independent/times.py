"""Times of the wire: RFC 3339, folded as milliseconds since 1970."""

import re
from datetime import UTC, datetime, timedelta

_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.([0-9]+))?"
    r"(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})"
)
_MICROSECOND_DIGITS = 6
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def epoch_ms(text: str) -> int:
    """Return the milliseconds since 1970 of an RFC 3339 time; ValueError where it is none.

    Read to the microsecond, rounded half up, then rounded down; within the years that can be written.
    """
    time = read_time(text)
    offset, local = time.utcoffset() or timedelta(), time.replace(tzinfo=UTC)
    if offset > local - _FIRST:
        return (_FIRST - _EPOCH) // _MS
    if -offset > _LAST - local:
        return (_LAST - _EPOCH) // _MS
    return (local - offset - _EPOCH) // _MS


def read_time(text: str) -> datetime:
    """Return an RFC 3339 time, to the microsecond; ValueError where it is none."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError("not a time as in RFC 3339")
    fraction = found[1] or ""
    if len(fraction) <= _MICROSECOND_DIGITS:
        return datetime.fromisoformat(text.upper())
    start, end = found.span(1)
    time = datetime.fromisoformat(
        f"{text[:start]}{fraction[:_MICROSECOND_DIGITS]}{text[end:]}".upper()
    )
    try:
        return time + timedelta(microseconds=int(fraction[_MICROSECOND_DIGITS] >= "5"))
    except OverflowError:
        raise ValueError("after all time") from None


def rfc3339(epoch_ms: int) -> str:
    """Return a time as records have it."""
    time = (_EPOCH + timedelta(milliseconds=epoch_ms)).replace(tzinfo=None)
    return f"{time.isoformat(timespec='milliseconds')}Z"
