"""The worst case of a plan, in which every swap pays its minimum only, counts against the loss of a day (T21)."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from agent.guards.case import build_guard_case
from tests.support.builders import raw, step_input, token, v2_pool, with_limits
from tests.support.decisions.plan_costs import exit_plan, given_and_got, overweight_step, with_past_costs
from tests.support.plans import R, Swap, evidence, plan_of, sell_weth, verdict, with_leg

WETH, USDC, WBTC = token("WETH"), token("USDC"), token("WBTC")


def test_a_plan_whose_minimums_give_up_half_of_it_is_refused_by_the_loss_of_a_day() -> None:
    """The sandwiched test of the issue: predicted to cost next to nothing, signed to accept half."""
    step = with_limits(overweight_step(), daily_loss_bps=100, slippage_bps=5_000)
    plan = sell_weth(step)
    sold_value, bought_value = given_and_got(plan)
    loose_plan = with_leg(plan, 0, min_out_raw=int(bought_value) // 2)
    judged = verdict("daily_loss", step, loose_plan)
    assert sold_value - bought_value < 20 * 10**6
    assert not judged.passed
    assert verdict("daily_loss", with_limits(step, daily_loss_bps=2_000), loose_plan).passed


def test_gas_counts_in_the_worst_case_at_the_most_that_it_may_cost() -> None:
    step = with_limits(step_input(values={"WETH": 6_000, "USDC": 4_000}), daily_loss_bps=100)
    plan = sell_weth(step)
    case = build_guard_case(step, plan, evidence(step, plan))
    gas_value = case.worst_gas_wei() * case.price(step.portfolio.wrapped_native)
    sold_value, _ = given_and_got(plan)
    assert gas_value > case.plan.gas_units * case.gas_price_wei() * case.price(step.portfolio.wrapped_native)
    assert case.worst_cost() == sold_value - plan.legs[0].min_out_raw + gas_value


def test_on_a_way_over_a_hub_the_last_minimum_alone_counts() -> None:
    pools = [v2_pool(WETH, WBTC, Fraction(2_000, 60_000)), v2_pool(WBTC, USDC, 60_000)]
    step = with_limits(step_input(pools=pools), daily_loss_bps=100)
    plan = plan_of(step, [Swap(pools[0], WETH.address, raw(1, WETH), sink=R), Swap(pools[1], WBTC.address, source=R)])
    case = build_guard_case(step, plan, evidence(step, plan))
    gas_value = case.worst_gas_wei() * case.price(step.portfolio.wrapped_native)
    assert case.worst_cost() == 2_000 * 10**6 - plan.legs[1].min_out_raw + gas_value


def test_an_exit_is_held_to_its_predicted_cost_and_waits_for_no_worst_case() -> None:
    step = with_limits(overweight_step(), daily_loss_bps=100)
    plan = sell_weth(step)
    sold_value, bought_value = given_and_got(plan)
    room_value = 100 * 10**6 - (sold_value - bought_value)
    exit_step = with_past_costs(step, loss_24h=room_value)
    assert verdict("daily_loss", exit_step, exit_plan(plan)).passed
    assert not verdict("daily_loss", exit_step, plan).passed
    assert not verdict("daily_loss", with_past_costs(step, loss_24h=room_value + Fraction(1, 10**9)), exit_plan(plan)).passed


@given(whole=st.fractions(Fraction(1, 100), Fraction(3, 2)), min_share_bps=st.integers(1, 10_000))
def test_whatever_a_pool_pays_between_minimum_and_prediction_costs_no_more_than_the_worst_case(whole: Fraction, min_share_bps: int) -> None:
    step = overweight_step()
    plan = sell_weth(step, whole)
    sold_value, bought_value = given_and_got(plan)
    loose_plan = with_leg(plan, 0, min_out_raw=max(1, int(bought_value) * min_share_bps // 10_000))
    case = build_guard_case(step, loose_plan, evidence(step, loose_plan))
    assert case.worst_cost() >= case.cost()
    assert case.worst_cost() == sold_value - loose_plan.legs[0].min_out_raw
