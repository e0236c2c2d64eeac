"""A zone's plan on the scales: the risk it takes away against everything it costs."""

from __future__ import annotations

from collections.abc import Mapping

from agent.model import Goal, Plan, Saving, TrackingRisk
from agent.planning.problem import Problem
from agent.policy.risk import penalty
from agent.units import Value


def saving(problem: Problem, goal: Goal, risk: TrackingRisk, found: Plan, delta: Mapping[str, int]) -> Saving:
    """What `found` saves of the risk over the horizon, at reference prices, and its costs, approvals that are short included.

    `delta` is what its swaps change of each token in base units, native coin counted as its wrapped token.
    """
    before = {node.address: node.value for node in problem.assets}
    after = {token: value + delta.get(token, 0) * problem.price(token) for token, value in before.items()}
    cost = found.cost
    return Saving(
        before=_penalty(problem, goal, risk, before),
        after=_penalty(problem, goal, risk, after),
        fees=cost.fees,
        impact=cost.impact,
        skew=cost.skew,
        gas=cost.gas,
        approvals=cost.approvals,
    )


def _penalty(problem: Problem, goal: Goal, risk: TrackingRisk, values: dict[str, Value]) -> Value:
    tokens = [weight.token for weight in goal.weights]
    return penalty(risk, tokens, [weight.low for weight in goal.weights], [values[token] for token in tokens], problem.total)
