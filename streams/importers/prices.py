"""Dollars for calls whose log names none: list prices of `genai-prices`, at the call's own time.

The package needs about 100 µs for a call, ten times what the rest of an import costs. So the price
of a model is asked for once per half hour of the log, and the four rates are applied here, exactly.
"""

import functools
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from genai_prices.types import TieredPrices

    Rate = Decimal | TieredPrices

_PER = Decimal(1_000_000)
_NOTHING = Decimal(0)
# Some prices change with the time of day; the changes known so far are at half hours.
_PRICE_MINUTES = 30


class PricedTokens(NamedTuple):
    """What is paid for; `input` is all input, the cache parts are inside it."""

    input: int
    cache_read: int
    cache_write: int
    cache_write_1h: int  # the part of `cache_write` that is kept for an hour, at a higher price
    output: int


class _Rates(NamedTuple):
    """Dollars per million tokens; where one is not listed, None: the next wider class is charged."""

    input: "Rate"
    cache_read: "Rate | None"
    cache_write: "Rate | None"
    cache_write_1h: "Rate | None"
    output: "Rate | None"


def cost_usd(model: str | None, tokens: PricedTokens, at: datetime) -> Decimal | None:
    """Return the list price of one call in dollars, not rounded; None where none is known."""
    if not model:
        return None
    minute = at.minute - at.minute % _PRICE_MINUTES
    rates = _rates(model, at.replace(minute=minute, second=0, microsecond=0))
    if rates is None:
        return None
    whole = _for_input(rates.input, tokens.input)
    write = _for_input(rates.cache_write, tokens.input, whole)
    amount = (
        whole * (tokens.input - tokens.cache_read - tokens.cache_write)
        + _for_input(rates.cache_read, tokens.input, whole) * tokens.cache_read
        + write * (tokens.cache_write - tokens.cache_write_1h)
        + _for_input(rates.cache_write_1h, tokens.input, write) * tokens.cache_write_1h
        + _for_input(rates.output, tokens.input) * tokens.output
    )
    return amount / _PER


def _for_input(rate: "Rate | None", input_tokens: int, otherwise: Decimal = _NOTHING) -> Decimal:
    """Return the rate for a call of so much input: beyond a threshold all of it costs more."""
    if rate is None:
        return otherwise
    if isinstance(rate, Decimal):
        return rate
    reached = [tier.price for tier in rate.tiers if input_tokens > tier.start]
    return reached[-1] if reached else rate.base


@functools.lru_cache(maxsize=4_096)
def _rates(model: str, at: datetime) -> _Rates | None:
    # Imported here: it takes a quarter of a second, and most commands never price anything.
    from genai_prices import Usage, calc_price  # noqa: PLC0415

    # `google/gemini-3-pro-preview`: routers put the provider before the name.
    for name in dict.fromkeys((model, model.rsplit("/", 1)[-1])):
        try:
            found = calc_price(
                Usage(input_tokens=1), model_ref=name, genai_request_timestamp=at
            ).model_price
        except (LookupError, ValueError):
            continue
        classes = (getattr(found, f"{name}_mtok", None) for name in _Rates._fields)
        whole, *parts = classes
        return None if whole is None else _Rates(whole, *parts)
    return None
