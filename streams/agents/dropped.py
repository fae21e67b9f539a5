"""How much an entry says that there was no room for: what agents count of it, for their metric. Pure.

What they remember is bounded, since names and numbers of tasks come from outside: what comes for one
too many is left out, or has something older forgotten before its time. An entry counts that for good.
"""

from typing import assert_never

import msgspec
from msgspec import Raw, Struct

from streams.insight import answers, gathering, remembering, reviews, writing
from streams.insight.baselines import ClassOfTasks, Recent

SCOPES, SHELVES = "scopes/", f"{reviews.JUSTIFICATION_UNREVIEWED}/"


class _Counted(Struct):
    """As much of a window's entry as says it."""

    dropped: int = 0


_COUNTED = msgspec.json.Decoder(_Counted)
_BLOCKS = msgspec.json.Decoder(answers.Dropped)


def of_tasks(_key: str, entry: remembering.Kept) -> int:
    """Return what the first stage of `alerts` counts: tasks that ended, and parts of open ones."""
    match entry:
        case remembering.Line():
            return entry.dropped
        case remembering.Watching():
            return entry.watch.dropped
        case remembering.Chunk():
            return 0
        case _:
            assert_never(entry)


def of_windows(key: str, entry: Raw) -> int:
    """Return what the second stages of `alerts` and `governance` count: sources, readers, blocks, …."""
    if key == answers.DROPPED:
        return _BLOCKS.decode(entry).blocks
    return _COUNTED.decode(entry).dropped if key.startswith((SCOPES, SHELVES)) else 0


def of_baselines(_key: str, entry: ClassOfTasks | Recent) -> int:
    """Return what `baselines` counts: executions for which no class was left."""
    return entry.dropped if isinstance(entry, Recent) else 0


def of_gathered(_key: str, entry: gathering.Entry) -> int:
    """Return what the first stage of `reports` counts: tasks refused, or forgotten early."""
    return entry.refused + entry.forgotten_early if isinstance(entry, gathering.Where) else 0


def of_written(_key: str, entry: writing.Entry) -> int:
    """Return what the second stage of `reports` counts: tasks refused, or forgotten early."""
    return entry.refused + entry.forgotten_early if isinstance(entry, writing.Where) else 0
