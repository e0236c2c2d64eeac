"""Keys of the layers in documents about a step and a plan."""

from __future__ import annotations

from agent.layers.gradual import documents as gradual
from agent.model import Plan, Portfolio


class LayerStepKeys(gradual.StepKeys):
    """Keys of all layers in every document about a step."""


class LayerPlanKeys(gradual.PlanKeys):
    """Keys of all layers in the document of a plan."""


def plan_keys(plan: Plan, portfolio: Portfolio) -> LayerPlanKeys:
    """Return the keys of all layers in the document of a plan."""
    return {**gradual.plan_keys(plan, portfolio)}
