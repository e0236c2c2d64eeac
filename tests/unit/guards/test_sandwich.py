"""What a sandwich could take: of any plan by the limits, of one plan by its minimums; never less than what they allow."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.guards.case import build_guard_case
from agent.guards.sandwich import max_extractable_profit, plan_sandwich_loss, sandwich_exposure
from agent.model import LegPlace, PlanCost
from agent.reference import reference_prices
from tests.support.builders import raw, step_input, token, v2_pool, with_snapshot
from tests.support.plans import R, Swap, evidence
from tests.support.plans import plan_of as plan_of_swaps
from tests.support.signing import leg, plan_of
from tests.support.text import mentions

WETH, USDC, WBTC = token("WETH"), token("USDC"), token("WBTC")


def test_the_bound_is_slippage_cost_and_deviation_times_turnover_in_words_and_numbers() -> None:
    exposure = sandwich_exposure(50, 30, 3_000, 6_000, 100)
    assert (exposure.exchanged_loss_bps, exposure.per_rebalance_bps, exposure.per_day_bps) == (180, 54, 108)
    for words in ("1.8% of the exchanged value", "0.54% of the portfolio per rebalance", "1.08% of the portfolio per day"):
        assert words in exposure.description
    exposure_of_two = sandwich_exposure(50, 30, 3_000, 6_000, 100, priced_tokens_per_swap=2)
    assert exposure_of_two.exchanged_loss_bps == 280
    assert "2 × oracle_deviation" in exposure_of_two.description


@pytest.mark.parametrize(
    ("cost", "slippage", "deviation", "name"),
    [(None, 30, 100, "limits.plan_cost"), (50, None, 100, "limits.slippage"), (50, 30, None, "limits.oracle_deviation")],
)
def test_without_a_limit_there_is_no_bound_and_the_limit_is_named(
    cost: int | None, slippage: int | None, deviation: int | None, name: str
) -> None:
    exposure = sandwich_exposure(cost, slippage, 3_000, 6_000, deviation)
    assert (exposure.exchanged_loss_bps, exposure.per_rebalance_bps, exposure.per_day_bps) == (None, None, None)
    assert f"{name} is off" in exposure.description


def test_a_turnover_that_is_off_is_named_and_the_rest_is_told() -> None:
    exposure = sandwich_exposure(50, 30, None, 6_000, 100)
    assert (exposure.exchanged_loss_bps, exposure.per_rebalance_bps, exposure.per_day_bps) == (180, None, 108)
    assert mentions(exposure.description, "turnover", "off")


@given(whole=st.fractions(Fraction(1, 100), 2), skew=st.fractions(Fraction(97, 100), Fraction(103, 100)), over_hub=st.booleans())
def test_no_plan_that_the_guards_let_pass_gives_away_more_than_the_bound(whole: Fraction, skew: Fraction, over_hub: bool) -> None:
    """Pools pushed before the snapshot by up to 3 %, and every minimum reached afterwards: within (slippage + cost) × turnover."""
    first = v2_pool(WETH, USDC, 2_000 * skew, name="first")
    second = v2_pool(WBTC, USDC, 60_000 / skew, name="second")
    step = step_input({"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000}, pools=[first, second])
    step = with_snapshot(step, priority_fee_wei=0, head=replace(step.snapshot.head, base_fee_wei=0))
    sold_raw = raw(whole, WETH)
    hops = (
        [Swap(first, WETH.address, sold_raw, sink=R), Swap(second, USDC.address, source=R)]
        if over_hub
        else [Swap(first, WETH.address, sold_raw)]
    )
    plan = plan_of_swaps(step, hops)
    case = build_guard_case(step, plan, evidence(step, plan))
    cost_bps = max(0, math.ceil(case.cost() / case.turnover() * 10_000))
    slippage_bps = step.limits.slippage_bps
    exposure = sandwich_exposure(cost_bps, slippage_bps, 10_000, 10_000, 0)
    assert exposure.exchanged_loss_bps is not None
    last = plan.legs[-1]
    sold_value = sold_raw * Fraction(2_000 * 10**6, 10**18)
    min_out_value = last.min_out_raw * (Fraction(60_000 * 10**6, 10**8) if over_hub else 1)
    assert sold_value - min_out_value <= case.turnover() * Fraction(exposure.exchanged_loss_bps, 10_000) + 60_000 * 10**6 // 10**8 + 1
    sandwich_loss = plan_sandwich_loss(reference_prices(step), plan)
    assert sandwich_loss is not None
    assert sandwich_loss <= case.turnover() * Fraction(slippage_bps or 0, 10_000) * Fraction(11, 10) + 600  # a skew may be a gain too


def test_a_plan_gives_away_what_its_swaps_predict_above_their_minimums() -> None:
    first = leg(WETH.address, USDC.address, 10**18, 3_000 * 10**6, min_out_raw=2_990 * 10**6)
    second = replace(first, min_out_raw=first.amount_out_raw)
    step = step_input()
    assert plan_sandwich_loss(reference_prices(step), plan_of(first, second)) == 10 * 10**6
    assert plan_sandwich_loss(reference_prices(step), plan_of(second)) == 0
    assert plan_sandwich_loss(reference_prices(step), plan_of(replace(first, sink=LegPlace.ROUTER), second)) == 0
    unpriced_leg = replace(first, token_out="0x" + "77" * 20)
    assert plan_sandwich_loss(reference_prices(step), plan_of(unpriced_leg)) is None


def test_nobody_earns_more_with_a_plan_than_it_loses_and_a_predicted_gain_takes_nothing_off() -> None:
    plan = replace(plan_of(leg(WETH.address, USDC.address, 10**18, 3_000 * 10**6)), cost=PlanCost(*map(Fraction, (5, 7, -2, 100))))
    assert max_extractable_profit(step_input(), plan, Fraction(30)) == 40
    assert max_extractable_profit(step_input(), replace(plan, cost=PlanCost(*map(Fraction, (5, 7, -20, 100)))), Fraction(30)) == 30
    assert max_extractable_profit(step_input(), plan, None) is None
