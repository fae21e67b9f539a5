"""Dollars for calls whose log names none: list prices of `genai-prices`, at the call's own time.

The package needs about 100 µs for a call, ten times what the rest of an import costs. So the price
of a model is asked for once per half hour of the log, and the four rates are applied here, exactly.
"""

import functools
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice, TieredPrices

_PER = Decimal(1_000_000)
# Some prices change with the time of day; the changes known so far are at half hours.
_PRICE_MINUTES = 30


class PricedTokens(NamedTuple):
    """What is paid for; `input` is all input, the cache parts are inside it."""

    input: int
    cache_read: int
    cache_write: int
    cache_write_1h: int  # the part of `cache_write` that is kept for an hour, at a higher price
    output: int


def cost_usd(model: str | None, tokens: PricedTokens, at: datetime) -> Decimal | None:
    """Return the list price of one call in dollars, not rounded; None where none is known."""
    if not model:
        return None
    minute = at.minute - at.minute % _PRICE_MINUTES
    prices = _prices(model, at.replace(minute=minute, second=0, microsecond=0))
    if prices is None:
        return None
    rate = functools.partial(_rate, prices, tokens.input)
    whole = rate("input_mtok")
    if whole is None:
        return None
    write = _first(rate("cache_write_mtok"), whole)
    amount = (
        whole * (tokens.input - tokens.cache_read - tokens.cache_write)
        + _first(rate("cache_read_mtok"), whole) * tokens.cache_read
        + write * (tokens.cache_write - tokens.cache_write_1h)
        + _first(rate("cache_write_1h_mtok"), write) * tokens.cache_write_1h
        + _first(rate("output_mtok"), Decimal(0)) * tokens.output
    )
    return amount / _PER


def _first(rate: Decimal | None, otherwise: Decimal) -> Decimal:
    return otherwise if rate is None else rate


def _rate(prices: "ModelPrice", input_tokens: int, name: str) -> Decimal | None:
    """Return dollars per million tokens; beyond a threshold of input the whole call costs more."""
    price: Decimal | TieredPrices | None = getattr(prices, name, None)
    if price is None or isinstance(price, Decimal):
        return price
    rate = price.base
    for tier in price.tiers:
        if input_tokens > tier.start:
            rate = tier.price
    return rate


@functools.lru_cache(maxsize=4_096)
def _prices(model: str, at: datetime) -> "ModelPrice | None":
    # Imported here: it takes a quarter of a second, and most commands never price anything.
    from genai_prices import Usage, calc_price  # noqa: PLC0415

    # `google/gemini-3-pro-preview`: routers put the provider before the name.
    for name in dict.fromkeys((model, model.rsplit("/", 1)[-1])):
        try:
            return calc_price(
                Usage(input_tokens=1), model_ref=name, genai_request_timestamp=at
            ).model_price
        except (LookupError, ValueError):
            continue
    return None
