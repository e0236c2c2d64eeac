"""Guards on cost, turnover, gas: recomputed in exact fractions, at the limit and one beyond."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.guards.case import build_guard_case
from agent.model import Head, PlanCost, StepInput
from agent.units import BPS
from tests.support.builders import ETHER, GWEI, raw, step_input, token, v2_pool, v3_pool, with_limits, with_snapshot
from tests.support.decisions.plan_costs import exit_plan, given_and_got, overweight_step, with_past_costs
from tests.support.plans import R, Swap, approved, evidence, plan_of, sell_weth, verdict, with_leg

WETH, USDC, WBTC = token("WETH"), token("USDC"), token("WBTC")


@given(whole=st.fractions(Fraction(1, 100), 3))
def test_cost_is_value_given_less_value_received_over_half_their_sum(whole: Fraction) -> None:
    step = overweight_step()
    plan = sell_weth(step, whole)
    sold_value, bought_value = given_and_got(plan)
    ratio_bps = (sold_value - bought_value) * BPS / ((sold_value + bought_value) / 2)
    limit_bps = -(-ratio_bps.numerator // ratio_bps.denominator)
    assert verdict("plan_cost", with_limits(step, plan_cost_bps=limit_bps), plan).passed
    assert not verdict("plan_cost", with_limits(step, plan_cost_bps=limit_bps - 1), plan).passed


def test_the_plan_s_own_cost_is_not_believed() -> None:
    step = with_limits(overweight_step(), plan_cost_bps=10)
    zero = Fraction(0)
    plan = replace(sell_weth(step, 1), cost=PlanCost(zero, zero, zero, zero), turnover=Fraction(10**30))
    assert not verdict("plan_cost", step, plan).passed


def test_a_skewed_pool_is_a_cost() -> None:
    step = with_limits(step_input(pools=[v2_pool(WETH, USDC, 1_990)]), plan_cost_bps=60)
    assert not verdict("plan_cost", step, sell_weth(step, Fraction(1, 10))).passed
    fair_step = with_limits(step_input(pools=[v2_pool(WETH, USDC, 2_000)]), plan_cost_bps=60)
    assert verdict("plan_cost", fair_step, sell_weth(fair_step, Fraction(1, 10))).passed


def test_gas_counts_in_the_cost_at_the_price_of_wrapped_native() -> None:
    step = approved(
        with_snapshot(overweight_step(), head=replace(overweight_step().snapshot.head, base_fee_wei=20 * GWEI), priority_fee_wei=5 * GWEI)
    )
    plan = sell_weth(step)  # 200,000 gas at 25 gwei are 0.005 WETH
    case = build_guard_case(step, plan, evidence(step, plan))
    sold_value, bought_value = given_and_got(plan)
    assert case.cost() == sold_value - bought_value + 10 * 10**6


def test_on_a_chain_without_base_fee_the_node_s_gas_price_counts() -> None:
    step = approved(
        with_snapshot(overweight_step(), head=replace(overweight_step().snapshot.head, base_fee_wei=None), gas_price_wei=50 * GWEI)
    )
    plan = sell_weth(step)
    case = build_guard_case(step, plan, evidence(step, plan))
    assert case.cost() - case.trading_cost() == 20 * 10**6
    assert verdict("gas_price", with_limits(step, gas_price_wei=50 * GWEI), plan).passed
    assert not verdict("gas_price", with_limits(step, gas_price_wei=50 * GWEI - 1), plan).passed


def test_a_plan_that_only_burns_gas_is_refused() -> None:
    step = step_input()
    judged = verdict("plan_cost", step, plan_of(step, []))
    assert (judged.passed, judged.measured_text) == (False, "0.44 USDC")


def test_gas_that_nothing_prices_refuses() -> None:
    step = step_input({"WBTC": 5_000, "USDC": 5_000})
    step = replace(step, portfolio=replace(step.portfolio, wrapped_native=WETH.address))
    plan = plan_of(step, [Swap(step.snapshot.pools[0], WBTC.address, raw(Fraction(1, 100), WBTC))])
    assert "reference price" in verdict("plan_cost", step, plan).measured_text


@given(whole=st.fractions(Fraction(1, 100), 3))
def test_turnover_at_the_limit_passes_and_a_limit_one_lower_fails(whole: Fraction) -> None:
    step = overweight_step()
    plan = sell_weth(step, whole)
    ratio_bps = sum(given_and_got(plan)) / 2 * BPS / (10_000 * 10**6)
    limit_bps = -(-ratio_bps.numerator // ratio_bps.denominator)
    assert verdict("turnover", with_limits(step, turnover_bps=limit_bps), plan).passed
    assert not verdict("turnover", with_limits(step, turnover_bps=limit_bps - 1), plan).passed


def test_turnover_does_not_count_what_passes_through_a_hub() -> None:
    step = step_input(
        {"WBTC": 5_000, "USDC": 5_000},
        hubs=["WETH"],
        pools=[v2_pool(WBTC, WETH, 30), v2_pool(WETH, USDC, 2_000)],
    )
    first_pool, last_pool = step.snapshot.pools
    plan = plan_of(step, [Swap(first_pool, WBTC.address, raw(Fraction(1, 60), WBTC), sink=R), Swap(last_pool, WETH.address, source=R)])
    sold_value, bought_value = Fraction(plan.legs[0].amount_in_raw * 60_000 * 10**6, 10**8), plan.legs[1].amount_out_raw
    assert build_guard_case(step, plan, evidence(step, plan)).turnover() == (sold_value + bought_value) / 2


def test_reserves_are_no_part_of_the_total_that_turnover_is_measured_by() -> None:
    step = with_limits(step_input(reserves={"USDC": 90_000}), turnover_bps=2_000)
    assert verdict("turnover", step, sell_weth(step, Fraction(99, 100))).passed
    assert not verdict("turnover", step, sell_weth(step, Fraction(101, 100))).passed


def test_turnover_of_the_day_adds_up() -> None:
    step = with_limits(overweight_step(), daily_turnover_bps=6_000)
    plan = sell_weth(step)
    room_value = 6_000 * 10**6 - sum(given_and_got(plan)) / 2
    assert verdict("daily_turnover", with_past_costs(step, turnover_24h=room_value), plan).passed
    assert not verdict("daily_turnover", with_past_costs(step, turnover_24h=room_value + Fraction(1, 10**9)), plan).passed


def test_loss_of_the_day_and_the_worst_case_at_its_minimums_add_up() -> None:
    step = with_limits(overweight_step(), daily_loss_bps=100)
    plan = sell_weth(step)
    sold_value, bought_value = given_and_got(plan)
    min_out_raw = Fraction(plan.legs[0].min_out_raw)
    assert min_out_raw < bought_value
    room_value = 100 * 10**6 - (sold_value - min_out_raw)
    assert verdict("daily_loss", with_past_costs(step, loss_24h=room_value), plan).passed
    assert not verdict("daily_loss", with_past_costs(step, loss_24h=room_value + Fraction(1, 10**9)), plan).passed


def test_losses_of_all_days_add_up_to_a_limit_of_their_own() -> None:
    step = with_limits(overweight_step(), total_loss_bps=100)
    plan = sell_weth(step)
    sold_value, bought_value = given_and_got(plan)
    room_value = 100 * 10**6 - (sold_value - bought_value)
    assert verdict("total_loss", with_past_costs(step, loss_total=room_value), plan).passed
    assert not verdict("total_loss", with_past_costs(step, loss_total=room_value + Fraction(1, 10**9)), plan).passed
    assert verdict("total_loss", with_limits(with_past_costs(step, loss_total=10 * room_value), total_loss_bps=None), plan).passed


def test_a_predicted_gain_makes_no_room_for_losses() -> None:
    step = with_limits(step_input(pools=[v2_pool(WETH, USDC, 2_100)]), daily_loss_bps=100)
    plan = sell_weth(step)
    assert build_guard_case(step, plan, evidence(step, plan)).cost() < 0
    assert verdict("daily_loss", with_past_costs(step, loss_24h=Fraction(100 * 10**6)), plan).passed
    assert not verdict("daily_loss", with_past_costs(step, loss_24h=Fraction(100 * 10**6 + 1)), plan).passed


def test_an_empty_wallet_has_no_share_to_lose() -> None:
    step = step_input(values={"WETH": 0, "USDC": 0})
    assert verdict("turnover", step, plan_of(step, [])).passed
    assert not verdict("turnover", step, sell_weth(step)).passed


def test_a_trade_at_the_minimum_passes_and_one_base_unit_below_fails() -> None:
    step = with_limits(overweight_step(), min_trade=Fraction(10 * 10**6))
    pool = step.snapshot.pools[0]
    buy = plan_of(step, [Swap(pool, USDC.address, 10_040_000)])
    bought = Fraction(buy.legs[0].amount_out_raw * 2_000 * 10**6, 10**18)
    assert verdict("min_trade", with_limits(step, min_trade=bought), buy).passed
    judged = verdict("min_trade", with_limits(step, min_trade=bought + 1), buy)
    assert (judged.passed, "of WETH" in judged.measured_text) == (False, True)


def test_a_trade_split_over_pools_counts_as_one() -> None:
    step = step_input(pools=[v2_pool(WETH, USDC, 2_000), v3_pool(WETH, USDC, 2_000)])
    small = raw(Fraction(4, 1_000), WETH)  # 8 USDC in each of two pools
    swaps = [Swap(pool, WETH.address, small) for pool in step.snapshot.pools]
    assert not verdict("min_trade", step, plan_of(step, swaps[:1])).passed
    assert verdict("min_trade", step, plan_of(step, swaps)).passed


def test_a_rest_in_the_numeraire_between_a_sale_and_a_purchase_is_no_small_trade() -> None:
    step = step_input({"WETH": 4_000, "WBTC": 4_000, "USDC": 2_000})
    by_weth, by_wbtc = step.snapshot.pools[:2]
    swaps = [Swap(by_weth, WETH.address, raw(Fraction(1, 4), WETH)), Swap(by_wbtc, USDC.address, 495 * 10**6)]
    plan = plan_of(step, swaps)
    assert abs(dict(plan.holdings_after)[USDC.address] - 2_000 * 10**6) < 10 * 10**6
    assert verdict("min_trade", step, plan).passed


def test_live_value_at_the_cap_passes_and_one_base_unit_more_fails() -> None:
    step_at_cap = with_limits(step_input(reserves={"USDC": 500}), max_live_value=Fraction(10_000 * 10**6))
    assert verdict("max_live_value", step_at_cap, sell_weth(step_at_cap)).passed
    assert not verdict(
        "max_live_value", with_limits(step_at_cap, max_live_value=Fraction(10_000 * 10**6 - 1)), sell_weth(step_at_cap)
    ).passed


def step_at_gas_price(base_fee_wei: int, tip_wei: int) -> StepInput:
    step = approved(step_input())
    head = replace(step.snapshot.head, base_fee_wei=base_fee_wei)
    return with_snapshot(step, head=head, priority_fee_wei=tip_wei, native_wei=ETHER)


def test_gas_price_is_base_fee_and_tip() -> None:
    step = step_at_gas_price(59 * GWEI, GWEI)
    assert verdict("gas_price", step, sell_weth(step)).passed
    step_beyond = step_at_gas_price(59 * GWEI, GWEI + 1)
    judged = verdict("gas_price", step_beyond, sell_weth(step_beyond))
    assert (judged.passed, judged.measured_text, judged.limit) == (False, "60.000000001 gwei", "60 gwei")


WORST = 250_000 * 21 * GWEI
"""200,000 gas and a quarter, at twice 10 gwei and a tip of 1."""


def test_gas_of_the_day_counts_the_most_that_the_plan_may_burn() -> None:
    step = with_limits(step_at_gas_price(10 * GWEI, GWEI), gas_per_day_wei=ETHER // 20)
    plan = sell_weth(step)
    assert verdict("gas_per_day", with_past_costs(step, gas_24h_wei=ETHER // 20 - WORST), plan).passed
    assert not verdict("gas_per_day", with_past_costs(step, gas_24h_wei=ETHER // 20 - WORST + 1), plan).passed


def test_what_the_plan_may_burn_is_held_to_the_gas_price_ceiling() -> None:
    step = with_limits(step_at_gas_price(10 * GWEI, GWEI), gas_price_wei=15 * GWEI, gas_per_day_wei=250_000 * 15 * GWEI)
    assert verdict("gas_per_day", step, sell_weth(step)).passed
    unlimited_step = with_limits(step, gas_price_wei=None)
    assert not verdict("gas_per_day", unlimited_step, sell_weth(unlimited_step)).passed


def test_native_coin_left_at_the_floor_passes_and_one_wei_less_fails() -> None:
    step = with_snapshot(step_at_gas_price(10 * GWEI, GWEI), native_wei=ETHER // 20 + WORST)
    assert verdict("native_floor", step, sell_weth(step)).passed
    short_step = with_snapshot(step, native_wei=ETHER // 20 + WORST - 1)
    judged = verdict("native_floor", short_step, sell_weth(short_step))
    assert (judged.passed, judged.measured_text) == (False, "0.049999999999999999 native")
    assert "0.05 native" in judged.limit


def test_an_odd_gas_estimate_is_rounded_up() -> None:
    step = step_at_gas_price(0, GWEI)
    plan = replace(sell_weth(step), gas_units=3)
    assert build_guard_case(step, plan, evidence(step, plan)).worst_gas_wei() == 4 * GWEI


def test_legacy_chains_burn_at_most_the_node_s_gas_price() -> None:
    step = step_at_gas_price(0, 0)
    legacy = with_snapshot(step, head=Head(1, 1_000, step.snapshot.head.hash, step.snapshot.head.timestamp_s, None), gas_price_wei=7 * GWEI)
    plan = replace(sell_weth(step), gas_units=4)
    assert build_guard_case(legacy, plan, evidence(legacy, plan)).worst_gas_wei() == 35 * GWEI


@pytest.mark.parametrize("name", ["plan_cost", "turnover", "daily_loss", "min_trade"])
def test_a_leg_that_pays_less_than_predicted_is_judged_by_what_it_pays(name: str) -> None:
    step = overweight_step()
    plan = sell_weth(step)
    assert verdict(name, step, with_leg(plan, 0, amount_out_raw=1)) == verdict(name, step, plan)


def test_an_exit_into_the_numeraire_is_not_held_back_by_turnover_and_by_everything_else_it_is() -> None:
    step = with_limits(
        with_past_costs(overweight_step(), turnover_24h=Fraction(9_000 * 10**6)), turnover_bps=1, daily_turnover_bps=1, plan_cost_bps=1
    )
    plan = exit_plan(sell_weth(step, 1))
    assert verdict("turnover", step, plan).passed
    assert verdict("daily_turnover", step, plan).passed
    assert not verdict("turnover", step, sell_weth(step, 1)).passed
    assert not verdict("daily_turnover", step, sell_weth(step, 1)).passed
    assert not verdict("plan_cost", step, plan).passed
    assert not verdict("daily_loss", with_limits(with_past_costs(step, loss_24h=Fraction(10**9)), daily_loss_bps=1), plan).passed


def test_an_exit_passes_the_daily_limit_even_where_the_day_cannot_be_told_and_a_purchase_does_not() -> None:
    step = with_past_costs(overweight_step(), unknown_reason="the chain before block 7 cannot be read")
    assert verdict("daily_turnover", step, exit_plan(sell_weth(step, 1))).passed
    assert not verdict("daily_turnover", step, sell_weth(step, 1)).passed


def test_what_an_exit_buys_besides_the_numeraire_counts_in_full() -> None:
    step = with_limits(overweight_step(), turnover_bps=1_000)
    pool = step.snapshot.pools[0]
    small, large = (exit_plan(plan_of(step, [Swap(pool, USDC.address, raw(value, USDC))])) for value in (900, 1_100))
    assert verdict("turnover", step, small).passed
    assert not verdict("turnover", step, large).passed
