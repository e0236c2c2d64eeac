"""The minimum total against the real planner: never too low, and at most so many times what the planner needs."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.errors import Refused
from agent.model import StepInput
from agent.planning.proposals import propose_rebalance
from agent.policy.minimum import GWEI, compute_minimum_total, minimum_total_inputs
from agent.reference import reference_prices
from tests.support.builders import PRICES, history, step_input, token, v3_pool, with_limits, with_snapshot

TARGETS = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}
DEEP = 50_000_000
AT_MOST = Fraction(5, 2)
"""docs/triggers.md: with three assets the formula says up to so many times what the planner needs for a correction."""


def step_at(total: Fraction, gas_wei: int, is_first_purchase: bool) -> StepInput:
    """All in USDC before the first purchase; else WBTC a hair outside its band of 3 points, and everything else at its target."""
    off = 0 if is_first_purchase else Fraction(301, 10_000)
    shares = {symbol: Fraction(bps, 10_000) for symbol, bps in TARGETS.items()}
    value_by_symbol = {"USDC": total} if is_first_purchase else {symbol: total * share for symbol, share in shares.items()}
    if off:
        value_by_symbol = value_by_symbol | {"WBTC": value_by_symbol["WBTC"] + total * off, "USDC": value_by_symbol["USDC"] - total * off}
    value_by_symbol = {symbol: Fraction(value_by_symbol.get(symbol, 0)) for symbol in TARGETS}
    pools = [v3_pool(token(symbol), token("USDC"), PRICES[symbol], DEEP, 500) for symbol in ("WETH", "WBTC")]
    step = step_input(TARGETS, value_by_symbol, pools=pools, past=history(last_rebalance_s=None if is_first_purchase else 1))
    step = with_limits(step, turnover_bps=None, daily_turnover_bps=None)
    return with_snapshot(step, priority_fee_wei=0, gas_price_wei=gas_wei, head=replace(step.snapshot.head, base_fee_wei=gas_wei))


def is_planned(total: Fraction, gas_wei: int, is_first_purchase: bool) -> bool:
    try:
        return propose_rebalance(step_at(total, gas_wei, is_first_purchase)).plan is not None
    except Refused:
        return False


@pytest.mark.parametrize("is_first_purchase", [False, True])
@pytest.mark.parametrize("gas_wei", [GWEI // 20, GWEI, 30 * GWEI])
def test_minimum_total_is_enough_and_little_more_than_needed(gas_wei: int, is_first_purchase: bool) -> None:
    step = step_at(Fraction(10_000), gas_wei, is_first_purchase)
    terms = minimum_total_inputs(step, reference_prices(step), 500)
    assert terms is not None
    minimum = compute_minimum_total(terms)
    minimum_total = minimum.purchase_total if is_first_purchase else minimum.total
    assert minimum_total is not None
    needed = minimum_total / 10**6
    assert is_planned(needed * Fraction(1_001, 1_000), gas_wei, is_first_purchase)
    assert not is_planned(needed / AT_MOST, gas_wei, is_first_purchase)
