"""What the guards ask of the plans that act in a layer."""

from __future__ import annotations

from collections.abc import Callable

from agent.guards.layer_case import LayerCase
from agent.layers.futures.guard_case import build_futures_case
from agent.model import Plan, StepInput

CASES: tuple[Callable[[StepInput, Plan], LayerCase | None], ...] = (build_futures_case,)
"""Answers of a layer on a plan; None if the plan does not act in the layer."""


def build_layer_case(step: StepInput, plan: Plan) -> LayerCase:
    """Return the answers of the layer in which the plan acts."""
    cases = (case for build in CASES if (case := build(step, plan)) is not None)
    return next(cases, LayerCase())
