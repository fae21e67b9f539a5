"""What is forgotten some time later: lists of ids, by the minute in which they are looked at.

They are entries among those that they are about. A crash may keep some changes of a batch and lose
others, and those that are kept are a prefix in the order of the keys. So that nothing stays for ever:
- `listed/` stands before what is listed: what is there is on a list;
- the key of a later minute is the smaller one: an id is on the later list before it has left the
  earlier one, and being on both does no harm;
- a list goes when a later batch finds nothing on it any more, not when the last of it is forgotten.
"""

from collections.abc import Callable, MutableMapping
from typing import Any

from msgspec import Struct

MINUTE_MS = 60_000
LISTED = "listed/"
# What one batch does at most; the next one goes on.
MINUTES_MAX, FORGOTTEN_MAX = 2_000, 200
_LAST_MINUTE = 9_999_999_999

Kept = MutableMapping[str, Any]
# Given an id and the minute: when it is to be looked at (the same or an earlier one: it is to be
# forgotten), None where it is there no more.
Look = Callable[[str, int], int | None]
Forget = Callable[[str], None]


class Listed(Struct, tag="listed"):
    """The ids that are looked at in one minute."""

    ids: list[str]


def list_at(kept: Kept, task_id: str, minute: int) -> None:
    """Have an id looked at in a minute."""
    key = _key(minute)
    listed = kept.get(key)
    if listed is None:
        kept[key] = Listed([task_id])
    elif task_id not in listed.ids:
        kept[key] = Listed([*listed.ids, task_id])


def forget(kept: Kept, first: int, before: int, look: Look, forget_one: Forget) -> int:
    """Look at what is listed from the minute `first` on, and before the minute `before`.

    Returns:
        The minute in which the next batch begins: all earlier ones are done.
    """
    next_minute, looked = first, 0
    for minute in range(first, min(before, first + MINUTES_MAX)):
        listed = kept.get(_key(minute))
        is_done = True
        for task_id in () if listed is None else listed.ids:
            again = look(task_id, minute)
            if again is None:
                continue
            if again <= minute:
                forget_one(task_id)
            elif not _is_listed(kept, task_id, again):
                list_at(kept, task_id, again)
            else:
                continue
            is_done = False
            looked += 1
        if is_done and listed is not None:
            del kept[_key(minute)]
        if is_done and next_minute == minute:
            next_minute = minute + 1
        if looked >= FORGOTTEN_MAX:
            break
    return next_minute


def forget_early(kept: Kept, first: int, forget_one: Callable[[str], bool], count: int) -> int:
    """Forget what is listed first though its time has not come; return how many.

    Args:
        kept: all entries.
        first: the minute in which the next batch begins.
        forget_one: tells whether it has forgotten the id.
        count: how many at most.
    """
    forgotten = 0
    for minute in range(first, first + MINUTES_MAX):
        listed = kept.get(_key(minute))
        for task_id in () if listed is None else listed.ids:
            if forgotten >= count:
                return forgotten
            forgotten += forget_one(task_id)
    return forgotten


def _is_listed(kept: Kept, task_id: str, minute: int) -> bool:
    listed = kept.get(_key(minute))
    return listed is not None and task_id in listed.ids


def _key(minute: int) -> str:
    return f"{LISTED}{_LAST_MINUTE - minute:010}"
