"""Tests of agent/guards/portfolio.py: cost, turnover, loss, jumps and size at their limits and one unit beyond."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.guards.case import build_guard_case
from agent.guards.portfolio import MAX_LIVE_VALUE
from agent.model import (
    BlockedExit,
    ExternalTransfer,
    ExternalTransferKind,
    Plan,
    PlanCost,
    PriceSource,
    Rebalance,
    StepInput,
    TopUp,
    UnreadableItem,
)
from agent.model.rollups import DATA_FEE_ITEM
from agent.planning.gas_refill import plan_top_up
from agent.policy.cash_flows.cash_limit import max_live_value_warnings
from agent.policy.decide import decide
from agent.units import BPS, NATIVE
from tests.support.builders import (
    DAY_S,
    ETHER,
    GWEI,
    NOW_S,
    raw,
    step_input,
    v2_pool,
    v3_pool,
    with_history,
    with_limits,
    with_snapshot,
)
from tests.support.decisions.plan_costs import exit_plan, with_past_costs
from tests.support.plans import R, Swap, approved, assert_refused, evidence, plan_of, sell_weth, verdict, with_leg
from tests.support.tokens import LINK, USDC, WBTC, WETH


def overweight_step() -> StepInput:
    """6,000 of WETH and 4,000 of USDC, gas for nothing."""
    step = step_input(values={"WETH": 6_000, "USDC": 4_000})
    return with_snapshot(step, priority_fee_wei=0, head=replace(step.snapshot.head, base_fee_wei=0))


def given_and_got(plan: Plan) -> tuple[Fraction, Fraction]:
    """Values by hand: WETH at 2,000, in USDC base units."""
    leg = plan.legs[0]
    return Fraction(leg.amount_in_raw * 2_000 * 10**6, 10**18), Fraction(leg.amount_out_raw)


USDC_COIN = 10**6
TINY = Fraction(1, 10**9)
"""Part of a base unit by which a value is beyond a limit."""


def buy_weth(step: StepInput, usdc: int) -> Plan:
    return plan_of(step, [Swap(step.snapshot.pools[0], USDC.address, raw(usdc, USDC))])


def sale_cost(plan: Plan) -> Fraction:
    """Return the value sold less the value bought, in base units of USDC."""
    sold_value, bought_value = given_and_got(plan)
    return sold_value - bought_value


# --- plan_cost


@given(weth=st.fractions(Fraction(1, 100), 3))
def test_plan_cost_is_the_value_lost_over_the_mean_of_both_sides(weth: Fraction) -> None:
    step = overweight_step()
    plan = sell_weth(step, weth)
    ratio_bps = sale_cost(plan) * BPS / (sum(given_and_got(plan)) / 2)
    lowest_limit_bps = -(-ratio_bps.numerator // ratio_bps.denominator)

    assert verdict("plan_cost", with_limits(step, plan_cost_bps=ratio_bps), plan).passed
    assert verdict("plan_cost", with_limits(step, plan_cost_bps=lowest_limit_bps), plan).passed
    assert_refused(verdict("plan_cost", with_limits(step, plan_cost_bps=lowest_limit_bps - 1), plan), "bps")


def test_plan_cost_ignores_the_cost_that_the_plan_predicts() -> None:
    step = with_limits(overweight_step(), plan_cost_bps=10)
    plan = replace(sell_weth(step, 1), cost=PlanCost(*[Fraction(0)] * 4), turnover=Fraction(10**30))

    assert_refused(verdict("plan_cost", step, plan), "bps")


@pytest.mark.parametrize(("spot", "passed"), [(2_000, True), (1_990, False)], ids=["at the reference", "skewed"])
def test_plan_cost_counts_the_skew_of_the_pool(spot: int, passed: bool) -> None:
    step = with_limits(step_input(pools=[v2_pool(WETH, USDC, spot)]), plan_cost_bps=60)

    assert verdict("plan_cost", step, sell_weth(step, Fraction(1, 10))).passed is passed


def test_plan_cost_counts_gas_at_the_price_of_wrapped_native() -> None:
    step = overweight_step()
    head = replace(step.snapshot.head, base_fee_wei=20 * GWEI)
    step = approved(with_snapshot(step, head=head, priority_fee_wei=5 * GWEI))
    plan = sell_weth(step)  # 200,000 gas at 25 gwei are 0.005 WETH

    assert build_guard_case(step, plan, evidence(step, plan)).cost() == sale_cost(plan) + 10 * USDC_COIN


def test_plan_cost_counts_the_node_s_gas_price_without_base_fee() -> None:
    step = overweight_step()
    step = approved(with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=None), gas_price_wei=50 * GWEI))
    plan = sell_weth(step)

    assert build_guard_case(step, plan, evidence(step, plan)).cost() == sale_cost(plan) + 20 * USDC_COIN


@pytest.mark.parametrize(
    ("gas_units", "measured", "passed"),
    [
        pytest.param(0, "0 USDC", True, id="no gas"),
        pytest.param(200_000, "0.44 USDC", False, id="gas alone"),
    ],
)
def test_plan_cost_allows_no_cost_where_no_value_moves(gas_units: int, measured: str, passed: bool) -> None:
    step = step_input()

    judged = verdict("plan_cost", step, plan_of(step, [], gas_units=gas_units))

    assert (judged.measured_text, judged.passed) == (measured, passed)


def test_plan_cost_refuses_gas_without_a_price() -> None:
    step = step_input({"WBTC": 5_000, "USDC": 5_000})
    step = replace(step, portfolio=replace(step.portfolio, wrapped_native=WETH.address))
    plan = plan_of(step, [Swap(step.snapshot.pools[0], WBTC.address, raw(Fraction(1, 100), WBTC))])

    assert_refused(verdict("plan_cost", step, plan), "unknown", "reference price")


def test_plan_cost_refuses_a_data_fee_that_was_not_read() -> None:
    step = with_snapshot(step_input(), unreadable_items=(UnreadableItem(DATA_FEE_ITEM, "", "the oracle is silent"),))

    assert_refused(verdict("plan_cost", step, sell_weth(step)), "unknown", "data fee was not read", "the oracle is silent")


def test_plan_cost_lets_a_refill_of_gas_move_no_value() -> None:
    step = step_input()
    sale = replace(sell_weth(step), decision=TopUp("short of gas", ETHER))
    unwrap = with_leg(sale, 0, venue="wrapped_native", pool=WETH.address, token_out=NATIVE)

    assert verdict("plan_cost", step, unwrap).passed
    assert_refused(verdict("plan_cost", step, sale), "of gas")


def disagreeing_step(slippage_bps: int) -> StepInput:
    """Return a step without gas costs: a feed at 2,000, a TWAP 1 % above, and a pool that costs 30 bps."""
    pools = [v2_pool(WETH, USDC, 2_000, depth=100_000_000), v3_pool(WETH, USDC, 2_000, twap_price=2_020)]
    step = step_input(pools=pools, kinds=(PriceSource.FEED, PriceSource.TWAP))
    step = replace(step, reference=replace(step.reference, uses_worse_source=True))
    step = with_snapshot(step, priority_fee_wei=0, head=replace(step.snapshot.head, base_fee_wei=0))
    return with_limits(step, plan_cost_bps=50, slippage_bps=slippage_bps)


@pytest.mark.parametrize(
    ("slippage_bps", "is_exit", "passed"),
    [
        pytest.param(90, False, True, id="130 bps of 50 and 90"),
        pytest.param(70, False, False, id="130 bps of 50 and 70"),
        pytest.param(70, True, True, id="an exit"),
    ],
)
def test_plan_cost_at_the_worse_price_may_exceed_by_slippage(slippage_bps: int, is_exit: bool, passed: bool) -> None:
    step = disagreeing_step(slippage_bps)
    plan = sell_weth(step)

    judged = verdict("plan_cost", step, exit_plan(plan) if is_exit else plan)

    assert judged.passed is passed
    assert ("at the worse of feed and TWAP" in judged.measured_text) is not passed


@pytest.mark.parametrize(
    ("slippage_bps", "is_exit", "names_worse_price"),
    [
        pytest.param(70, False, True, id="two prices"),
        pytest.param(5, True, False, id="an exit, judged at one price"),
        pytest.param(15, True, False, id="an exit within the slippage"),
    ],
)
def test_plan_cost_names_the_worse_price_if_it_counts(slippage_bps: int, is_exit: bool, names_worse_price: bool) -> None:
    """The plan costs 30 bps at the reference price, of 20 allowed."""
    step = with_limits(disagreeing_step(slippage_bps), plan_cost_bps=20)
    plan = sell_weth(step)

    judged = verdict("plan_cost", step, exit_plan(plan) if is_exit else plan)

    assert not judged.passed
    assert ("at the worse of feed and TWAP" in judged.measured_text) is names_worse_price


# --- turnover and daily_turnover


@given(weth=st.fractions(Fraction(1, 100), 3))
def test_turnover_refuses_one_basis_point_beyond_the_limit(weth: Fraction) -> None:
    step = overweight_step()
    plan = sell_weth(step, weth)
    ratio_bps = sum(given_and_got(plan)) / 2 * BPS / (10_000 * USDC_COIN)
    lowest_limit_bps = -(-ratio_bps.numerator // ratio_bps.denominator)

    assert verdict("turnover", with_limits(step, turnover_bps=lowest_limit_bps), plan).passed
    assert_refused(verdict("turnover", with_limits(step, turnover_bps=lowest_limit_bps - 1), plan), "bps")


def test_turnover_leaves_out_what_passes_through_a_hub() -> None:
    step = step_input({"WBTC": 5_000, "USDC": 5_000}, hubs=["WETH"], pools=[v2_pool(WBTC, WETH, 30), v2_pool(WETH, USDC, 2_000)])
    wbtc_pool, weth_pool = step.snapshot.pools
    sale = Swap(wbtc_pool, WBTC.address, raw(Fraction(1, 60), WBTC), sink=R)
    plan = plan_of(step, [sale, Swap(weth_pool, WETH.address, source=R)])
    sold_value = Fraction(plan.legs[0].amount_in_raw * 60_000 * USDC_COIN, 10**8)

    assert build_guard_case(step, plan, evidence(step, plan)).turnover() == (sold_value + plan.legs[1].amount_out_raw) / 2


@pytest.mark.parametrize(("weth", "passed"), [(Fraction(99, 100), True), (Fraction(101, 100), False)], ids=["19.8 %", "20.2 %"])
def test_turnover_is_a_share_of_the_total_without_reserves(weth: Fraction, passed: bool) -> None:
    step = with_limits(step_input(reserves={"USDC": 90_000}), turnover_bps=2_000)

    assert verdict("turnover", step, sell_weth(step, weth)).passed is passed


def test_turnover_of_an_empty_wallet_must_be_zero() -> None:
    step = step_input(values={"WETH": 0, "USDC": 0})

    assert verdict("turnover", step, plan_of(step, [])).passed
    assert_refused(verdict("turnover", step, sell_weth(step)), "of an empty portfolio")


def test_daily_turnover_adds_the_last_day_and_the_plan() -> None:
    step = with_limits(overweight_step(), daily_turnover_bps=6_000)
    plan = sell_weth(step)
    room_value = 6_000 * USDC_COIN - sum(given_and_got(plan)) / 2

    assert verdict("daily_turnover", with_past_costs(step, turnover_24h=room_value), plan).passed
    assert_refused(verdict("daily_turnover", with_past_costs(step, turnover_24h=room_value + TINY), plan), "bps")


@pytest.mark.parametrize("guard", ["turnover", "daily_turnover"])
def test_turnover_holds_no_exit_into_the_numeraire_back(guard: str) -> None:
    step = with_past_costs(overweight_step(), turnover_24h=Fraction(9_000 * USDC_COIN))
    step = with_limits(step, turnover_bps=1, daily_turnover_bps=1)
    plan = sell_weth(step, 1)

    assert verdict(guard, step, exit_plan(plan)).measured_text == "an exit into the numeraire"
    assert_refused(verdict(guard, step, plan), "bps")


@pytest.mark.parametrize(("usdc", "passed"), [(900, True), (1_100, False)], ids=["9 %", "11 %"])
def test_turnover_counts_what_an_exit_buys_besides_the_numeraire(usdc: int, passed: bool) -> None:
    step = with_limits(overweight_step(), turnover_bps=1_000)

    assert verdict("turnover", step, exit_plan(buy_weth(step, usdc))).passed is passed


def test_turnover_of_an_exit_is_not_offset_by_its_sales() -> None:
    step = step_input({"WETH": 4_000, "WBTC": 4_000, "USDC": 2_000})
    weth_pool, wbtc_pool = step.snapshot.pools[:2]
    sale = Swap(weth_pool, WETH.address, raw(Fraction(1, 2), WETH))
    plan = exit_plan(plan_of(step, [sale, Swap(wbtc_pool, USDC.address, 900 * USDC_COIN)]))

    assert verdict("turnover", with_limits(step, turnover_bps=900), plan).passed
    assert_refused(verdict("turnover", with_limits(step, turnover_bps=890), plan), "bps")


def first_purchase(usdc: int, exempt_usdc: int) -> tuple[StepInput, Plan]:
    """Return a step with 10,000 USDC, of which half is WETH's, and its purchase for so many USDC, so many of them exempt."""
    step = with_limits(step_input(values={"WETH": 0, "USDC": 10_000}), first_purchase_s=600, turnover_bps=0, daily_turnover_bps=0)
    plan = buy_weth(step, usdc)
    assert isinstance(plan.decision, Rebalance)
    return step, replace(plan, decision=replace(plan.decision, exempt_turnover=Fraction(exempt_usdc * USDC_COIN)))


@pytest.mark.parametrize("guard", ["turnover", "daily_turnover"])
@pytest.mark.parametrize(
    ("usdc", "exempt_usdc", "passed"),
    [
        pytest.param(4_900, 5_000, True, id="within its exemption"),
        pytest.param(4_900, 4_000, False, id="beyond its exemption"),
        pytest.param(5_100, 10_000, False, id="more exempt than the first purchase moves"),
    ],
)
def test_turnover_exempts_the_first_purchase_once(guard: str, usdc: int, exempt_usdc: int, passed: bool) -> None:
    step, plan = first_purchase(usdc, exempt_usdc)

    judged = verdict(guard, step, plan)

    assert judged.passed is passed
    assert "for the first rebalance, plus" in judged.measured_text
    assert judged.limit == f"{min(exempt_usdc, 5_000)} USDC, plus 0 bps"


@pytest.mark.parametrize(
    ("usdc", "exempt_usdc", "passed"),
    [(4_900, 5_000, True), (4_900, 4_800, False), (5_100, 10_000, False)],
    ids=["within its exemption", "beyond its exemption", "more exempt than the purchase moves"],
)
def test_daily_turnover_used_up_by_itself_binds_no_exempt_purchase(usdc: int, exempt_usdc: int, passed: bool) -> None:
    """The deposit's part is exempt; prices fell since the day's trades, which exceed the limit without it."""
    step, plan = first_purchase(usdc, exempt_usdc)
    budgets = {"turnover_24h": Fraction(6_001 * USDC_COIN), "newly_invested_raw": ((USDC.address, raw(5_000, USDC)),)}
    step = with_history(with_limits(step, daily_turnover_bps=6_000), **budgets)

    assert verdict("daily_turnover", step, plan).passed is passed


def test_daily_turnover_used_up_by_itself_binds_no_gas_money() -> None:
    step = with_limits(with_past_costs(overweight_step(), turnover_24h=Fraction(9_000 * USDC_COIN)), daily_turnover_bps=6_000)
    plan = plan_top_up(step, TopUp("gas", ETHER // 100))

    assert verdict("daily_turnover", step, plan).passed
    assert_refused(verdict("daily_turnover", step, sell_weth(step, Fraction(1, 100))), "bps")


# --- daily_loss and total_loss


def test_daily_loss_adds_the_last_day_and_the_worst_case() -> None:
    step = with_limits(overweight_step(), daily_loss_bps=100)
    plan = sell_weth(step)
    worst_cost = given_and_got(plan)[0] - plan.legs[0].min_out_raw
    room_value = 100 * USDC_COIN - worst_cost

    assert worst_cost > sale_cost(plan)
    assert verdict("daily_loss", with_past_costs(step, loss_24h=room_value), plan).passed
    assert_refused(verdict("daily_loss", with_past_costs(step, loss_24h=room_value + TINY), plan), "bps")


def test_daily_loss_refuses_minimums_that_give_half_away() -> None:
    step = with_limits(overweight_step(), daily_loss_bps=100, slippage_bps=5_000)
    plan = sell_weth(step)
    plan = with_leg(plan, 0, min_out_raw=plan.legs[0].amount_out_raw // 2)

    assert sale_cost(plan) < 20 * USDC_COIN
    assert_refused(verdict("daily_loss", step, plan), "bps")
    assert verdict("daily_loss", with_limits(step, daily_loss_bps=2_000), plan).passed


def test_total_loss_adds_all_days_and_the_predicted_cost() -> None:
    step = with_limits(overweight_step(), total_loss_bps=100)
    plan = sell_weth(step)
    room_value = 100 * USDC_COIN - sale_cost(plan)

    assert verdict("total_loss", with_past_costs(step, loss_total=room_value), plan).passed
    assert_refused(verdict("total_loss", with_past_costs(step, loss_total=room_value + TINY), plan), "bps")


def test_losses_say_at_which_cost_the_plan_counts() -> None:
    """On a first day the loss of the day is above the total, which counts the same trades."""
    step = with_limits(overweight_step(), daily_loss_bps=100, total_loss_bps=100)
    plan = sell_weth(step)
    texts = {
        guard: [verdict(guard, step, judged).measured_text.partition("), ")[2] for judged in (plan, exit_plan(plan))]
        for guard in ("daily_loss", "total_loss")
    }

    assert texts == {
        "daily_loss": ["with each swap at its minimum", "at the predicted cost"],
        "total_loss": ["at the predicted cost", "at the predicted cost"],
    }


LOSS_FIELDS = {
    "daily_loss": ("loss_24h", "decrease_24h", "non_trade_loss_24h"),
    "total_loss": ("loss_total", "decrease_total", "reverted_loss_total"),
}
"""Fields of the past by guard: all losses, those of balance decreases, and those from the gas of failed transactions."""


def loss_step(guard: str, loss: Fraction, decrease: Fraction = Fraction(0), gas: Fraction = Fraction(0), limit_bps: int = 100) -> StepInput:
    """Return a step of 10,000 USDC with this past of the guard and its limit."""
    past_fields = dict(zip(LOSS_FIELDS[guard], (loss, decrease, gas), strict=True))
    return with_limits(with_past_costs(overweight_step(), **past_fields), **{f"{guard}_bps": limit_bps})


@pytest.mark.parametrize("guard", LOSS_FIELDS)
def test_loss_of_an_exit_is_of_trades_and_its_predicted_cost(guard: str) -> None:
    plan = exit_plan(sell_weth(overweight_step()))
    decrease_value = Fraction(500 * USDC_COIN)
    gas_value = Fraction(50 * USDC_COIN)  # of a day on which the native coin was cheaper
    room_value = 100 * USDC_COIN - sale_cost(plan) + decrease_value + gas_value

    assert verdict(guard, loss_step(guard, room_value, decrease_value, gas_value), plan).passed
    assert_refused(verdict(guard, loss_step(guard, room_value + TINY, decrease_value, gas_value), plan), "100.01 bps")
    assert_refused(verdict(guard, loss_step(guard, room_value, decrease_value, gas_value), sell_weth(overweight_step())), "bps")


@pytest.mark.parametrize("guard", LOSS_FIELDS)
def test_loss_of_an_exit_is_not_offset_by_larger_decreases(guard: str) -> None:
    plan = exit_plan(sell_weth(overweight_step()))
    step = loss_step(guard, Fraction(0), Fraction(500 * USDC_COIN), limit_bps=3)

    assert sale_cost(plan) > 3 * USDC_COIN
    assert_refused(verdict(guard, step, plan), "bps")


@pytest.mark.parametrize("guard", LOSS_FIELDS)
def test_loss_is_not_offset_by_a_predicted_gain(guard: str) -> None:
    def step_with_loss(loss_raw: int) -> StepInput:
        step = loss_step(guard, Fraction(loss_raw))
        return with_snapshot(step, pools=(v2_pool(WETH, USDC, 2_100),))

    plan = sell_weth(step_with_loss(0))

    assert build_guard_case(step_with_loss(0), plan, evidence(step_with_loss(0), plan)).cost() < 0
    assert verdict(guard, step_with_loss(100 * USDC_COIN), plan).passed
    assert_refused(verdict(guard, step_with_loss(100 * USDC_COIN + 1), plan), "100.01 bps")


@pytest.mark.parametrize("guard", LOSS_FIELDS)
def test_loss_of_an_exit_is_a_share_that_includes_blocked_exits(guard: str) -> None:
    step = loss_step(guard, Fraction(150 * USDC_COIN))
    step = replace(step, blocked_exits=(BlockedExit(WETH.address, "a stop fired", "no pool", 5 * ETHER),))

    assert verdict(guard, step, exit_plan(sell_weth(step))).passed
    assert_refused(verdict(guard, step, sell_weth(step)), "bps")


@pytest.mark.parametrize("guard", LOSS_FIELDS)
@pytest.mark.parametrize(
    ("deposit_usdc", "passed"),
    [
        pytest.param(0, True, id="no deposit"),
        pytest.param(5_000, False, id="half is an automatic deposit"),
    ],
)
def test_loss_is_a_share_without_automatic_deposits_of_the_day(guard: str, deposit_usdc: int, passed: bool) -> None:
    step = loss_step(guard, Fraction(60 * USDC_COIN))
    deposit = balance_change(deposit_usdc * USDC_COIN, kind=ExternalTransferKind.AUTOMATIC)
    step = with_history(step, accepted_deposits=(deposit,))

    assert verdict(guard, step, sell_weth(step)).passed is passed


def test_total_loss_can_be_off() -> None:
    step = with_limits(loss_step("total_loss", Fraction(10**12)), total_loss_bps=None)

    assert verdict("total_loss", step, sell_weth(step)).passed


@pytest.mark.parametrize("guard", ["daily_turnover", "daily_loss"])
def test_daily_limits_refuse_an_unknown_day(guard: str) -> None:
    step = with_past_costs(overweight_step(), unknown_reason="the chain before block 7 cannot be read")

    assert_refused(verdict(guard, step, sell_weth(step)), "unknown", "block 7")


def test_daily_turnover_passes_an_exit_on_an_unknown_day() -> None:
    step = with_past_costs(overweight_step(), unknown_reason="the chain before block 7 cannot be read")

    assert verdict("daily_turnover", step, exit_plan(sell_weth(step))).passed


def test_daily_loss_passes_an_exit_on_unpriced_decreases() -> None:
    reason = "a decrease of LINK has no price"
    step = with_past_costs(overweight_step(), unknown_reason=reason, unpriced_falls_reason=reason)

    assert verdict("daily_loss", step, exit_plan(sell_weth(step))).passed
    assert_refused(verdict("daily_loss", step, sell_weth(step)), reason)


# --- The worst case of a plan.


def test_worst_cost_counts_all_gas_at_its_highest_price() -> None:
    step = with_limits(step_input(values={"WETH": 6_000, "USDC": 4_000}), daily_loss_bps=100)
    plan = sell_weth(step)
    case = build_guard_case(step, plan, evidence(step, plan))
    native_price = case.price(step.portfolio.wrapped_native)
    gas_value = case.worst_gas_wei() * native_price

    assert gas_value > case.plan.gas_units * case.gas_price_wei() * native_price
    assert case.worst_cost() == given_and_got(plan)[0] - plan.legs[0].min_out_raw + gas_value


def test_worst_cost_over_a_hub_counts_the_last_minimum_alone() -> None:
    pools = [v2_pool(WETH, WBTC, Fraction(2_000, 60_000)), v2_pool(WBTC, USDC, 60_000)]
    step = with_limits(step_input(pools=pools, hubs=["WBTC"]), daily_loss_bps=100)
    step = with_snapshot(step, feeds=(*step.snapshot.feeds, *step_input({"WBTC": 5_000, "USDC": 5_000}).snapshot.feeds[:1]))
    plan = plan_of(step, [Swap(pools[0], WETH.address, raw(1, WETH), sink=R), Swap(pools[1], WBTC.address, source=R)])
    case = build_guard_case(step, plan, evidence(step, plan))
    gas_value = case.worst_gas_wei() * case.price(step.portfolio.wrapped_native)

    assert case.worst_cost() == 2_000 * USDC_COIN - plan.legs[1].min_out_raw + gas_value


def test_worst_cost_counts_the_worse_of_feed_and_twap() -> None:
    step = disagreeing_step(30)
    plan = sell_weth(step)
    case = build_guard_case(step, plan, evidence(step, plan))
    worst_cost = given_and_got(plan)[0] - plan.legs[0].min_out_raw

    assert case.disagreement_loss() > 9 * USDC_COIN
    assert case.worst_cost() == worst_cost + case.disagreement_loss()


@given(weth=st.fractions(Fraction(1, 100), Fraction(3, 2)), min_share_bps=st.integers(1, 10_000))
def test_worst_cost_is_what_the_plan_costs_at_its_minimum(weth: Fraction, min_share_bps: int) -> None:
    step = overweight_step()
    plan = sell_weth(step, weth)
    plan = with_leg(plan, 0, min_out_raw=max(1, plan.legs[0].amount_out_raw * min_share_bps // BPS))
    case = build_guard_case(step, plan, evidence(step, plan))

    assert case.worst_cost() >= case.cost()
    assert case.worst_cost() == given_and_got(plan)[0] - plan.legs[0].min_out_raw


# --- balance_jump


def balance_change(
    value: int | None,
    *,
    delta_raw: int | None = None,
    age_s: int = 0,
    exceeds_jump_limit: bool = False,
    kind: ExternalTransferKind | None = None,
) -> ExternalTransfer:
    """Return a change of the balance of USDC by so many base units, or of LINK without a price."""
    changed_raw = value or 0 if delta_raw is None else delta_raw
    changed_token = LINK if value is None else USDC
    change_value = None if value is None else Fraction(value)
    return ExternalTransfer(1, changed_token.address, changed_raw, change_value, 1, 2, NOW_S - age_s, exceeds_jump_limit, kind)


LIMIT_RAW = 200 * USDC_COIN
"""Largest jump of 10,000 USDC at 200 bps."""


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([], id="nothing unexplained"),
        pytest.param([balance_change(LIMIT_RAW)], id="a rise at the limit"),
        pytest.param([balance_change(-LIMIT_RAW)], id="a fall at the limit"),
        pytest.param([balance_change(2 * LIMIT_RAW, age_s=DAY_S)], id="a day old"),
        pytest.param([balance_change(None, delta_raw=1)], id="a rise without a price"),
    ],
)
def test_balance_jump_passes_changes_within_its_limit(changes: list[ExternalTransfer]) -> None:
    step = with_history(step_input(), unexplained_transfers=tuple(changes))

    assert verdict("balance_jump", step, sell_weth(step)).passed


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param([balance_change(LIMIT_RAW + 1)], "200.01 bps", id="a rise one base unit beyond"),
        pytest.param([balance_change(-LIMIT_RAW - 1)], "200.01 bps", id="a fall one base unit beyond"),
        pytest.param([balance_change(LIMIT_RAW), balance_change(-1)], "200.01 bps", id="a rise and a fall add up"),
        pytest.param([balance_change(2 * LIMIT_RAW, age_s=DAY_S - 1)], "400 bps", id="a second less than a day old"),
        pytest.param([balance_change(1, age_s=2 * DAY_S, exceeds_jump_limit=True)], "0.01 bps", id="an old one beyond its limit"),
        pytest.param([balance_change(None, delta_raw=-1)], "no reference price", id="a fall without a price"),
    ],
)
def test_balance_jump_refuses_changes_beyond_its_limit(changes: list[ExternalTransfer], reason: str) -> None:
    step = with_history(step_input(), unexplained_transfers=tuple(changes))

    assert_refused(verdict("balance_jump", step, sell_weth(step)), reason)
    assert verdict("balance_jump", step, exit_plan(sell_weth(step))).passed


# --- min_trade and max_live_value


@pytest.mark.parametrize(("excess", "passed"), [(0, True), (TINY, False)], ids=["at the minimum", "below it"])
def test_min_trade_measures_the_smaller_side(excess: Fraction, passed: bool) -> None:
    plan = plan_of(overweight_step(), [Swap(overweight_step().snapshot.pools[0], USDC.address, 10_040_000)])
    bought_value = Fraction(plan.legs[0].amount_out_raw * 2_000 * USDC_COIN, ETHER)
    step = with_limits(overweight_step(), min_trade=bought_value + excess)

    judged = verdict("min_trade", step, plan)

    assert judged.passed is passed
    assert judged.measured_text.endswith("of WETH")


@pytest.mark.parametrize(("pool_count", "passed"), [(1, False), (2, True)], ids=["8 USDC in one pool", "8 USDC in each of two"])
def test_min_trade_adds_up_over_pools(pool_count: int, passed: bool) -> None:
    step = step_input(pools=[v2_pool(WETH, USDC, 2_000), v3_pool(WETH, USDC, 2_000)])
    sale_raw = raw(Fraction(4, 1_000), WETH)

    assert (
        verdict("min_trade", step, plan_of(step, [Swap(pool, WETH.address, sale_raw) for pool in step.snapshot.pools[:pool_count]])).passed
        is passed
    )


def test_min_trade_counts_no_rest_between_a_sale_and_a_purchase() -> None:
    step = step_input({"WETH": 4_000, "WBTC": 4_000, "USDC": 2_000})
    weth_pool, wbtc_pool = step.snapshot.pools[:2]
    plan = plan_of(step, [Swap(weth_pool, WETH.address, raw(Fraction(1, 4), WETH)), Swap(wbtc_pool, USDC.address, 495 * USDC_COIN)])

    assert abs(dict(plan.holdings_after)[USDC.address] - 2_000 * USDC_COIN) < 10 * USDC_COIN
    assert verdict("min_trade", step, plan).passed


@pytest.mark.parametrize(
    ("limit_raw", "is_exit", "passed"),
    [
        pytest.param(10_000 * USDC_COIN, False, True, id="at the limit"),
        pytest.param(10_000 * USDC_COIN - 1, False, False, id="one base unit beyond"),
        pytest.param(10_000 * USDC_COIN - 1, True, True, id="an exit"),
    ],
)
def test_max_live_value_counts_the_total_without_reserves(limit_raw: int, is_exit: bool, passed: bool) -> None:
    step = with_limits(step_input(reserves={"USDC": 500}), max_live_value=Fraction(limit_raw))
    plan = sell_weth(step)

    assert verdict("max_live_value", step, exit_plan(plan) if is_exit else plan).passed is passed


def test_refusal_above_max_live_value_names_the_command_that_raises_it() -> None:
    step = with_limits(step_input(), max_live_value=Fraction(1))
    command = "trimtab edit --set portfolio.max_live_value=AMOUNT"
    assert command in MAX_LIVE_VALUE.remedy
    assert [command in line for line in max_live_value_warnings(step, decide(step).drifts)] == [True]


# --- What the plan predicts, and what an exit is held to.


@pytest.mark.parametrize("guard", ["plan_cost", "turnover", "daily_loss", "min_trade"])
def test_guards_of_value_ignore_the_predicted_output(guard: str) -> None:
    step = overweight_step()
    plan = sell_weth(step)

    assert verdict(guard, step, with_leg(plan, 0, amount_out_raw=1)) == verdict(guard, step, plan)


@pytest.mark.parametrize("guard", ["plan_cost", "daily_loss"])
def test_guards_of_cost_hold_an_exit_to_its_predicted_cost(guard: str) -> None:
    step = with_limits(with_past_costs(overweight_step(), loss_24h=Fraction(10**9)), plan_cost_bps=1, daily_loss_bps=1)

    assert_refused(verdict(guard, step, exit_plan(sell_weth(step, 1))), "bps")
