"""Tests of agent/reference/floors.py: minimums whose products are no whole base units, to the unit."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.reference.floors import fair_floor, min_out


@pytest.mark.parametrize(
    ("simulated_raw", "floor_raw", "slippage_bps", "expected_raw"),
    [
        pytest.param(10_001, 0, 30, 9_970, id="9,970.997 down"),
        pytest.param(10_003, 0, 30, 9_972, id="9,972.991 down"),
        pytest.param(10_000, 0, 30, 9_970, id="exact"),
        pytest.param(9_999, 0, 30, 9_969, id="9,969.003 down"),
        pytest.param(10_001, 9_971, 30, 9_971, id="a floor one unit above"),
        pytest.param(10_001, 9_969, 30, 9_970, id="a floor one unit below"),
        pytest.param(10_001, 0, 0, 10_001, id="no slippage"),
        pytest.param(10_001, 9_969, None, 9_969, id="slippage off"),
    ],
)
def test_minimum__is_output_less_slippage_or_floor_rounded_down(
    simulated_raw: int, floor_raw: int, slippage_bps: int | None, expected_raw: int
) -> None:
    assert min_out(simulated_raw, floor_raw, slippage_bps) == expected_raw


@pytest.mark.parametrize(
    ("amount_in_raw", "expected_raw"),
    [
        pytest.param(1_000_000, 984_039, id="exact"),
        pytest.param(999_999, 984_038, id="984,038.015961 down"),
        pytest.param(1_000_003, 984_041, id="984,041.952117 down"),
        pytest.param(1, 1, id="less than a unit"),
        pytest.param(0, 0, id="nothing"),
    ],
)
def test_fair_floor__is_the_value_less_fee_impact_and_slippage(amount_in_raw: int, expected_raw: int) -> None:
    """Of equal prices, at a fee of 0.3 %, an impact of 1 % and a slippage of 0.3 %: 0.987 · 0.997 = 0.984039."""
    assert fair_floor(amount_in_raw, Fraction(7), Fraction(7), 3_000, 100, 30) == expected_raw


def test_fair_floor__of_prices_in_a_third_is_rounded_down_once() -> None:
    """1,000 · 2/3 / (1/7) · 0.984039 = 4,592.182; the price rounded first would give less."""
    assert fair_floor(1_000, Fraction(2, 3), Fraction(1, 7), 3_000, 100, 30) == 4_592
