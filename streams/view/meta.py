"""Whose the keys in Redis are, and what a view that comes upon them does. Pure.

`meta` names the Kafka cluster and the layout. Its `fence` is what a writer must have seen: it
changes with every rebuild, and while keys are being deleted only who deletes has it.
"""

import enum
from collections.abc import Mapping

from msgspec import Struct

from streams.view.keys import LAYOUT

# `tasks` drops a tombstone a day after compaction (`delete.retention.ms`): a view that was away for
# longer would keep a task that has left. Half of that, because clocks differ.
STALE_AFTER_MS = 12 * 3_600_000
# A view says at least twice a second that it is there.
ALIVE_WITHIN_MS = 10_000
CLEARING_PREFIX = "clearing "


class State(enum.StrEnum):
    """What the view is doing."""

    CLEARING = "clearing"  # deletes what was there before a rebuild
    REBUILDING = "rebuilding"  # reads what was written before the rebuild began
    FOLLOWING = "following"


class Step(enum.Enum):
    """What to do about the keys that are there."""

    FOLLOW = enum.auto()  # they are ours: go on at the positions
    CLEAR = enum.auto()  # somebody has begun to delete them: go on with that
    REBUILD = enum.auto()  # delete them and begin anew
    LEAVE = enum.auto()  # a view of another cluster is at work


class Verdict(Struct, frozen=True):
    """What to do, and why."""

    step: Step
    why: str = ""


NUMBERS = ("at_ms", "began_ms", "rebuilt_ms", "turn")
NUMBER_LENGTH_MAX = 15  # counted exactly by Lua, and far from where Redis stops
# All of them are there from the first step of a rebuild on.
FIELDS = ("at_ms", "began_ms", "cluster", "fence", "layout", "read", "state", "turn", "why")
# What each step of a writer says anew, or is held against what it has seen by a rule of its own
# (`apply.lua`).
BY_THEMSELVES = ("at_ms", "fence", "read", "turn")
# What `read` is as long as a step is not whole; nobody sees that but where one was broken off.
WRITING = "writing"
BROKEN_OFF = "a step was broken off in the middle"
OTHER_POSITIONS = "the positions are not those that the view has written"


def is_readable(meta: Mapping[str, str]) -> bool:
    """Whether a view can have written these fields of the key; also where there are none."""
    fence = meta.get("fence", "0").removeprefix(CLEARING_PREFIX)
    numbers = [fence, *(meta.get(name, "0") for name in NUMBERS)]
    is_known = meta.get("state", State.FOLLOWING) in list(State)
    return is_known and all(
        each.isascii() and each.isdecimal() and len(each) <= NUMBER_LENGTH_MAX for each in numbers
    )


def lacking(meta: Mapping[str, str]) -> str | None:
    """Return what somebody has taken away of what a view has written; None where it is all there."""
    if gone := [name for name in FIELDS if name not in meta]:
        return f"`meta` lacks {', '.join(gone)}"
    return None


def standing_fields(meta: Mapping[str, str]) -> dict[str, str]:
    """Return what in `meta` stays as it is until its view says otherwise."""
    return {field: value for field, value in meta.items() if field not in BY_THEMSELVES}


def damage(
    meta: Mapping[str, str], positions: Mapping[str, str], progress: Mapping[str, str]
) -> str | None:
    """Return what shows that somebody else has written to these keys; None where nothing does.

    Raises:
        ValueError: an offset is no number.
    """
    if (gone := lacking(meta)) is not None:
        return gone
    if meta["read"] == WRITING:
        return BROKEN_OFF
    read = f"{sum(map(int, positions.values()))}/{len(progress)}"
    return None if meta["read"] == read else OTHER_POSITIONS


def judge(meta: Mapping[str, str], cluster: str, now_ms: int, wanted: str | None) -> Verdict:
    """Say what to do about what `meta` tells.

    Args:
        meta: the fields of the key; empty where there is none.
        cluster: the id of the Kafka cluster that is read.
        now_ms: milliseconds since 1970.
        wanted: why there has to be a rebuild, where there has to.
    """
    if "fence" not in meta:
        return Verdict(Step.REBUILD, "Redis has nothing of these topics")
    written_ms = int(meta.get("at_ms", 0))
    if meta.get("cluster", cluster) != cluster:
        if now_ms - written_ms < ALIVE_WITHIN_MS:
            other = meta.get("cluster")
            return Verdict(Step.LEAVE, f"a view of Kafka cluster {other} writes the same keys")
        return Verdict(Step.REBUILD, f"what is in Redis is of Kafka cluster {meta.get('cluster')}")
    if meta.get("layout", str(LAYOUT)) != str(LAYOUT):
        return Verdict(Step.REBUILD, f"keys of layout {meta.get('layout')}; ours is {LAYOUT}")
    if wanted is not None:
        return Verdict(Step.REBUILD, wanted)
    if (gone := lacking(meta)) is not None:
        return Verdict(Step.REBUILD, gone)
    if meta["fence"].startswith(CLEARING_PREFIX):
        return Verdict(Step.CLEAR, meta.get("why", ""))
    if now_ms - written_ms > STALE_AFTER_MS:
        hours = (now_ms - written_ms) // 3_600_000
        return Verdict(Step.REBUILD, f"nobody has written for {hours} hours")
    return Verdict(Step.FOLLOW)


def begun(meta: Mapping[str, str], cluster: str, now_ms: int, why: str) -> dict[str, str]:
    """Return the fields of `meta` with which a rebuild begins.

    The number in the fence is one that no earlier writer has seen, also where Redis was emptied.
    """
    last = int(meta.get("fence", "0").removeprefix(CLEARING_PREFIX) or 0)
    return {
        "fence": f"{CLEARING_PREFIX}{max(now_ms, last + 1)}",
        "cluster": cluster,
        "layout": str(LAYOUT),
        "state": State.CLEARING,
        "why": why,
        "began_ms": str(now_ms),
        "at_ms": str(now_ms),
    }
