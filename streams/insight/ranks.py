"""Whether one period differs from another: by ranks, since usage has a long tail and means follow it.

One session of fourteen million tokens moves a mean, and no rank by more than one. Source: the user's
document, scenario 5: "not only means".
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from statistics import NormalDist, median

from msgspec import Struct

from schemas.errors import InvalidFieldError
from streams.insight.intervals import Interval

# With fewer on one side the normal approximation of the interval's ranks does not hold.
PERIOD_MIN = 8
CONFIDENCE = 0.95


class Comparison(Struct, frozen=True, kw_only=True):
    """Two periods, in the unit of what was compared.

    `shift` is the Hodges-Lehmann estimate: the median of all differences, after less before; below 0 the
    later period used less. `superiority` is the share of pairs, one of each period, in which the later
    one is larger; equal ones count half. `p` is that of the two-sided Mann-Whitney test.
    """

    before: int
    after: int
    before_median: float
    after_median: float
    shift: float
    interval: Interval
    superiority: float
    p: float

    @property
    def differs(self) -> bool:
        """Whether the interval of the shift leaves 0 out."""
        return self.interval.lower > 0 or self.interval.upper < 0


def compare(
    before: Sequence[int], after: Sequence[int], confidence: float = CONFIDENCE
) -> Comparison:
    """Return how a later period differs from an earlier one.

    The test assumes nothing of how amounts are distributed; that the shift says how much more the later
    period used assumes that both are distributed alike but for their place.

    Args:
        before: whole amounts of a small unit, in any order.
        after: the same of the later period.
        confidence: of the interval of the shift.

    Raises:
        InvalidFieldError: one of the periods has fewer than `PERIOD_MIN` amounts.
        ImportError: scipy is not installed; it comes with the extra `analysis`.
    """
    for name, amounts in (("before", before), ("after", after)):
        if len(amounts) < PERIOD_MIN:
            raise InvalidFieldError(name, len(amounts), f"a period of at least {PERIOD_MIN} tasks")
    # Importing it takes a second, which every other command would pay for.
    from scipy.stats import mannwhitneyu  # noqa: PLC0415

    earlier, later = sorted(before), sorted(after)
    found = mannwhitneyu(later, earlier, alternative="two-sided")
    pairs = len(earlier) * len(later)
    rank = _rank(len(earlier), len(later), confidence)
    return Comparison(
        before=len(earlier),
        after=len(later),
        before_median=median(earlier),
        after_median=median(later),
        shift=_shift(earlier, later),
        interval=Interval(
            _difference(earlier, later, rank), _difference(earlier, later, pairs - rank + 1)
        ),
        superiority=float(found.statistic) / pairs,
        p=float(found.pvalue),
    )


def _rank(before: int, after: int, confidence: float) -> int:
    """Return which of the differences, counted from the smallest, is the interval's lower end.

    By the normal approximation of the test's statistic. Source: Hollander, Wolfe and Chicken,
    "Nonparametric Statistical Methods", 4.3.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    spread = math.sqrt(before * after * (before + after + 1) / 12)
    return max(math.floor(before * after / 2 - z * spread), 1)


def _shift(earlier: Sequence[int], later: Sequence[int]) -> float:
    pairs = len(earlier) * len(later)
    middle = {(pairs + 1) // 2, pairs // 2 + 1}
    return sum(_difference(earlier, later, rank) for rank in middle) / len(middle)


def _difference(earlier: Sequence[int], later: Sequence[int], rank: int) -> int:
    """Return the `rank`-th smallest of all differences, without making them: there may be millions.

    Both are sorted, and amounts are whole numbers: the answer is the smallest difference that `rank`
    pairs do not exceed.
    """
    return bisect_left(
        range(later[0] - earlier[-1], later[-1] - earlier[0]),
        rank,
        key=lambda most: sum(bisect_right(later, amount + most) for amount in earlier),
    ) + (later[0] - earlier[-1])
