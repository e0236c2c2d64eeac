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
HALF = Rebalance("test", Goal(tuple(GoalWeight(one.address, Fraction(1, 2), Fraction(1, 2)) for one in (WETH, USDC))))
UNIT = 2 * GWEI * 2_000 * Fraction(10**6, 10**18)
"""Worth of a unit of gas at 2 gwei, in base units of USDC."""


def world(allowed_raw: int = 0, wei: int = 2 * GWEI) -> StepInput:
    """6,000 of WETH and 4,000 of USDC, and what the router may take of WETH."""
    step = step_input(values={"WETH": 6_000, "USDC": 4_000})
    allowances = (Allowance(WETH.address, ROUTER, allowed_raw), Allowance(USDC.address, ROUTER, 0))
    head = replace(step.snapshot.head, base_fee_wei=wei)
    return with_limits(with_snapshot(step, allowances=allowances, head=head, priority_fee_wei=0), gas_price_wei=None)


def planned(step: StepInput) -> Plan:
    return planner.plan(step, HALF)


def test_a_plan_counts_the_approvals_it_still_needs() -> None:
    assert planned(world(0)).cost.approval_gas == APPROVAL_GAS * UNIT
    assert planned(world(1)).cost.approval_gas == 2 * APPROVAL_GAS * UNIT, "an allowance that is too small is reset first"
    assert planned(world(10**20)).cost.approval_gas == 0
    found = planned(world(0)).cost
    assert found.total == found.fees + found.impact + found.skew + found.gas + found.approval_gas


def test_what_is_swapped_does_not_depend_on_approvals_that_were_mined() -> None:
    assert planned(world(0)).legs == planned(world(10**20)).legs


def test_guards_work_out_the_gas_of_approvals_anew() -> None:
    for allowed_raw, times in ((0, 1), (1, 2), (10**20, 0)):
        step = world(allowed_raw)
        plan = sell_weth(step)
        case = build_guard_case(step, plan, evidence(step, plan))
        units = plan.gas_units + times * APPROVAL_GAS
        assert case.cost() - case.trading_cost() == units * UNIT
        assert case.worst_gas_wei() == units * 5 // 4 * 4 * GWEI


def test_plan_cost_refuses_what_is_within_it_without_its_approvals_only() -> None:
    plan = sell_weth(world(10**20))
    dear = build_guard_case(world(0), plan, evidence(world(0), plan))
    limit = int(dear.cost() * 10_000 / dear.turnover())  # rounded down, so that the dearer one is beyond it
    assert not verdict("plan_cost", with_limits(world(0), plan_cost_bps=limit), plan).passed
    assert verdict("plan_cost", with_limits(world(10**20), plan_cost_bps=limit), plan).passed


def test_the_planner_keeps_to_plan_cost_with_its_approvals() -> None:
    for bps in range(40, 300, 20):
        step = with_limits(world(0, wei=10 * GWEI), plan_cost_bps=bps, min_trade=None)
        try:
            found = planned(step)
        except planner.NothingPlanned:
            continue
        assert verdict("plan_cost", step, found).passed


def test_unwrapping_gas_money_needs_no_approval() -> None:
    plan = replace(sell_weth(world(0)), decision=TopUp("test", 1))
    assert approval_gas_units(world(0), plan) == 0


def test_a_searcher_earns_no_gas_of_approvals() -> None:
    one, other = planned(world(0)), planned(world(10**20))
    step = world(0)
    assert max_extractable_profit(step, one, Fraction(0)) == max_extractable_profit(step, other, Fraction(0))
