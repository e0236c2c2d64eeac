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


def standing(total: Fraction, gas_wei: int, first: bool) -> StepInput:
    """All in USDC before the first purchase; else WBTC a hair outside its band of 3 points, and everything else at its target."""
    off = 0 if first else Fraction(301, 10_000)
    shares = {symbol: Fraction(bps, 10_000) for symbol, bps in TARGETS.items()}
    held = {"USDC": total} if first else {symbol: total * share for symbol, share in shares.items()}
    if off:
        held = held | {"WBTC": held["WBTC"] + total * off, "USDC": held["USDC"] - total * off}
    held = {symbol: Fraction(held.get(symbol, 0)) for symbol in TARGETS}
    pools = [v3_pool(token(symbol), token("USDC"), PRICES[symbol], DEEP, 500) for symbol in ("WETH", "WBTC")]
    step = step_input(TARGETS, held, pools=pools, past=history(last_rebalance_s=None if first else 1))
    step = with_limits(step, turnover_bps=None, daily_turnover_bps=None)
    return with_snapshot(step, priority_fee_wei=0, gas_price_wei=gas_wei, head=replace(step.snapshot.head, base_fee_wei=gas_wei))


def works(total: Fraction, gas_wei: int, first: bool) -> bool:
    try:
        return propose_rebalance(standing(total, gas_wei, first)).plan is not None
    except Refused:
        return False


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("gas_wei", [GWEI // 20, GWEI, 30 * GWEI])
def test_the_planner_works_at_the_least_total_and_not_far_below_it(gas_wei: int, first: bool) -> None:
    step = standing(Fraction(10_000), gas_wei, first)
    terms = minimum_total_inputs(step, reference_prices(step))
    assert terms is not None
    found = compute_minimum_total(terms)
    said = found.purchase_total if first else found.total
    assert said is not None
    needed = said / 10**6
    assert works(needed * Fraction(1_001, 1_000), gas_wei, first)
    assert not works(needed / AT_MOST, gas_wei, first)
