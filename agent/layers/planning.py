"""Schedules of a plan by the layers: sent at once, begun in slices, or held."""

from __future__ import annotations

from collections.abc import Callable

from agent.layers.gradual import planning as gradual
from agent.model import Plan, Rebalance, StepInput
from agent.policy.decision import DecisionResult

SCHEDULES: tuple[
    Callable[[StepInput, DecisionResult, Rebalance, Plan], tuple[DecisionResult, Plan | None]],
    ...,
] = (gradual.schedule_plan,)


def schedule(
    step: StepInput, decided: DecisionResult, decision: Rebalance, plan: Plan
) -> tuple[DecisionResult, Plan | None]:
    """Return decision and plan after each layer's schedule; the first that holds it ends this."""
    found: Plan | None = plan
    for change in SCHEDULES:
        if found is None:
            break
        decided, found = change(step, decided, decision, found)
    return decided, found
