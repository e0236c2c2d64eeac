"""Tests of agent/margin/contract_sizes.py: sizes in whole lots, bounds from the index."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.margin.contract_sizes import index_bound_raw, size_for_notional_raw
from tests.support.perpetuals.accounts import E18, market

LOT_RAW = 10**15


@pytest.mark.parametrize(
    ("notional_raw", "size_raw"),
    [
        pytest.param(6 * E18, 3 * LOT_RAW, id="three lots"),
        pytest.param(6 * E18 - 1, 2 * LOT_RAW, id="a base unit less"),
        pytest.param(-(5 * E18 + 1), -2 * LOT_RAW, id="a sale toward zero"),
        pytest.param(0, 0, id="nothing"),
    ],
)
def test_size_of_a_notional_is_rounded_toward_zero(notional_raw: int, size_raw: int) -> None:
    assert size_for_notional_raw(market("ETH"), Fraction(notional_raw)) == size_raw


def test_size_of_a_notional_is_that_at_the_mark() -> None:
    assert size_for_notional_raw(replace(market("ETH"), mark=Fraction(4_000)), Fraction(8 * E18)) == 2 * LOT_RAW


@pytest.mark.parametrize(
    ("size_raw", "bound_raw"),
    [
        pytest.param(E18, 2_010 * E18, id="a buy"),
        pytest.param(-E18, 1_990 * E18, id="a sale"),
        pytest.param(1, 2_010, id="a buy of one unit"),
    ],
)
def test_bound_counts_from_the_index_not_the_mark(size_raw: int, bound_raw: int) -> None:
    pushed_market = replace(market("ETH"), mark=Fraction(4_000))

    assert index_bound_raw(pushed_market, size_raw, 50) == bound_raw


@pytest.mark.parametrize(("size_raw", "bound_raw"), [(1, 1), (-1, 1)], ids=["a buy is rounded down", "a sale is rounded up"])
def test_bound_is_never_loosened_by_rounding(size_raw: int, bound_raw: int) -> None:
    """0.5 % above and below 1 are 1.005 and 0.995 base units."""
    assert index_bound_raw(market("ETH", 1), size_raw, 50) == bound_raw
