"""The gas of approvals that a plan still needs is part of its cost, its worst case and what the guards judge."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.guards.case import build_guard_case
from agent.guards.sandwich import max_extractable_profit
from agent.model import Allowance, Goal, GoalWeight, Plan, Rebalance, StepInput, TopUp
from agent.planning import planner
from agent.planning.approval_gas import approval_gas_units
from agent.policy.minimum import APPROVAL_GAS
from tests.support.builders import GWEI, ROUTER, step_input, token, with_limits, with_snapshot
from tests.support.plans import evidence, sell_weth, verdict

WETH, USDC = token("WETH"), token("USDC")
HALF = Rebalance("test", Goal(tuple(GoalWeight(asset.address, Fraction(1, 2), Fraction(1, 2)) for asset in (WETH, USDC))))
UNIT = 2 * GWEI * 2_000 * Fraction(10**6, 10**18)
"""Worth of a unit of gas at 2 gwei, in base units of USDC."""


def step_with_allowance(allowed_raw: int = 0, wei: int = 2 * GWEI) -> StepInput:
    """6,000 of WETH and 4,000 of USDC, and what the router may take of WETH."""
    step = step_input(values={"WETH": 6_000, "USDC": 4_000})
    allowances = (Allowance(WETH.address, ROUTER, allowed_raw), Allowance(USDC.address, ROUTER, 0))
    head = replace(step.snapshot.head, base_fee_wei=wei)
    return with_limits(with_snapshot(step, allowances=allowances, head=head, priority_fee_wei=0), gas_price_wei=None)


def half_plan(step: StepInput) -> Plan:
    return planner.plan(step, HALF)


def test_plan_counts_the_approvals_that_it_still_needs() -> None:
    assert half_plan(step_with_allowance(0)).cost.approval_gas == APPROVAL_GAS * UNIT
    assert half_plan(step_with_allowance(1)).cost.approval_gas == 2 * APPROVAL_GAS * UNIT, "an allowance that is too small is reset first"
    assert half_plan(step_with_allowance(10**20)).cost.approval_gas == 0
    cost = half_plan(step_with_allowance(0)).cost
    assert cost.total == cost.fees + cost.impact + cost.skew + cost.gas + cost.approval_gas


def test_swaps_do_not_depend_on_mined_approvals() -> None:
    assert half_plan(step_with_allowance(0)).legs == half_plan(step_with_allowance(10**20)).legs


def test_guards_compute_approval_gas_themselves() -> None:
    for allowed_raw, times in ((0, 1), (1, 2), (10**20, 0)):
        step = step_with_allowance(allowed_raw)
        plan = sell_weth(step)
        case = build_guard_case(step, plan, evidence(step, plan))
        units = plan.gas_units + times * APPROVAL_GAS
        assert case.cost() - case.trading_cost() == units * UNIT
        assert case.worst_gas_wei() == units * 5 // 4 * 4 * GWEI


def test_plan_cost_guard_counts_approval_gas() -> None:
    plan = sell_weth(step_with_allowance(10**20))
    dear = build_guard_case(step_with_allowance(0), plan, evidence(step_with_allowance(0), plan))
    limit = int(dear.cost() * 10_000 / dear.turnover())  # rounded down, so that the dearer one is beyond it
    assert not verdict("plan_cost", with_limits(step_with_allowance(0), plan_cost_bps=limit), plan).passed
    assert verdict("plan_cost", with_limits(step_with_allowance(10**20), plan_cost_bps=limit), plan).passed


def test_planner_keeps_to_plan_cost_with_approval_gas() -> None:
    for bps in range(40, 300, 20):
        step = with_limits(step_with_allowance(0, wei=10 * GWEI), plan_cost_bps=bps, min_trade=None)
        try:
            plan = half_plan(step)
        except planner.NothingPlanned:
            continue
        assert verdict("plan_cost", step, plan).passed


def test_top_up_needs_no_approval() -> None:
    plan = replace(sell_weth(step_with_allowance(0)), decision=TopUp("test", 1))
    assert approval_gas_units(step_with_allowance(0), plan) == 0


def test_searcher_earns_no_approval_gas() -> None:
    unapproved_plan, approved_plan = half_plan(step_with_allowance(0)), half_plan(step_with_allowance(10**20))
    step = step_with_allowance(0)
    assert max_extractable_profit(step, unapproved_plan, Fraction(0)) == max_extractable_profit(step, approved_plan, Fraction(0))
