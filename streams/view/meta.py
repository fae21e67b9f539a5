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


def is_readable(meta: Mapping[str, str]) -> bool:
    """Whether a view can have written these fields of the key; also where there are none."""
    fence = meta.get("fence", "0").removeprefix(CLEARING_PREFIX)
    numbers = [fence, *(meta.get(name, "0") for name in NUMBERS)]
    is_known = meta.get("state", State.FOLLOWING) in list(State)
    return is_known and all(each.isascii() and each.isdecimal() for each in numbers)


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
    if meta.get("cluster") != cluster:
        if now_ms - written_ms < ALIVE_WITHIN_MS:
            other = meta.get("cluster")
            return Verdict(Step.LEAVE, f"a view of Kafka cluster {other} writes the same keys")
        return Verdict(Step.REBUILD, f"what is in Redis is of Kafka cluster {meta.get('cluster')}")
    if meta.get("layout") != str(LAYOUT):
        return Verdict(Step.REBUILD, f"keys of layout {meta.get('layout')}; ours is {LAYOUT}")
    if wanted is not None:
        return Verdict(Step.REBUILD, wanted)
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
