"""Amounts are integers inside and exact numbers outside."""

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import InvalidFieldError
from schemas.events import PhaseUsageData
from schemas.fields import Metric
from streams.budget.amounts import (
    AMOUNT_MAX,
    check_usage,
    folded,
    metered_milli,
    nano_dollars,
    number,
    ratio,
)
from streams.budget.encode import ENCODER
from streams.budget.policy import builtin_policy


@pytest.mark.parametrize(
    ("dollars", "nano"),
    [
        ("0", 0),
        ("1.25", 1_250_000_000),
        ("0.000000001", 1),
        pytest.param("0.0000000005", 0, id="a half goes to the even one below"),
        pytest.param("0.0000000015", 2, id="a half goes to the even one above"),
        pytest.param("0.0000000025", 2, id="and below again"),
        pytest.param("0.00000000050000000000000000000000000000001", 1, id="more than a half"),
        pytest.param("1000000", 10**15, id="the most that one report may cost"),
        pytest.param("1E-999999", 0, id="next to nothing"),
    ],
)
def test_money_from_outside_is_rounded_half_even_once(dollars: str, nano: int) -> None:
    assert nano_dollars("cost_usd", Decimal(dollars)) == nano


@pytest.mark.parametrize("dollars", ["-0.01", "1000000.01", "NaN", "sNaN", "Infinity", "1E+99"])
def test_what_is_no_amount_of_money_is_refused(dollars: str) -> None:
    with pytest.raises(InvalidFieldError, match=r"^cost_usd: .* use a number from 0 to 1000000$"):
        nano_dollars("cost_usd", Decimal(dollars))


@pytest.mark.parametrize(
    ("amount", "metric", "text"),
    [
        (5_520_000, Metric.TOKENS, b"5520"),
        (5_520_100, Metric.TOKENS, b"5520.1"),
        (92_000, Metric.LATENCY_MS, b"92000"),
        (1_250_000_000, Metric.COST_USD, b"1.25"),
        (1, Metric.COST_USD, b"1e-9"),
        pytest.param(10**15 + 1, Metric.TOKENS, b"1000000000000.001", id="too long for a float"),
        pytest.param(
            10**30 + 1, Metric.COST_USD, b"1000000000000000000000.000000001", id="very long"
        ),
    ],
)
def test_an_amount_is_printed_exactly(amount: int, metric: Metric, text: bytes) -> None:
    assert ENCODER.encode(number(amount, metric)) == text


@given(st.integers(0, 10 * AMOUNT_MAX), st.sampled_from(Metric))
@example(AMOUNT_MAX, Metric.COST_USD)
def test_what_is_printed_is_read_back_exactly(amount: int, metric: Metric) -> None:
    text = ENCODER.encode(number(amount, metric)).decode()
    read = int(text) if text.isdecimal() else Decimal(text)
    assert folded(read, metric) == amount


def test_more_decimals_than_are_folded_are_no_amount_of_ours() -> None:
    with pytest.raises(ValueError, match="too many decimals"):
        folded(Decimal("0.0001"), Metric.TOKENS)


@pytest.mark.parametrize(("used", "limit", "shown"), [(2, 3, 0.6666), (1, 1, 1.0), (29, 10, 2.9)])
def test_a_ratio_has_four_decimals_rounded_down(used: int, limit: int, shown: float) -> None:
    assert ratio(used, limit) == shown


def test_classes_of_tokens_are_weighted_apart() -> None:
    weights = builtin_policy().weights_milli
    assert metered_milli(weights, 1_000, 700, 200, 50) == (100 + 200 + 50) * 1_000 + 70_000


@pytest.mark.parametrize(
    ("data", "field"),
    [
        pytest.param(
            PhaseUsageData("THINK", input_tokens=5, cache_read_tokens=3, cache_write_tokens=3),
            "data.cache_read_tokens + cache_write_tokens",
            id="more from and to the cache than there was",
        ),
        pytest.param(
            PhaseUsageData("THINK", cache_read_tokens=1),
            "data.cache_read_tokens + cache_write_tokens",
            id="a part without its whole",
        ),
        pytest.param(
            PhaseUsageData("THINK", output_tokens=5, reasoning_tokens=6),
            "data.reasoning_tokens",
            id="more thought than was put out",
        ),
    ],
)
def test_a_part_larger_than_its_whole_is_bad_input(data: PhaseUsageData, field: str) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        check_usage(data)
    assert refused.value.field == field


def test_a_part_as_large_as_its_whole_is_fine() -> None:
    check_usage(
        PhaseUsageData(
            "THINK",
            input_tokens=5,
            cache_read_tokens=3,
            cache_write_tokens=2,
            output_tokens=1,
            reasoning_tokens=1,
        )
    )
