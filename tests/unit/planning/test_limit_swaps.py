"""Tests of agent/planning/limit_swaps.py: a swap fires at its price to the base unit, and its minimums enforce that price on chain."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import guards
from agent.amm.swap_errors import KnownTicksExceeded
from agent.amm.v3.pool import V3Pool
from agent.model import NATIVE_VENUE, Leg, LegPlace, Plan, StepInput
from agent.planning import planner, proposals
from agent.planning.limit_swaps import limit_reached, plan_limit_swap, with_raised_minimums
from agent.units import NATIVE, price_text
from tests.support.builders import ETHER, step_input, v2_pool, v3_pool, with_limits
from tests.support.decisions.native_coin import native_step
from tests.support.gradual_execution import roomy
from tests.support.plans import evidence
from tests.support.signing import leg, plan_of
from tests.support.tokens import USDC, WETH

UNIT_PRICES = {USDC.address: Fraction(1)}


def deep_step() -> StepInput:
    return with_limits(step_input(), turnover_bps=None, daily_turnover_bps=None)


def weth_sale(step: StepInput) -> Plan:
    """Return the plan of a manual swap of one WETH."""
    return planner.plan_swap(step, WETH.address, USDC.address, ETHER)


def output_raw(plan: Plan) -> int:
    return sum(leg.amount_out_raw for leg in plan.legs if leg.sink is LegPlace.WALLET)


def limit_sale(step: StepInput, min_output_raw: int) -> tuple[Plan | None, str]:
    """Plan the sale of one WETH for at least this much USDC."""
    return plan_limit_swap(step, WETH.address, USDC.address, ETHER, Fraction(min_output_raw, ETHER))


# --- Whether the price is reached


def test_limit_swap_fires_at_its_price() -> None:
    step = deep_step()
    most_raw = output_raw(weth_sale(step))

    plan, wait_reason = limit_sale(step, most_raw)

    assert plan is not None
    assert wait_reason == ""
    assert output_raw(plan) == most_raw


def test_limit_swap_waits_one_base_unit_beyond_its_price() -> None:
    step = deep_step()
    most_raw = output_raw(weth_sale(step))

    plan, wait_reason = limit_sale(step, most_raw + 1)

    assert plan is None
    assert wait_reason == f"its price is {price_text(Fraction(most_raw, ETHER), 18, 6)} USDC per WETH now"


@pytest.mark.parametrize(("beyond_wei", "fires"), [pytest.param(0, True, id="at its price"), pytest.param(1, False, id="one wei beyond")])
def test_limit_swap_counts_native_coin_that_it_buys(beyond_wei: int, fires: bool) -> None:
    """The wallet lacks gas money, so that the purchase is paid out in native coin."""
    step = native_step(0, weth=20_000, usdc=20_000)
    sold_raw = 2_000 * 10**6
    usual_plan = planner.plan_swap(step, USDC.address, WETH.address, sold_raw)
    assert {leg.token_out for leg in usual_plan.legs if leg.sink is LegPlace.WALLET} == {NATIVE}
    limit_price = Fraction(output_raw(usual_plan) + beyond_wei, sold_raw)

    plan, _ = plan_limit_swap(step, USDC.address, WETH.address, sold_raw, limit_price)

    assert (plan is not None) is fires


def test_limit_swap_that_cannot_be_planned_waits() -> None:
    plan, wait_reason = plan_limit_swap(deep_step(), WETH.address, USDC.address, 10**24, Fraction(1, ETHER))

    assert plan is None
    assert wait_reason.startswith("it cannot be planned now: ")
    assert "spendable balance" in wait_reason


def pool_with_few_ticks(width: int) -> V3Pool:
    pool = v3_pool(WETH, USDC, 2_000, 50_000_000)
    return replace(pool, ticks=(), known_from_tick=pool.tick - width, known_to_tick=pool.tick + width)


@pytest.mark.parametrize(
    ("has_other_pool", "message"),
    [
        pytest.param(False, "it cannot be planned now: ", id="swap does not fit"),
        pytest.param(True, "its price is ", id="price is not reached"),
    ],
)
def test_limit_swap_asks_for_more_ticks_that_might_give_its_price(has_other_pool: bool, message: str) -> None:
    near = pool_with_few_ticks(2)
    pools = [near, v2_pool(WETH, USDC, 2_000, 2_000_000_000, fee_pips=10_000)] if has_other_pool else [near]
    step = step_input(None, {"WETH": 2_000_000, "USDC": 2_000_000}, pools=pools)
    step = with_limits(step, pool_min_value=None, turnover_bps=None)

    with pytest.raises(KnownTicksExceeded) as raised:
        plan_limit_swap(step, WETH.address, USDC.address, 500 * ETHER, Fraction(2_001 * 10**6, ETHER))

    assert raised.value.message.startswith(message)
    assert raised.value.pool_addresses == (near.address,)


# --- Minimums


def test_limit_swap_lowers_no_minimum_for_a_low_price() -> None:
    step = deep_step()

    plan, _ = limit_sale(step, 1)

    assert plan == weth_sale(step)


def test_limit_swap_raises_minimums_to_its_price() -> None:
    step = deep_step()
    usual_plan = weth_sale(step)
    min_output_raw = output_raw(usual_plan) - 5

    plan, _ = limit_sale(step, min_output_raw)

    assert sum(leg.min_out_raw for leg in plan.legs) >= min_output_raw > sum(leg.min_out_raw for leg in usual_plan.legs)
    assert all(leg.min_out_raw <= leg.amount_out_raw for leg in plan.legs)


def test_purchase_that_refills_gas_enforces_its_price_too() -> None:
    step = native_step(ETHER // 50, 500, 10_000, native_floor_wei=ETHER // 20)
    usual_plan = planner.plan_swap(step, USDC.address, WETH.address, 1_000 * 10**6)
    output_raw = usual_plan.legs[-1].amount_out_raw

    plan, _ = plan_limit_swap(step, USDC.address, WETH.address, 1_000 * 10**6, Fraction(output_raw, 1_000 * 10**6))

    assert [leg.venue == NATIVE_VENUE for leg in plan.legs] == [False, True]
    assert {leg.min_out_raw for leg in plan.legs} == {output_raw} != {leg.min_out_raw for leg in usual_plan.legs}
    assert plan_limit_swap(step, USDC.address, WETH.address, 1_000 * 10**6, Fraction(output_raw + 1, 1_000 * 10**6))[0] is None


ROUTER_LEG = leg(WETH.address, "HUB", 9, 300, sink=LegPlace.ROUTER, pool="pool", min_out_raw=290)
SMALL_LEG = leg(WETH.address, USDC.address, 9, 501, pool="pool", min_out_raw=495)
LARGE_LEG = leg(WETH.address, USDC.address, 9, 1_000, pool="pool", min_out_raw=990)


ALL_LEGS = (ROUTER_LEG, SMALL_LEG, LARGE_LEG)
UNWRAPPED_LEG = replace(LARGE_LEG, token_out=WETH.address, amount_out_raw=500, min_out_raw=490, sink=LegPlace.ROUTER)
PAYOUT = leg(WETH.address, NATIVE, 500, 500, venue=NATIVE_VENUE, source=LegPlace.ROUTER, pool="weth", min_out_raw=490)
REFILL = replace(PAYOUT, source=LegPlace.WALLET, min_out_raw=500)
NATIVE_PRICES = UNIT_PRICES | {NATIVE: Fraction(1)}


@pytest.mark.parametrize(
    ("legs", "prices", "min_value", "minimums_raw"),
    [
        pytest.param(ALL_LEGS, UNIT_PRICES, 1_480, (290, 495, 990), id="below every minimum"),
        pytest.param(ALL_LEGS, UNIT_PRICES, 1_483, (290, 495, 990), id="at the minimum of a leg"),
        pytest.param(ALL_LEGS, UNIT_PRICES, 1_490, (290, 498, 993), id="same share, rounded up"),
        pytest.param(ALL_LEGS, UNIT_PRICES, 1_501, (290, 501, 1_000), id="all that the legs pay"),
        pytest.param(ALL_LEGS, UNIT_PRICES, 1_502, (290, 501, 1_000), id="more than they pay"),
        pytest.param((UNWRAPPED_LEG, PAYOUT, LARGE_LEG), NATIVE_PRICES, 1_491, (497, 497, 994), id="unwrapping rises with its leg"),
        pytest.param((UNWRAPPED_LEG, PAYOUT), NATIVE_PRICES, 500, (500, 500), id="all is unwrapped"),
        pytest.param((LARGE_LEG, REFILL), NATIVE_PRICES, 1_000, (1_000, 500), id="unwrapping of the wallet's coin stays"),
        pytest.param((), UNIT_PRICES, 1, (), id="no legs"),
        pytest.param((ROUTER_LEG,), UNIT_PRICES, 1, (290,), id="router leg alone"),
        pytest.param((SMALL_LEG,), {}, 1, (495,), id="output without a price"),
    ],
)
def test_raised_minimums_are_the_same_share_of_each_leg(
    legs: tuple[Leg, ...], prices: dict[str, Fraction], min_value: int, minimums_raw: tuple[int, ...]
) -> None:
    raised_plan = with_raised_minimums(plan_of(*legs), prices, Fraction(min_value))

    assert raised_plan == plan_of(*(replace(leg, min_out_raw=raw) for leg, raw in zip(legs, minimums_raw, strict=True)))


@pytest.mark.parametrize(("min_value", "is_reached"), [(1_501, True), (Fraction(15_011, 10), False)])
def test_limit_is_reached_at_the_exact_value_of_all_payouts(min_value: Fraction, is_reached: bool) -> None:
    assert limit_reached(plan_of(*ALL_LEGS), UNIT_PRICES, Fraction(min_value)) is is_reached


def test_raised_minimums_pass_every_guard() -> None:
    step = deep_step()
    usual_plan = weth_sale(step)

    plan, _ = limit_sale(step, output_raw(usual_plan))

    assert plan is not None
    passed_before = {verdict.guard: verdict.passed for verdict in guards.judge(step, usual_plan, evidence(step, usual_plan))}
    passed_after = {verdict.guard: verdict.passed for verdict in guards.judge(step, plan, evidence(step, plan))}
    assert passed_before == passed_after
    assert passed_before["slippage"]


def test_raised_minimums_of_a_rebalance_enforce_its_value() -> None:
    step = roomy(step_input({"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000}, {"WETH": 6_000, "WBTC": 1_500, "USDC": 2_500}, depth=5_000_000))
    proposal = proposals.propose_rebalance(step)
    prices = proposal.decision_result.references.price_by_token
    paying_legs = [leg for leg in proposal.plan.legs if leg.sink is LegPlace.WALLET]
    min_value = sum((leg.amount_out_raw * prices[leg.token_out] for leg in paying_legs), Fraction(0)) * Fraction(9_995, 10_000)

    raised_plan = with_raised_minimums(proposal.plan, prices, min_value)

    raised_legs = [leg for leg in raised_plan.legs if leg.sink is LegPlace.WALLET]
    assert [leg.min_out_raw for leg in raised_legs] == [
        max(leg.min_out_raw, -(-leg.amount_out_raw * 9_995 // 10_000)) for leg in paying_legs
    ]
    assert sum((leg.min_out_raw * prices[leg.token_out] for leg in raised_legs), Fraction(0)) >= min_value
