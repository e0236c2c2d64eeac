"""A zone's plan on the scales: the risk it takes away against everything it costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from agent.model import Funding, Goal, Plan, Saving, StepInput, TrackingRisk
from agent.planning.gas import gas_value
from agent.planning.problem import Problem
from agent.policy.minimum import APPROVAL_GAS
from agent.policy.risk import penalty
from agent.units import NATIVE, Value


def saving(step: StepInput, problem: Problem, goal: Goal, risk: TrackingRisk, found: Plan, delta: Mapping[str, int]) -> Saving:
    """What `found` saves of the risk over the horizon, at reference prices, and its costs, approvals that are short included.

    `delta` is what its swaps change of each token in base units, native coin counted as its wrapped token.
    """
    before = {node.address: node.value for node in problem.assets}
    after = {token: value + delta.get(token, 0) * problem.price(token) for token, value in before.items()}
    approvals = gas_value(APPROVAL_GAS * lacking(step, found), 1, problem.gas_unit_value)
    cost = found.cost
    return Saving(
        before=_penalty(problem, goal, risk, before),
        after=_penalty(problem, goal, risk, after),
        fees=cost.fees,
        impact=cost.impact,
        skew=cost.skew,
        gas=cost.gas,
        approvals=approvals,
    )


def _penalty(problem: Problem, goal: Goal, risk: TrackingRisk, values: dict[str, Value]) -> Value:
    tokens = [weight.token for weight in goal.weights]
    return penalty(risk, tokens, [weight.low for weight in goal.weights], [values[token] for token in tokens], problem.total)


def lacking(step: StepInput, found: Plan) -> int:
    """How many approvals the plan lacks: one for a token that the router may not take, two where an allowance is too small."""
    spender = step.execution.router
    allowed = {item.token: item.raw for item in step.snapshot.allowances if item.spender == spender}
    spent: dict[str, int] = defaultdict(int)
    for leg in found.legs:
        if leg.source is Funding.WALLET:
            spent[leg.token_in] += leg.amount_in_raw
    short = [allowed.get(token, 0) for token, raw in spent.items() if token != NATIVE and allowed.get(token, 0) < raw]
    return sum(2 if raw > 0 else 1 for raw in short)
