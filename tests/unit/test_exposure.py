"""What a sandwich could take: of any plan by the limits, of one plan by its minimums; never less than what the floors allow."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.guards.exposure import by_limits, of_plan
from agent.planning.floors import fair_floor
from tests.builders import step_input, token
from tests.signing import leg, plan_of

ONE = Fraction(1)


def test_the_bound_is_slippage_and_impact_times_turnover_in_words_and_numbers() -> None:
    found = by_limits(100, 30, 3_000, 6_000)
    assert (found.per_swap_bps, found.per_rebalance_bps, found.per_day_bps) == (130, 39, 78)
    for words in ("1.3% of each swap", "0.39% of the portfolio per rebalance", "0.78% of the portfolio per day"):
        assert words in found.words


@pytest.mark.parametrize(("impact", "slippage", "name"), [(None, 30, "price_impact"), (100, None, "slippage")])
def test_without_a_limit_there_is_no_bound_and_the_limit_is_named(impact: int | None, slippage: int | None, name: str) -> None:
    found = by_limits(impact, slippage, 3_000, 6_000)
    assert (found.per_swap_bps, found.per_rebalance_bps, found.per_day_bps) == (None, None, None)
    assert f"limits.{name} is off" in found.words


def test_a_turnover_that_is_off_is_named_and_the_rest_is_told() -> None:
    found = by_limits(100, 30, None, 6_000)
    assert (found.per_swap_bps, found.per_rebalance_bps, found.per_day_bps) == (130, None, 78)
    assert "without bound per rebalance, since turnover is off" in found.words


@given(
    raw=st.integers(10**6, 10**24),
    fee_pips=st.sampled_from((100, 500, 3_000, 10_000)),
    impact=st.integers(0, 2_000),
    slippage=st.integers(0, 2_000),
)
def test_no_swap_at_its_floor_gives_away_more_than_the_bound(raw: int, fee_pips: int, impact: int, slippage: int) -> None:
    """At a price of one: what the fee leaves of the input, less the floor, is within the bound, to the base unit."""
    found = by_limits(impact, slippage, 10_000, 10_000)
    assert found.per_swap_bps is not None
    fair = raw * (1 - Fraction(fee_pips, 10**6))
    floor = fair_floor(raw, ONE, ONE, fee_pips, impact, slippage)
    assert fair - floor <= raw * Fraction(found.per_swap_bps, 10_000) + 1


def test_a_plan_gives_away_what_its_swaps_predict_above_their_minimums() -> None:
    first = leg(token("WETH").address, token("USDC").address, 10**18, 3_000 * 10**6, min_out_raw=2_990 * 10**6)
    second = replace(first, min_out_raw=first.amount_out_raw)
    step = step_input()
    assert of_plan(step, plan_of(first, second)) == 10 * 10**6
    assert of_plan(step, plan_of(second)) == 0
    unknown = replace(first, token_out="0x" + "77" * 20)
    assert of_plan(step, plan_of(unknown)) is None
