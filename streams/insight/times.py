"""Times as people read them: one form wherever a command or a report shows one."""

from schemas.envelope import epoch_ms_of, rfc3339

TO_THE_SECOND = slice(0, 19)  # of an RFC 3339 time
_AGES = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"))


def instant(time: str) -> str:
    """Return `2026-11-26T17:30:05Z`, in UTC; what is no RFC 3339 time stays as somebody wrote it."""
    try:
        exact = rfc3339(epoch_ms_of(time))
    except ValueError:
        return time
    return f"{exact[TO_THE_SECOND]}Z"


def ago_of(time: str, now_ms: int) -> str:
    """Return how long ago that was; what is no RFC 3339 time stays as somebody wrote it."""
    try:
        return ago(max(now_ms - epoch_ms_of(time), 0))
    except ValueError:
        return time


def ago(passed_ms: int) -> str:
    """Return `12 s ago`, `3 min ago`, `5 h ago` or `2 d ago`, rounded down."""
    for unit_ms, name in _AGES:
        if passed_ms >= unit_ms:
            return f"{passed_ms // unit_ms} {name} ago"
    return f"{passed_ms // 1_000} s ago"
