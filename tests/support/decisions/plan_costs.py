"""Plans that cost gas and pass the guards of cost."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.model import Plan, Rebalance, StepInput
from tests.support.builders import history, step_input, with_snapshot


def with_past_costs(step: StepInput, **changes: object) -> StepInput:
    return replace(step, history=history(**changes))


def overweight_step() -> StepInput:
    """6,000 of WETH and 4,000 of USDC, gas for nothing."""
    step = step_input(values={"WETH": 6_000, "USDC": 4_000})
    return with_snapshot(step, priority_fee_wei=0, head=replace(step.snapshot.head, base_fee_wei=0))


def given_and_got(plan: Plan) -> tuple[Fraction, Fraction]:
    """Values by hand: WETH at 2,000, in USDC base units."""
    leg = plan.legs[0]
    return Fraction(leg.amount_in_raw * 2_000 * 10**6, 10**18), Fraction(leg.amount_out_raw)


def exit_plan(plan: Plan) -> Plan:
    assert isinstance(plan.decision, Rebalance)
    return replace(plan, decision=replace(plan.decision, is_exit=True))
