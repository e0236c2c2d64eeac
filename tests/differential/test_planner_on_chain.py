"""Plans in the deployed contracts: what they predict is what the chain pays, to the wei, and their gas is what they said."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.localchain import LocalChain
from agent.model import LegPlace
from agent.planning.planner import plan, plan_swap, quote
from agent.units import BPS
from tests.support.planning_worlds import rebalance_to_targets
from tests.support.plans import execute, hold, step_of
from tests.support.samples import slow
from tests.support.wallets import Desk
from tests.support.worlds import price_now

TARGETS = {"WETH": 3_000, "WBTC": 2_500, "USDC": 2_000, "USDT": 1_500, "LINK": 1_000}


MIXES = (
    {"WETH": 5_000, "WBTC": 1_000, "USDC": 3_000, "USDT": 700, "LINK": 300},
    {"WETH": 300, "WBTC": 5_200, "USDC": 500, "USDT": 3_000, "LINK": 1_000},
    {"WETH": 0, "WBTC": 0, "USDC": 0, "USDT": 10_000, "LINK": 0},
    {"WETH": 400_000, "WBTC": 10_000, "USDC": 100_000, "USDT": 20_000, "LINK": 70_000},
)


@pytest.mark.parametrize("values", [*slow(MIXES[:1]), *MIXES[1:]])
def test_five_assets__reach_their_targets_to_the_wei(anvil_chain: LocalChain, values: dict[str, int]) -> None:
    hold(anvil_chain, values)
    step = step_of(anvil_chain, TARGETS)
    desk = Desk(anvil_chain)
    swap_plan = plan(step, rebalance_to_targets(step))
    desk.approve_for(swap_plan)
    receipt = desk.swap(swap_plan)
    assert receipt.status == 1
    after = desk.balances()
    assert {step.portfolio.token(at).symbol: raw for at, raw in swap_plan.holdings_after} == after
    total = sum(after[s] * anvil_chain.deployed_world.prices_usd[s] / 10 ** anvil_chain.tokens[s].decimals for s in TARGETS)
    for symbol, target_bps in TARGETS.items():
        value = after[symbol] * anvil_chain.deployed_world.prices_usd[symbol] / 10 ** anvil_chain.tokens[symbol].decimals
        assert abs(value / total * BPS - target_bps) <= 10, (symbol, swap_plan.skipped)
    assert Fraction(4, 5) <= Fraction(receipt.gas_used, swap_plan.gas_units) <= Fraction(5, 4)


def test_plan__moves_no_real_pool_beyond_its_bound(anvil_chain: LocalChain) -> None:
    hold(anvil_chain, {"WETH": 100_000, "WBTC": 100_000, "USDC": 100_000, "USDT": 100_000, "LINK": 2_000_000})
    step = step_of(anvil_chain, TARGETS)
    desk = Desk(anvil_chain)
    swap_plan = plan(step, rebalance_to_targets(step))
    before = {name: price_now(anvil_chain, name) for name in anvil_chain.address_by_pool}
    desk.approve_for(swap_plan)
    assert desk.swap(swap_plan).status == 1
    moves = {name: abs(price_now(anvil_chain, name) / was - 1) for name, was in before.items()}
    assert max(moves.values()) <= Fraction(102, 10_000), "1 % of the price of what is sold, up to 1/0.99 of its inverse"
    assert any("price_impact" in item.why for item in swap_plan.skipped)


def test_a_swap_by_hand_pays_what_plan_and_quote_said(anvil_chain: LocalChain) -> None:
    hold(anvil_chain, {"WETH": 300_000})
    step = step_of(anvil_chain, TARGETS)
    desk = Desk(anvil_chain)
    weth = desk.at("WETH")
    usdt = desk.at("USDT")
    amount = 80 * 10**18
    plan = plan_swap(step, weth, usdt, amount)
    promised = quote(step, weth, usdt, amount).amount_out_raw
    before = desk.balances()
    desk.approve_for(plan)
    assert desk.swap(plan).status == 1
    after = desk.balances()
    bought_raw = sum(leg.amount_out_raw for leg in plan.legs if leg.sink is LegPlace.WALLET)
    assert after["WETH"] - before["WETH"] == -amount
    assert after["USDT"] - before["USDT"] == bought_raw == promised
    assert len(plan.legs) >= 2, "80 WETH are worth a split"


@pytest.mark.parametrize("seed", [3, 8, 10])
def test_random_plan__ends_as_said_or_names_its_bound(anvil_chain: LocalChain, seed: int) -> None:
    """A hundred of these, with tokens of 0 and 24 decimals, is `make plans`."""
    outcome = execute(anvil_chain, seed)
    assert outcome.plan is not None
    assert outcome.plan.legs
    assert outcome.exact, "realised is not what was planned"
    assert outcome.explained, str(outcome)
