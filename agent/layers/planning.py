"""Schedules of a plan by the layers: sent at once, begun in slices, or held."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.layers.futures.planning.hedges import hedge_instead
from agent.layers.futures.planning.plans import plan_decision, without_refused_plan
from agent.layers.gradual import planning as gradual
from agent.layers.liquidity.planning import actions as liquidity
from agent.model import AdjustFutures, AdjustLiquidity, Decision, Plan, Rebalance, StepInput
from agent.policy.decision import DecisionResult

SALE_REPLACERS: tuple[
    Callable[[StepInput, DecisionResult, Rebalance, Plan], tuple[DecisionResult, Plan]], ...
] = (hedge_instead,)
"""Decision and plan of a layer in place of a rebalance that sells."""
PLANNERS: Mapping[type[Decision], Callable[[StepInput, DecisionResult], Plan | StepInput]] = {
    AdjustFutures: plan_decision,
    AdjustLiquidity: liquidity.plan_decision,
}
"""Plan of a layer's decision, by its type; the step in which the layer does nothing if it can do
nothing now.
"""
REFUSED_PLAN_REMOVERS: tuple[
    Callable[[StepInput, Decision, Plan | None, str], StepInput | None], ...
] = (without_refused_plan,)
"""The step without a layer whose plan the guards refused, from the step, its decision, the plan and
the reason; None if the plan is not the layer's, or another could not be sent in its place.
"""
PLAN_SCHEDULERS: tuple[
    Callable[[StepInput, DecisionResult, Rebalance, Plan], tuple[DecisionResult, Plan | None]],
    ...,
] = (gradual.schedule_plan,)


def schedule(
    step: StepInput, decision_result: DecisionResult, decision: Rebalance, plan: Plan
) -> tuple[DecisionResult, Plan | None]:
    """Return decision and plan after each layer's schedule; the first that holds it ends this."""
    scheduled_plan: Plan | None = plan
    for apply_schedule in PLAN_SCHEDULERS:
        if scheduled_plan is None:
            break
        decision_result, scheduled_plan = apply_schedule(
            step, decision_result, decision, scheduled_plan
        )
    return decision_result, scheduled_plan
