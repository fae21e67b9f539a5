"""Exact amounts: folded as integers, so that sums depend on neither order nor platform.

Tokens are folded as milli-tokens (weights have at most three decimals), money as nano-dollars,
latency as milliseconds. Source: budget model, "Words" and "Exact rules".
"""

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import cast

from schemas.errors import InvalidFieldError
from schemas.events import PhaseUsageData
from schemas.fields import COST_USD_MAX, Metric, Number

MILLI_PER_TOKEN = 1_000
NANO_PER_DOLLAR = 1_000_000_000
PER_UNIT = {Metric.TOKENS: MILLI_PER_TOKEN, Metric.LATENCY_MS: 1, Metric.COST_USD: NANO_PER_DOLLAR}
RATIO_PLACES = 10_000
# Limits stop growing here, in folded units: an endless chain of grants must not make endless ints.
AMOUNT_MAX = 10**18

# Up to 15 significant digits the shortest text of a float is the decimal that was meant.
_EXACT_AS_FLOAT = 10**15
_NANO = Decimal("1e-9")
_ROUNDING = Context(prec=40, rounding=ROUND_HALF_EVEN)


def nano_dollars(field: str, value: Decimal) -> int:
    """Return dollars as whole nano-dollars, rounded half-even once.

    Raises:
        InvalidFieldError: not a number, negative, or above a million dollars.
    """
    if not value.is_finite() or not 0 <= value <= COST_USD_MAX:
        raise InvalidFieldError(field, str(value), f"a number from 0 to {COST_USD_MAX}")
    scaled = value.scaleb(9)
    amount = int(scaled)
    if amount == scaled:
        return amount
    return int(value.quantize(_NANO, context=_ROUNDING).scaleb(9))


def number(amount: int, metric: Metric) -> Number:
    """Return a folded amount as the exact JSON number in the metric's own unit."""
    return amount if metric is Metric.LATENCY_MS else _in_units(amount, PER_UNIT[metric])


def tokens(amount: int) -> Number:
    """Return milli-tokens as the exact JSON number of tokens."""
    return _in_units(amount, MILLI_PER_TOKEN)


def dollars(amount: int) -> Number:
    """Return nano-dollars as the exact JSON number of dollars."""
    return _in_units(amount, NANO_PER_DOLLAR)


def _in_units(amount: int, per_unit: int) -> Number:
    whole, rest = divmod(amount, per_unit)
    if not rest:
        return whole
    if amount < _EXACT_AS_FLOAT:
        return cast("Number", amount / per_unit)
    return Decimal(amount) / per_unit if amount < AMOUNT_MAX else _long(amount, per_unit)


def _long(amount: int, per_unit: int) -> Decimal:
    digits = len(str(per_unit)) - 1
    return Decimal(amount).scaleb(-digits, context=Context(prec=len(str(amount)) + 1))


def folded(value: Number, metric: Metric) -> int:
    """Return what `number` was made from.

    Raises:
        ValueError: `value` has more decimals than the metric is folded in.
    """
    if isinstance(value, int):
        return value * PER_UNIT[metric]
    exact = Decimal(value).as_integer_ratio()
    amount, rest = divmod(exact[0] * PER_UNIT[metric], exact[1])
    if rest:
        raise ValueError(f"{value} has too many decimals for {metric}")
    return amount


def ratio(used: int, limit: int) -> float:
    """Return used / limit with four decimals, rounded down."""
    return used * RATIO_PLACES // limit / RATIO_PLACES


def check_usage(data: PhaseUsageData) -> None:
    """Refuse usage in which a part is larger than its whole.

    Raises:
        InvalidFieldError: names the part.
    """
    parts = (data.cache_read_tokens or 0) + (data.cache_write_tokens or 0)
    if parts > (whole := data.input_tokens or 0):
        raise InvalidFieldError(
            "data.cache_read_tokens + cache_write_tokens", parts, f"at most input_tokens ({whole})"
        )
    if (part := data.reasoning_tokens or 0) > (whole := data.output_tokens or 0):
        raise InvalidFieldError("data.reasoning_tokens", part, f"at most output_tokens ({whole})")


def metered_milli(
    weights_milli: tuple[int, int, int, int],
    input_tokens: int,
    cache_read_tokens: int,
    cache_write_tokens: int,
    output_tokens: int,
) -> int:
    """Return the metered milli-tokens of disjoint classes; `input_tokens` includes the cached."""
    uncached, read, written, output = weights_milli
    return (
        (input_tokens - cache_read_tokens - cache_write_tokens) * uncached
        + cache_read_tokens * read
        + cache_write_tokens * written
        + output_tokens * output
    )
