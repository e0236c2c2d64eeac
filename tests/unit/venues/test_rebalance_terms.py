"""The conditions that a rebalance is sent with: reference prices, and a value floor that holds the plan to its cost limit."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent import codec
from agent.config.build import build_execution
from agent.config.load import parse_config
from agent.errors import Refused
from agent.model import StepInput
from agent.ports import Grant
from agent.reference import reference_prices
from agent.units import NATIVE, floor_int
from agent.venues.calldata import min_balance_changes
from agent.venues.composer import prices_with_native, rebalancer_terms
from tests.support import signing
from tests.support.builders import step_input, token, v2_pool, v3_pool
from tests.support.configs.samples import config_text
from tests.support.plans import R, Swap, plan_of
from tests.support.signing import PLAN, STRANGER, SWAP_GRANT, leg, rebalancing_grant_of
from tests.support.text import raises_code, raises_field

TARGETS = {"USDC": 4_000, "WETH": 3_000, "WBTC": 3_000}
WETH_USDC = v2_pool(token("WETH"), token("USDC"), 2_000, 1_000_000)
WBTC_USDC = v3_pool(token("WBTC"), token("USDC"), 60_000, 10_000_000, 3_000)
AT = {symbol: token(symbol).address for symbol in TARGETS}


def step(**limits: object) -> StepInput:
    step = step_input(TARGETS, {"USDC": 50_000, "WETH": 30_000, "WBTC": 20_000}, pools=[WETH_USDC, WBTC_USDC])
    return replace(step, limits=replace(step.limits, **limits))  # type: ignore[arg-type]  # keywords are field names


def value(step: StepInput, changes: dict[str, int]) -> Fraction:
    prices = prices_with_native(step.portfolio, reference_prices(step))
    return sum((raw * prices[at] for at, raw in changes.items()), Fraction(0))


CHAIN = [Swap(WETH_USDC, AT["WETH"], 10**18, sink=R), Swap(WBTC_USDC, AT["USDC"], source=R)]


def test_prices__are_the_reference_for_what_the_wallet_trades() -> None:
    priced_step = step(slippage_bps=30)
    terms = rebalancer_terms(priced_step, plan_of(priced_step, CHAIN))
    assert terms.prices == {
        at: prices_with_native(priced_step.portfolio, reference_prices(priced_step))[at] for at in (AT["WETH"], AT["WBTC"])
    }
    assert terms.prices[AT["WETH"]] == Fraction(2_000 * 10**6, 10**18)


def test_plan__may_not_cost_in_the_end_more_than_predicted() -> None:
    priced_step = step(slippage_bps=300, plan_cost_bps=90)
    plan = plan_of(priced_step, CHAIN)
    sold = value(priced_step, {AT["WETH"]: 10**18})
    assert rebalancer_terms(priced_step, plan).min_value_change_raw == floor_int(-sold * Fraction(90, 10_000)) - 1
    assert rebalancer_terms(priced_step, plan).min_value_change_raw > value(priced_step, min_balance_changes(plan.legs)), (
        "the minimums alone would let it lose 3 %"
    )


def test_minimums_that_are_stricter_than_plan_cost_are_the_floor() -> None:
    priced_step = step(slippage_bps=30, plan_cost_bps=500)
    plan = plan_of(priced_step, CHAIN)
    assert rebalancer_terms(priced_step, plan).min_value_change_raw == floor_int(value(priced_step, min_balance_changes(plan.legs))) - 1


def test_with_plan_cost_switched_off_the_minimums_are_the_floor() -> None:
    priced_step = step(slippage_bps=300, plan_cost_bps=None)
    plan = plan_of(priced_step, CHAIN)
    assert rebalancer_terms(priced_step, plan).min_value_change_raw == floor_int(value(priced_step, min_balance_changes(plan.legs))) - 1


def test_the_native_coin_is_worth_its_wrapped_token() -> None:
    priced_step = step(slippage_bps=30)
    assert (
        prices_with_native(priced_step.portfolio, reference_prices(priced_step))[NATIVE]
        == prices_with_native(priced_step.portfolio, reference_prices(priced_step))[priced_step.portfolio.wrapped_native]
    )


def test_a_token_without_reference_price_is_named() -> None:
    with raises_code(Refused, "reference_price", STRANGER):
        rebalancer_terms(step(slippage_bps=30), signing.plan_of(leg(AT["WETH"], STRANGER, 10**18, 5)))


def test_grant_with_prices__survives_the_journal() -> None:
    grant = rebalancing_grant_of(PLAN)
    assert codec.loads(Grant, codec.dumps(grant)) == grant
    old = {key: part for key, part in codec.to_jsonable(SWAP_GRANT).items() if key not in ("prices", "min_value_change_raw")}
    assert codec.from_jsonable(Grant, old) == SWAP_GRANT


def test_the_config_names_router_and_contract() -> None:
    address = "0x" + "12" * 20
    named = parse_config(config_text(('router = "swap_router_02"', f'router = "rebalancer"\nrebalancer = "{address}"')))
    execution = build_execution(named, ())
    assert (execution.router_kind, execution.router, execution.sweeps_outputs) == ("rebalancer", address, False)
    router_execution = build_execution(parse_config(config_text()), ())
    assert (router_execution.router_kind, router_execution.sweeps_outputs) == ("swap_router_02", True)
    assert replace(router_execution, router_kind="rebalancer", router=address, sweeps_outputs=False) == execution
    with raises_field("execution.rebalancer"):
        build_execution(parse_config(config_text(('router = "swap_router_02"', 'router = "rebalancer"'))), ())
    with raises_field("execution.router", "router"):
        parse_config(config_text(('router = "swap_router_02"', 'router = "universal"')))
