"""Goals of the whole wallet while a layer divides it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.layers.strategies.policy import netting as strategies
from agent.model import Goal, StepInput
from agent.units import Price

GOALS: tuple[Callable[[StepInput, Mapping[str, Price]], Goal | None], ...] = (
    strategies.combined_goal,
)
"""Goals of layers that divide the wallet; None while a layer does not."""


def divided_goal(step: StepInput, prices: Mapping[str, Price]) -> Goal | None:
    """Return the goal of the wallet's parts together; None if nothing divides the wallet. Raises
    Refused for unknown balances.
    """
    goals = (goal_of(step, prices) for goal_of in GOALS)
    return next((goal for goal in goals if goal is not None), None)
