"""Levels and the shares of a limit at which they are reached.

Inside the fold a level is a small int, so that "higher" is `>`; on the wire it is a `Verdict`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from schemas.fields import Verdict

CONTINUE, NOTICE, WARN, REVIEW, BLOCK = range(5)
LEVELS = (Verdict.CONTINUE, Verdict.NOTICE, Verdict.WARN, Verdict.REVIEW, Verdict.BLOCK)
LEVEL_OF = {verdict: level for level, verdict in enumerate(LEVELS)}
SHARE_PLACES = 10_000
NEVER = 1 << 200  # above every amount: this level is not reached

# Shares of one ladder in ten-thousandths: notice, warn, review, block; None = never.
Shares = tuple[int | None, int | None, int | None, int | None]
Thresholds = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Line:
    """A limit with what follows from it; shared by all tasks of the same class.

    `limit` and `at` in the unit the metric is folded in; `at[level - 1]` is where `level` begins.
    `computed` is what the formula gives, where an override replaced it.
    """

    limit: int
    at: Thresholds
    computed: int | None = None


def line(limit: int, shares: Shares, computed: int | None = None) -> Line:
    """Return the limit with its thresholds: the smallest amounts with used ≥ share × limit."""
    notice, warn, review, block = (
        NEVER if share is None else -(-share * limit // SHARE_PLACES) for share in shares
    )
    return Line(limit, (notice, warn, review, block), computed)


def level_at(at: Sequence[int], used: int) -> int:
    """Return the highest level that `used` has reached."""
    for level in (BLOCK, REVIEW, WARN, NOTICE):
        if used >= at[level - 1]:
            return level
    return CONTINUE


def next_at(at: Sequence[int], level: int) -> int:
    """Return where the next level above `level` begins, or NEVER."""
    return min(at[level:], default=NEVER)


def crossed(at: Sequence[int], used: int, *, standing: int) -> Iterator[int]:
    """Yield each level above `standing` that `used` has reached, lowest first.

    A level that this ladder does not have is passed over.
    """
    for level in range(standing + 1, BLOCK + 1):
        if used >= at[level - 1]:
            yield level
