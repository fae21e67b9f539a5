"""Which part of a history is held out: decided by a hash of the group, with nothing random.

What belongs together stays together: a session with its sub-agents, a benchmark's task with all the runs
that tried it. So a group is held out or not, whatever else the history holds, and a history that has
grown holds out what it held out before. That a share is met is then a matter of how many groups there
are: of n groups it is met within 2 × √(share × (1 - share) / n), nineteen times in twenty.
"""

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import TypeVar

from msgspec import Struct

from schemas.errors import InvalidFieldError

DIGEST_BYTES = 8
PLACES = 1 << 8 * DIGEST_BYTES
SEED = 1

Item = TypeVar("Item")


class HoldOut(Struct, frozen=True):
    """A share, from 0 to below 1, of the groups of a history; another `seed` holds out others."""

    share: float
    seed: int = SEED

    def has(self, group: str) -> bool:
        """Tell whether a group is held out; with a larger share of the same seed it still is."""
        return _place(group, self.seed) < self.share * PLACES


def checked_hold_out(field: str, share: float, seed: int = SEED) -> HoldOut:
    """Return which part is held out.

    Raises:
        InvalidFieldError: `share`, which `field` names, leaves nothing on one of the two sides.
    """
    if not 0 < share < 1:
        raise InvalidFieldError(field, share, "a number above 0 and below 1, such as 0.3")
    return HoldOut(share, seed)


def parted(
    items: Iterable[Item], hold_out: HoldOut, group: Callable[[Item], str]
) -> tuple[list[Item], list[Item]]:
    """Return what is kept and what is held out, each in its order."""
    kept: list[Item] = []
    held_out: list[Item] = []
    for item in items:
        (held_out if hold_out.has(group(item)) else kept).append(item)
    return kept, held_out


def _place(group: str, seed: int) -> int:
    """Return where a group stands in a row of all that there may be."""
    text = f"{seed}\0{group}".encode(errors="surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=DIGEST_BYTES).digest(), "big")
