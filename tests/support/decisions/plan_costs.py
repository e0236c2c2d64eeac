"""Plans that cost gas and pass the guards of cost."""

from __future__ import annotations

from dataclasses import replace

from agent.model import Plan, Rebalance, StepInput
from tests.support.builders import history


def with_past_costs(step: StepInput, **changes: object) -> StepInput:
    return replace(step, history=history(**changes))


def exit_plan(plan: Plan) -> Plan:
    assert isinstance(plan.decision, Rebalance)
    return replace(plan, decision=replace(plan.decision, is_exit=True))
