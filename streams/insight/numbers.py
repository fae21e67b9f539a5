"""Numbers as people read them, in tables, reports and messages."""

from decimal import Decimal
from fractions import Fraction
from math import floor
from typing import assert_never

from schemas.fields import Metric, Number

THOUSANDS_FROM, MILLIONS_FROM = 100_000, 1_000_000
RATIO_PLACES = 10_000


def amount(value: Number, metric: Metric) -> str:
    """Return `12,345`, `3 m 20 s` or `$1.23`."""
    match metric:
        case Metric.TOKENS:
            return f"{int(value):,}"
        case Metric.LATENCY_MS:
            return duration(int(value))
        case Metric.COST_USD:
            return f"${Decimal(value):,.2f}"
        case _:
            assert_never(metric)


def metric_name(metric: Metric) -> str:
    """Return `tokens`, `latency` or `cost`: the unit stands with the number."""
    return metric.value.removesuffix("_ms").removesuffix("_usd")


def compact(tokens: Number) -> str:
    """Return `12,345`, from 100,000 on `123k`, from a million on `1.23M`; rounded down."""
    whole = int(tokens)
    if whole >= MILLIONS_FROM:
        return f"{whole // 10_000 / 100:,.2f}M"
    return f"{whole // 1000}k" if whole >= THOUSANDS_FROM else f"{whole:,}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return `1 file`, `1,200 files`; `many` where it is not `one` with an s."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def duration(passed_ms: int) -> str:
    """Return `0.4 s`, `12 s`, `3 m 20 s`, `2 h 5 m`, `3 d 4 h`."""
    if passed_ms < 10_000:  # noqa: PLR2004 - below, tenths tell something
        return f"{passed_ms / 1000:.1f} s"
    seconds = passed_ms // 1000
    for unit, name, part, part_name in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if seconds >= unit:
            return f"{seconds // unit} {name} {seconds % unit // part} {part_name}"
    return f"{seconds} s"


def period(length_ms: int) -> str:
    """Return a length of time that somebody has set, in its largest whole unit: `28 days`, `24 h`."""
    for unit_ms, name in ((86_400_000, "days"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")):
        whole, rest = divmod(length_ms, unit_ms)
        if not rest and (whole > 1 or name != "days"):
            return f"{whole:,} {name}"
    return f"{length_ms:,} ms"


def percent(share: Fraction | float | None) -> str:
    """Return `93 %`, rounded down: what shows 90 % has reached it; a dash where nothing is limited.

    Exact; a float stands for the decimals that it is written with: 0.29 is 29 %, and times 100 it
    would be a little less.
    """
    return "–" if share is None else f"{floor(as_written(share) * 100):,} %"


def tenths(share: float) -> str:
    """Return `5.4 %`, rounded: where what decides lies between 4 and 6 %, 0.049 is not 4."""
    return f"{share * 100:.1f} %"


def share_of(used: Number, limit: Number | None) -> Fraction | None:
    """Return what part of a limit is used, exactly; None where there is no limit."""
    return Fraction(used) / Fraction(limit) if limit else None


def ratio_of(used: Number, limit: Number | None) -> float | None:
    """Return what part of a limit is used, in 4 decimals, rounded down; None where there is no limit.

    Source: wire, "Outputs".
    """
    share = share_of(used, limit)
    return None if share is None else floor(share * RATIO_PLACES) / RATIO_PLACES


def as_written(value: Fraction | float) -> Fraction:
    """Return the decimals that a float is written with, exactly."""
    return value if isinstance(value, Fraction) else Fraction(repr(value))
