"""Plans of the layers: of their own decisions, and in place of the core's plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.errors import Refused
from agent.layers.futures.planning import hedges
from agent.layers.futures.planning import plans as futures
from agent.layers.gradual import planning as gradual
from agent.layers.liquidity.planning import actions as liquidity
from agent.layers.liquidity.planning.requests import plan_full_withdrawal
from agent.model import AdjustFutures, AdjustLiquidity, Decision, Halt, Plan, Rebalance, StepInput
from agent.policy.decision import DecisionResult


@dataclass(frozen=True, slots=True)
class LayerPlanner:
    """Plans of a layer."""

    plan_decision: Callable[[StepInput, DecisionResult], Plan | StepInput]
    """Plan of the layer's decision; the step in which the layer does nothing if it can do nothing
    now.
    """
    without_refused_plan: Callable[[StepInput, Decision, Plan | None, str], StepInput | None] = (
        lambda *_: None
    )
    """The step without the layer, whose plan the guards refused, from the step, its decision, the
    plan and the reason; None if another could not be sent in its place.
    """
    plan_release: Callable[[StepInput], Plan | Halt | Refused | None] = lambda _: None
    """What the layer frees before the wallet's assets are sold for the shutdown: its plan, the
    refusal of that plan or the halt of the step; None if there is nothing.
    """


PLANNERS: Mapping[type[Decision], LayerPlanner] = {
    AdjustFutures: LayerPlanner(futures.plan_decision, futures.without_refused_plan),
    AdjustLiquidity: LayerPlanner(liquidity.plan_decision, plan_release=plan_full_withdrawal),
}
"""Planner of a layer, by the type of its decision."""
PLAN_AMENDERS: tuple[
    Callable[[StepInput, DecisionResult, Rebalance, Plan], tuple[DecisionResult, Plan | None]],
    ...,
] = (hedges.hedge_instead, gradual.schedule_plan)
"""Changes of a rebalance's plan, in order: hedges in place of sales; sent at once, in slices or
not yet.
"""


def amend_plan(
    step: StepInput, decision_result: DecisionResult, plan: Plan
) -> tuple[DecisionResult, Plan | None]:
    """Return decision and plan after the changes; a plan that is held (None) or is no rebalance any
    more is not changed further.
    """
    amended_plan: Plan | None = plan
    for amend in PLAN_AMENDERS:
        if amended_plan is None or not isinstance(amended_plan.decision, Rebalance):
            break
        decision_result, amended_plan = amend(
            step, decision_result, amended_plan.decision, amended_plan
        )
    return decision_result, amended_plan
