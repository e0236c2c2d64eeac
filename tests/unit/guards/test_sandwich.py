"""Tests of agent/guards/sandwich.py: what a sandwich could take, by the limits and by a plan's minimums, never less than they allow."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.guards.case import build_guard_case
from agent.guards.sandwich import max_extractable_profit, plan_sandwich_loss, plan_worst_case, sandwich_exposure
from agent.model import LegPlace, Plan, PlanCost, StepInput, TopUp
from agent.planning.gas import build_unwrap_leg
from agent.planning.gas_refill import plan_top_up
from agent.planning.partial_plans import worst_case_gas
from agent.units import BPS
from tests.support import plans
from tests.support.builders import ETHER, raw, step_input, v2_pool, with_snapshot
from tests.support.plans import R, Swap, evidence, sell_weth
from tests.support.signing import leg, plan_of
from tests.support.text import mentions
from tests.support.tokens import USDC, WBTC, WETH

USDC_COIN = 10**6


# --- sandwich_exposure


@pytest.mark.parametrize(
    ("priced_tokens", "exchanged_bps", "rebalance_bps", "day_bps", "percentages"),
    [
        pytest.param(1, 180, 54, 108, ("1.8 %", "0.54 %", "1.08 %"), id="one priced token"),
        pytest.param(2, 280, 84, 168, ("2.8 %", "2 × oracle_deviation", "0.84 %", "1.68 %"), id="two priced tokens"),
    ],
)
def test_exposure_is_slippage_cost_and_deviation_times_turnover(
    priced_tokens: int, exchanged_bps: int, rebalance_bps: int, day_bps: int, percentages: tuple[str, ...]
) -> None:
    exposure = sandwich_exposure(50, 30, 3_000, 6_000, 100, priced_tokens_per_swap=priced_tokens)

    assert exposure.exchanged_loss_bps == exchanged_bps
    assert exposure.per_rebalance_bps == rebalance_bps
    assert exposure.per_day_bps == day_bps
    assert mentions(exposure.description, *percentages, "of the exchanged value", "per rebalance", "per day")


def test_exposure_is_at_most_all_and_rounds_up() -> None:
    assert sandwich_exposure(6_000, 6_000, 3_000, 6_000, 100).exchanged_loss_bps == BPS
    assert sandwich_exposure(50, 31, 3_000, 6_000, 100).per_rebalance_bps == 55  # 54.3 bps


@pytest.mark.parametrize(
    ("cost_bps", "slippage_bps", "deviation_bps", "limit"),
    [
        pytest.param(None, 30, 100, "limits.plan_cost is off", id="plan_cost"),
        pytest.param(50, None, 100, "limits.slippage is off", id="slippage"),
        pytest.param(50, 30, None, "limits.oracle_deviation is off", id="oracle_deviation"),
        pytest.param(None, None, 100, "limits.plan_cost and limits.slippage are off", id="two of them"),
    ],
)
def test_exposure_is_unknown_without_a_limit_of_price(
    cost_bps: int | None, slippage_bps: int | None, deviation_bps: int | None, limit: str
) -> None:
    exposure = sandwich_exposure(cost_bps, slippage_bps, 3_000, 6_000, deviation_bps)

    assert {exposure.exchanged_loss_bps, exposure.per_rebalance_bps, exposure.per_day_bps} == {None}
    assert limit in exposure.description


@pytest.mark.parametrize(
    ("turnover_bps", "daily_turnover_bps", "rebalance_bps", "day_bps", "reason"),
    [
        pytest.param(None, 6_000, None, 108, "unbounded per rebalance, because turnover is off", id="turnover"),
        pytest.param(3_000, None, 54, None, "unbounded per day, because daily_turnover is off", id="daily_turnover"),
    ],
)
def test_exposure_without_a_limit_of_turnover_is_unbounded(
    turnover_bps: int | None, daily_turnover_bps: int | None, rebalance_bps: int | None, day_bps: int | None, reason: str
) -> None:
    exposure = sandwich_exposure(50, 30, turnover_bps, daily_turnover_bps, 100)

    assert exposure.exchanged_loss_bps == 180
    assert exposure.per_rebalance_bps == rebalance_bps
    assert exposure.per_day_bps == day_bps
    assert reason in exposure.description


@given(weth=st.fractions(Fraction(1, 100), 2), skew=st.fractions(Fraction(97, 100), Fraction(103, 100)), is_over_hub=st.booleans())
def test_exposure_bounds_what_any_passing_plan_gives_away(weth: Fraction, skew: Fraction, is_over_hub: bool) -> None:
    """Pools are pushed by up to 3 % before the snapshot, and every minimum is reached afterwards."""
    weth_pool = v2_pool(WETH, USDC, 2_000 * skew, name="first")
    wbtc_pool = v2_pool(WBTC, USDC, 60_000 / skew, name="second")
    step = step_input({"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000}, pools=[weth_pool, wbtc_pool])
    step = with_snapshot(step, priority_fee_wei=0, head=replace(step.snapshot.head, base_fee_wei=0))
    sold_raw = raw(weth, WETH)
    hops = [Swap(weth_pool, WETH.address, sold_raw, sink=R), Swap(wbtc_pool, USDC.address, source=R)]
    plan = plans.plan_of(step, hops if is_over_hub else [Swap(weth_pool, WETH.address, sold_raw)])
    case = build_guard_case(step, plan, evidence(step, plan))
    cost_bps = max(0, math.ceil(case.cost() / case.turnover() * BPS))
    slippage_bps = step.limits.slippage_bps or 0
    sold_value = sold_raw * Fraction(2_000 * USDC_COIN, ETHER)
    minimum_value = plan.legs[-1].min_out_raw * (Fraction(60_000 * USDC_COIN, 10**8) if is_over_hub else 1)

    exposure = sandwich_exposure(cost_bps, slippage_bps, BPS, BPS, 0)
    sandwich_loss = plan_sandwich_loss(step, plan)

    assert exposure.exchanged_loss_bps is not None
    one_wbtc_unit = 60_000 * USDC_COIN // 10**8
    assert sold_value - minimum_value <= case.turnover() * Fraction(exposure.exchanged_loss_bps, BPS) + one_wbtc_unit + 1
    assert sandwich_loss is not None
    assert sandwich_loss <= case.turnover() * Fraction(slippage_bps, BPS) * Fraction(11, 10) + one_wbtc_unit  # a skew may be a gain too


# --- plan_sandwich_loss


LOOSE_LEG = leg(WETH.address, USDC.address, ETHER, 3_000 * USDC_COIN, min_out_raw=2_990 * USDC_COIN)
EXACT_LEG = replace(LOOSE_LEG, min_out_raw=3_000 * USDC_COIN)
GAS_LEG = build_unwrap_leg(WETH.address, ETHER // 100)
LOOSE_REFILL_LEG = build_unwrap_leg(WETH.address, ETHER, LegPlace.ROUTER, ETHER * 99 // 100)


@pytest.mark.parametrize(
    ("plan", "loss_usdc"),
    [
        pytest.param(plan_of(LOOSE_LEG, EXACT_LEG), 10, id="10 USDC below the output"),
        pytest.param(plan_of(EXACT_LEG), 0, id="a minimum of the output"),
        pytest.param(plan_of(replace(EXACT_LEG, min_out_raw=3_001 * USDC_COIN), LOOSE_LEG), 10, id="a minimum above the output"),
        pytest.param(plan_of(replace(LOOSE_LEG, sink=LegPlace.ROUTER), EXACT_LEG), 0, id="into the router"),
        pytest.param(plan_of(LOOSE_LEG, GAS_LEG), 10, id="native coin of the wallet, unwrapped exactly"),
        pytest.param(plan_of(LOOSE_REFILL_LEG), 20, id="native coin at the price of its wrapped token"),
        pytest.param(plan_of(LOOSE_LEG, LOOSE_REFILL_LEG), 30, id="a sale and a gas refill"),
    ],
)
def test_sandwich_loss_is_what_swaps_predict_above_minimums(plan: Plan, loss_usdc: int) -> None:
    assert plan_sandwich_loss(step_input(), plan) == loss_usdc * USDC_COIN


def test_sandwich_loss_is_unknown_for_a_token_without_price() -> None:
    plan = plan_of(replace(LOOSE_LEG, token_out="0x" + "77" * 20))

    assert plan_sandwich_loss(step_input(), plan) is None
    assert plan_worst_case(step_input(), plan) is None


def test_sandwich_loss_is_unknown_for_native_coin_without_price() -> None:
    step = step_input({"WBTC": 5_000, "USDC": 5_000})

    assert plan_sandwich_loss(step, plan_of(LOOSE_REFILL_LEG)) is None


# --- plan_worst_case and max_extractable_profit


def cautious_step() -> StepInput:
    """Return a step in which prices may be 150 bps off."""
    step = step_input()
    return replace(step, reference=replace(step.reference, uses_worse_source=True))


def cost_of(fees: int, impact: int, skew: int, gas: int, approval_gas: int = 0) -> PlanCost:
    return PlanCost(*map(Fraction, (fees, impact, skew, gas, approval_gas)))


def test_worst_case_adds_all_gas_minimums_and_deviation() -> None:
    step = cautious_step()
    plan = replace(sell_weth(step, 1), cost=cost_of(5, 7, -2, 100, 50))
    sandwich_loss = plan.legs[0].amount_out_raw - plan.legs[0].min_out_raw
    deviation_value = 2_000 * USDC_COIN * Fraction(150, BPS)

    assert worst_case_gas(step, plan) > 150
    assert plan_worst_case(step, plan) == 10 + worst_case_gas(step, plan) + sandwich_loss + deviation_value


@pytest.mark.parametrize("step", [step_input(), cautious_step()], ids=["prices as read", "prices off"])
def test_worst_case_of_a_top_up_is_its_gas(step: StepInput) -> None:
    plan = plan_top_up(step, TopUp("gas", 10**16))

    assert plan_worst_case(step, plan) == worst_case_gas(step, plan) > 0


@pytest.mark.parametrize(("gas_units", "is_known"), [(200_000, False), (0, True)], ids=["with gas", "without gas"])
def test_worst_case_is_unknown_if_gas_has_no_price(gas_units: int, is_known: bool) -> None:
    step = step_input({"WBTC": 5_000, "USDC": 5_000})
    plan = plans.plan_of(step, [Swap(step.snapshot.pools[0], WBTC.address, raw(Fraction(1, 100), WBTC))], gas_units=gas_units)

    assert (plan_worst_case(step, plan) is not None) is is_known


@pytest.mark.parametrize(
    ("cost", "profit"),
    [
        pytest.param(cost_of(5, 7, -2, 100, 50), 40, id="a cost of 10 without gas"),
        pytest.param(cost_of(5, 7, -20, 100, 50), 30, id="a predicted gain takes nothing off"),
    ],
)
def test_extractable_profit_is_cost_and_sandwich_loss(cost: PlanCost, profit: int) -> None:
    plan = replace(plan_of(LOOSE_LEG), cost=cost)

    assert max_extractable_profit(step_input(), plan, Fraction(30)) == profit
    assert max_extractable_profit(cautious_step(), plan, Fraction(30)) == profit + 2_000 * USDC_COIN * Fraction(150, BPS)
    assert max_extractable_profit(step_input(), plan, None) is None
