"""Which pools are worth their gas on small plans: what goes on from a pool may not hide that the pool alone pays."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import pytest

from agent.errors import Refused
from agent.model import Plan, Pool, StepInput
from agent.planning import planner
from agent.planning.planner import NothingPlanned
from agent.reference import reference_prices
from agent.units import BPS, Value
from tests.support.builders import GWEI, step_input, token, v3_pool, with_limits, with_snapshot
from tests.support.planning_worlds import DEEP, any_problem_with_gas, gap_of, rebalance_to_targets

WETH, WBTC, USDC, USDT, LINK = map(token, ("WETH", "WBTC", "USDC", "USDT", "LINK"))
TARGETS = {"WETH": 3_000, "WBTC": 2_500, "USDC": 2_000, "USDT": 1_500, "LINK": 1_000}
VALUES = {"WETH": 2_799, "WBTC": 2_550, "USDC": 2_040, "USDT": 1_500, "LINK": 1_400}
PRICES = {"WETH": 2_700, "WBTC": 60_000, "USDC": 1, "USDT": 1, "LINK": 21}
POOLS = (
    v3_pool(LINK, WETH, "7/900", 5_000, 3_000),
    v3_pool(WETH, WBTC, "9/200", 200, 500),
    v3_pool(WETH, USDC, 2_700, DEEP, 500),
    v3_pool(WETH, USDT, 2_700, DEEP, 500),
    v3_pool(USDC, USDT, 1, DEEP, 100),
)


def step_with_pools(pools: tuple[Pool, ...] = POOLS, gwei: int = 1) -> StepInput:
    """LINK is 371 dollars above its target, WETH 288 below, the others little; gas of a swap is a third of a dollar."""
    step = step_input(TARGETS, VALUES, PRICES, pools=pools)
    step = with_limits(step, turnover_bps=None, daily_turnover_bps=None, pool_min_value=None)
    return with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=gwei * GWEI), priority_fee_wei=0)


def plan_value(step: StepInput, plan: Plan) -> Value:
    """What a plan saves of the drift at limits.plan_cost a unit, less what it costs; approvals are the same for all."""
    ends = dict(plan.holdings_after)
    values = {address: raw * reference_prices(step).reference_by_token[address].price for address, raw in ends.items()}
    total = sum(values.values(), Fraction(0))
    off = sum((abs(values[asset.token.address] - total * Fraction(asset.target_bps, BPS)) for asset in step.effective_assets), Fraction(0))
    return total - off / 2 * Fraction(step.limits.plan_cost_bps or 0, BPS) - plan.cost.gas


def test_plan_finds_a_swap_that_pays_alone() -> None:
    plan = planner.plan(step_with_pools(), rebalance_to_targets(step_with_pools()))
    assert [(leg.token_in, leg.token_out) for leg in plan.legs] == [(LINK.address, WETH.address)]
    assert gap_of(plan) < 10


@pytest.mark.parametrize("gwei", [1, 2])
def test_no_subset_of_pools_makes_a_better_plan(gwei: int) -> None:
    """Every set of the five pools, each planned by itself."""
    step = step_with_pools(gwei=gwei)
    chosen_value = plan_value(step, planner.plan(step, rebalance_to_targets(step))) if gwei == 1 else None
    best_value = None
    for count in range(1, len(POOLS) + 1):
        for pools in combinations(POOLS, count):
            try:
                subset_value = plan_value(step, planner.plan(step_with_pools(pools, gwei), rebalance_to_targets(step)))
            except Refused:
                continue
            best_value = subset_value if best_value is None else max(best_value, subset_value)
    assert (chosen_value is None) == (best_value is None)
    assert chosen_value is None or best_value is None or chosen_value >= best_value - 1


def test_skipped_blames_cost_where_gas_leaves_under_min_trade() -> None:
    step = with_limits(any_problem_with_gas(51), min_trade=Fraction(100 * 10**6))
    (usdc,) = [item for item in planner.plan(step, rebalance_to_targets(step)).skipped if item.subject == "USDC"]
    assert usdc.why == "1893.10 USDC off target: the amount that gas and the pools' bounds allow is less than limits.min_trade"
    assert usdc.limiting_rule == "limits.plan_cost"


def test_refusal_for_gas__names_costs_and_counts_the_pools() -> None:
    """What gas keeps below min_trade is no bound of the pools, and pools of one reason are named by their number."""
    step = any_problem_with_gas(309)
    with pytest.raises(NothingPlanned) as caught:
        planner.plan(step, rebalance_to_targets(step))
    message = caught.value.message
    assert "pools' bounds allow" not in message
    assert re.search(r"WETH: [0-9.]+ USDC off target: plan_cost allows [0-9.]+; gas [0-9.]+", message)
    assert re.search(r"; each of \d pools: with its gas the plan would exceed limits\.plan_cost", message)
