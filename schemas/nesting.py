"""How deeply JSON is nested, told before it is decoded.

A decoder gives up where the stack is used up, and how much of it is left depends on who calls; the
same bytes would be an event in one process and a dead letter in another.
"""

from itertools import accumulate

# An event with a policy has seven levels; what extensions add is skipped, but level by level too.
NESTING_MAX = 256
# Each level has two brackets, so that no shorter JSON is too deep. Nearly all events are shorter,
# and need no look.
SHALLOW_BYTES = 2 * NESTING_MAX

_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS = bytes(set(range(256)) - set(_STEPS))


def is_deeper(document: bytes, levels: int) -> bool:
    """Tell whether brackets stand in each other more than `levels` deep, up to where JSON ends.

    What follows the first mistake counts as well, read as if there were none.
    """
    # Three times as fast as counting them.
    without = document.replace(b"[", b"").replace(b"{", b"")
    if len(document) - len(without) <= levels:
        return False
    # Those in texts do not count, nor do quotation marks that are escaped.
    pieces = document.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')
    brackets = b"".join(pieces[::2]).translate(None, delete=_NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > levels
