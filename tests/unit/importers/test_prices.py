"""Dollars: our rates against the price list's own calculation."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price

from streams.importers.prices import PricedTokens, cost_usd

AT = datetime(2026, 1, 5, 9, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "model",
    [
        "gpt-5-codex",
        "gpt-5.2-codex",
        "claude-opus-4-6",
        "claude-haiku-4-5-20251001",
        "claude-sonnet-4-5-20250929",
        "gemini-3-pro-preview",
        "deepseek-chat",
    ],
)
@pytest.mark.parametrize(
    "tokens",
    [
        pytest.param(PricedTokens(10_000, 8_000, 0, 0, 100), id="read from the cache"),
        pytest.param(PricedTokens(10_000, 8_000, 1_500, 0, 100), id="written to the cache"),
        pytest.param(PricedTokens(10_000, 8_000, 1_500, 1_000, 100), id="kept for an hour"),
        pytest.param(PricedTokens(200_000, 0, 0, 0, 1), id="at a threshold"),
        pytest.param(PricedTokens(200_001, 150_000, 0, 0, 999), id="beyond it"),
        pytest.param(PricedTokens(0, 0, 0, 0, 0), id="nothing"),
    ],
)
def test_a_call_costs_what_the_price_list_says(model: str, tokens: PricedTokens) -> None:
    theirs = calc_price(
        Usage(
            input_tokens=tokens.input,
            cache_read_tokens=tokens.cache_read,
            cache_write_tokens=tokens.cache_write,
            cache_write_1h_tokens=tokens.cache_write_1h,
            output_tokens=tokens.output,
        ),
        model_ref=model,
        genai_request_timestamp=AT,
    ).total_price
    assert cost_usd(model, tokens, AT) == theirs


def test_a_routers_name_of_a_model_finds_its_price() -> None:
    tokens = PricedTokens(1_000_000, 0, 0, 0, 0)
    assert cost_usd("google/gemini-3-pro-preview", tokens, AT) == Decimal(4)


@pytest.mark.parametrize("model", ["no-such-model", "<synthetic>", "", None])
def test_an_unknown_model_has_no_price(model: str | None) -> None:
    assert cost_usd(model, PricedTokens(10, 0, 0, 0, 10), AT) is None
